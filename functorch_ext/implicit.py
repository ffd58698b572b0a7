"""Derivatives of what a solver finds, by the equation that it solves.

Where ``residual(x, *args) = 0``, the implicit function theorem gives, with ``A`` the derivative by
``x``::

    A dx = -(d residual / d args) d args

which is solved by products with ``A`` alone. The solver itself isn't differentiated.

Source: M. Blondel et al., "Efficient and Modular Implicit Differentiation", 2022, arXiv:2105.15183.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.linalg import vector_norm

from functorch_ext._linear_solvers import all_true, conjugate_gradients, gmres, number
from functorch_ext._pytree import Tree, flatten, leaves_of, map_tensors, map_tree
from functorch_ext._rule_calls import RuleCall
from functorch_ext.forward import jvp
from functorch_ext.reverse import vjp

LinearSolver = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]

_LINEAR: dict[str, LinearSolver] = {"gmres": gmres, "cg": conjugate_gradients}


def implicit_root(
    residual: Callable[..., Any], linear_solver: str | LinearSolver = "gmres"
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator of solvers, whose solutions are differentiated implicitly.

    Args:
        residual: ``residual(x, *args)`` is zero at the solution, and has the structure and the
            shapes of ``x``.
        linear_solver: How linear equations with the derivative of ``residual`` by ``x`` are solved:
            ``"gmres"``, ``"cg"`` where that derivative is symmetric and definite, or
            ``solver(matvec, b)`` that takes and returns vectors.

    Returns:
        A decorator of ``solve(init, *args)``, a function that returns a solution ``x``, from an
        initial guess, by any means. What it returns then has derivatives by ``args``, of any order
        and in both modes; those by ``init`` are zero. They are as exact as the solution.

    Raises:
        ValueError: ``linear_solver`` has another name.
        RuntimeError: ``residual`` returns another structure than ``x`` has, or, where it is
            differentiated, the linear equations aren't solved to the precision of the dtype.

    Example::

        >>> @implicit_root(lambda x, a: x**2 - a)
        ... def square_root(init, a):
        ...     x = init
        ...     for _ in range(20):
        ...         x = (x + a / x) / 2
        ...     return x
        >>> grad(square_root, argnums=1)(torch.tensor(1.0), torch.tensor(4.0))
        tensor(0.2500)
    """
    solve_linear = _LINEAR.get(linear_solver) if isinstance(linear_solver, str) else linear_solver
    if not callable(solve_linear):
        raise ValueError(
            "functorch_ext.implicit_root: linear_solver must be 'gmres', 'cg' or a function of a "
            f"linear map and a vector, but got {linear_solver!r}."
        )

    def decorator(solve: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(solve)
        def solved(init: Any, *args: Any) -> Any:
            return _root(residual, solve, solve_linear, init, args)

        return solved

    return decorator


def fixed_point(
    func: Callable[..., Any],
    init: Any,
    *args: Any,
    max_steps: int = 1000,
    tolerance: float | None = None,
    linear_solver: str | LinearSolver = "gmres",
) -> Any:
    """Where ``x = func(x, *args)``, by repeated evaluation; differentiated implicitly.

    Memory and cost of a derivative don't depend on how many steps it took.

    Args:
        func: A contraction: returns a pytree of the structure and shapes of ``init``.
        init: Where to start; derivatives by it are zero.
        *args: What the fixed point depends on, and is differentiated by.
        max_steps: How many evaluations at most.
        tolerance: When a step changes each tensor by less, relative to its norm; 10 times the
            precision of its dtype unless given.
        linear_solver: As for :func:`implicit_root`.

    Returns:
        The fixed point.

    Raises:
        RuntimeError: no fixed point was found in ``max_steps``, or as for :func:`implicit_root`.

    Example::

        >>> cosine = lambda a: fixed_point(lambda x, a: torch.cos(a * x), torch.tensor(1.0), a)
        >>> cosine(torch.tensor(1.0))
        tensor(0.7391)
        >>> grad(cosine)(torch.tensor(1.0))  # -x sin x / (1 + sin x)
        tensor(-0.2975)
    """

    def residual(x: Any, *args: Any) -> Any:
        return map_tree(torch.sub, func(x, *args), x)

    @implicit_root(residual, linear_solver)
    def solve(x: Any, *args: Any) -> Any:
        for _ in range(max_steps):
            image = func(x, *args)
            _check_like(image, x)
            if _is_close(image, x, tolerance):
                return image
            x = image
        raise RuntimeError(
            f"functorch_ext.fixed_point: no fixed point was found in {max_steps} steps. Give more "
            "max_steps, a larger tolerance, or a function that contracts."
        )

    return solve(init, *args)


def _check_like(image: Any, x: Any) -> None:
    if isinstance(image, Tensor) and isinstance(x, Tensor) and image.shape == x.shape:
        return
    shapes = [[tuple(leaf.shape) for leaf in leaves_of(tree)] for tree in (image, x)]
    if flatten(image)[1] != flatten(x)[1] or shapes[0] != shapes[1]:
        raise RuntimeError(
            "functorch_ext.fixed_point: func must return the structure and the shapes of init, "
            f"{flatten(x)[1]} of {shapes[1]}, but returned {flatten(image)[1]} of {shapes[0]}."
        )


def _is_close(image: Any, x: Any, tolerance: float | None) -> bool:
    def close(new: Tensor, old: Tensor) -> bool:
        relative = 10 * torch.finfo(new.dtype).eps if tolerance is None else tolerance
        size, change = number(vector_norm(new)), number(vector_norm(new - old))
        return all_true(change <= relative * size) and all_true(size < math.inf)

    return all(map(close, leaves_of(image), leaves_of(x)))


def _root(
    residual: Callable[..., Any],
    solve: Callable[..., Any],
    solve_linear: LinearSolver,
    init: Any,
    args: tuple[Any, ...],
) -> Any:
    call = _Call(residual, solve, solve_linear, init, args)
    return call.outputs(_Root.apply(call, *call.tensors))


class _Call(RuleCall):
    """A call of a solver. The initial guess is no argument: nothing is differentiated by it."""

    def __init__(
        self,
        residual: Callable[..., Any],
        solve: Callable[..., Any],
        solve_linear: LinearSolver,
        init: Any,
        args: tuple[Any, ...],
    ) -> None:
        super().__init__((init, *args))
        self._residual, self._solve, self._solve_linear = residual, solve, solve_linear
        self.guesses = sum(isinstance(leaf, Tensor) for leaf in leaves_of(init))

    def solution(self, tensors: Any) -> tuple[Tensor, ...]:
        return self.keep_outputs(map_tensors(Tensor.clone, self._solve(*self.args(tensors))))

    def residual(self, root: Any, tensors: Any) -> tuple[Tensor, ...]:
        """At the tensors of a root and of the other arguments, as those of the root."""
        guesses = [torch.empty(0)] * self.guesses
        _, *args = self.args([*guesses, *tensors])
        returned = self._residual(self.outputs(root), *args)
        parts = self.tensor_outputs("the residual of a root", returned)
        shapes = [[tuple(x.shape) for x in tensors] for tensors in (parts, root)]
        if shapes[0] != shapes[1]:
            raise RuntimeError(
                "functorch_ext.implicit_root: residual must return the shapes of the root, "
                f"{shapes[1]}, but returned {shapes[0]}."
            )
        return tuple(parts)

    def inverse(self, adjoint: bool, root: Any, tensors: Any, b: Any) -> tuple[Tensor, ...]:
        """The solution of A x = b (or of its adjoint), a function of all that it depends on."""
        count = len(root)

        def product(x: Any, *given: Tensor) -> tuple[Tensor, ...]:
            at = lambda *root: self.residual(root, given[count:])
            root = given[:count]
            if adjoint:
                return vjp(at, *root)[1](tuple(x))
            return jvp(at, root, tuple(x))[1]

        def residual(x: Any, b: Any, *given: Tensor) -> tuple[Tensor, ...]:
            pairs = zip(product(x, *given), b, strict=True)
            return tuple(image - part for image, part in pairs)

        def solve(x: Any, b: Any, *given: Tensor) -> tuple[Tensor, ...]:
            shapes = _Shapes(b)
            if adjoint:  # the same pullback for all products
                _, apply = vjp(lambda *root: self.residual(root, given[count:]), *given[:count])
            else:
                apply = lambda x: product(x, *given)
            matvec = lambda v: shapes.flat(apply(shapes.parts(v)))
            return shapes.parts(self._solve_linear(matvec, shapes.flat(b)))

        guess = tuple(None for _ in b)
        return _root(residual, solve, self._solve_linear, guess, (tuple(b), *root, *tensors))


class _Shapes:
    """Tensors as one vector, and back."""

    def __init__(self, tensors: Any) -> None:
        self._shapes = [tensor.shape for tensor in tensors]

    def flat(self, tensors: Any) -> Tensor:
        rows = [tensor.reshape(-1) for tensor in tensors]
        return rows[0] if len(rows) == 1 else torch.cat(rows)

    def parts(self, vector: Tensor) -> tuple[Tensor, ...]:
        if len(self._shapes) == 1:
            return (vector.view(self._shapes[0]),)
        pieces = vector.split([shape.numel() for shape in self._shapes])
        return tuple(x.view(shape) for x, shape in zip(pieces, self._shapes, strict=True))


class _Root(Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        root = call.solution(tensors)
        ctx.call = call
        ctx.save_for_backward(*root, *tensors[call.guesses :])
        ctx.save_for_forward(*root, *tensors[call.guesses :])
        return root

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        call = ctx.call
        root, tensors = _apart(ctx.saved_tensors, len(cotangents))
        wanted = [i for i, x in enumerate(tensors) if ctx.needs_input_grad[1 + call.guesses + i]]
        pulled: list[Any] = [None] * len(tensors)
        if not wanted:  # by the guess alone
            return None, *[None] * call.guesses, *pulled
        multipliers = call.inverse(True, root, tensors, cotangents)

        def residual(*some: Tensor) -> tuple[Tensor, ...]:
            given = list(tensors)
            for position, tensor in zip(wanted, some, strict=True):
                given[position] = tensor
            return call.residual(root, given)

        _, pull_back = vjp(residual, *[tensors[i] for i in wanted])
        for position, cotangent in zip(wanted, pull_back(multipliers), strict=True):
            pulled[position] = -cotangent
        return None, *[None] * call.guesses, *pulled

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> tuple[Any, ...]:
        call = ctx.call
        given = tangents[call.guesses :]
        root, tensors = _apart(ctx.saved_tensors, len(ctx.saved_tensors) - len(given))
        pushed = [i for i, tangent in enumerate(given) if tangent is not None]
        if not pushed:
            return tuple(torch.zeros_like(x) for x in root)

        def residual(*some: Tensor) -> tuple[Tensor, ...]:
            changed = list(tensors)
            for position, tensor in zip(pushed, some, strict=True):
                changed[position] = tensor
            return call.residual(root, changed)

        primals = tuple(tensors[i] for i in pushed)
        _, moved = jvp(residual, primals, tuple(given[i] for i in pushed))
        return call.inverse(False, root, tensors, tuple(-each for each in moved))


def _apart(saved: tuple[Tensor, ...], count: int) -> tuple[tuple[Tensor, ...], Tree]:
    return saved[:count], saved[count:]
