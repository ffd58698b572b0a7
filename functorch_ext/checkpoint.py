"""Computing again in the backward pass what would have to be kept for it: ``checkpoint``."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import checkpoint as plain
from torch.utils._python_dispatch import TorchDispatchMode

from functorch_ext import _C
from functorch_ext._describing import kind_of
from functorch_ext._pytree import flatten, map_tensors

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")
_Keeps = Callable[[Any], bool] | None
Policy = str | Iterable[Any] | Callable[[Any], bool] | None

# Products, which are dear to compute and often small: by the names of aten.
_DOTS = """
    mm addmm bmm baddbmm addbmm mv addmv dot vdot _addmm_activation linear mkldnn_linear _mkl_linear
    convolution _convolution mkldnn_convolution convolution_overrideable
"""


def checkpoint(
    func: Callable[_Params, _Result], *, policy: Policy = None
) -> Callable[_Params, _Result]:
    """Computes the function again for its derivative, in place of keeping what it computed.

    As JAX's ``jax.checkpoint``. Between evaluation and backward pass the arguments are kept, and of
    what the operators of the function return, what the policy says. It composes with every
    transform, to any order. Of forward mode inside reverse mode, ``grad(jvp(f))``, it keeps the
    tangents of the arguments. Other tangents are gone when the function is computed again: those of
    tensors that it closes over, and of ``grad`` around ``jvp(jvp(f))`` or ``jvp(vmap(f))``. These
    raise; take ``jvp(grad(f))``.

    Args:
        func: The function, a pure one: it must compute the same when it is called again. Random
            numbers are the same, since the generators' states are kept too.
        policy: What is kept, of operators that neither write, nor return views, nor draw:

            - ``None``: nothing;
            - ``"dots"``: results of matrix products and convolutions;
            - ``"everything"``: all, as without this decorator;
            - a list of operators, such as ``[torch.ops.aten.mm]``;
            - a function that takes an operator, ``torch.ops.aten.mm.default`` say, and returns
              whether its results are kept.

            Operators are those that compute in the end: under ``vmap`` a product of matrices may
            be ``bmm``. While ``torch.compile`` traces, nothing is kept, whatever the policy.

    Returns:
        A function that computes the same.

    Raises:
        TypeError: ``func`` is no function, or the policy is something else.
        ValueError: the policy is another string.
        torch.utils.checkpoint.CheckpointError: in the backward pass, if tangents are gone, or the
            function computes something else when it is called again.

    Example::

        >>> block = checkpoint(lambda x, w: torch.tanh(x @ w).sin(), policy="dots")
        >>> grad(lambda w: block(torch.ones(2), w).sum())(torch.zeros(2, 3))
        tensor([[1., 1., 1.],
                [1., 1., 1.]])

    Source: T. Chen et al., "Training deep nets with sublinear memory cost", arXiv 1604.06174.
    """
    if not callable(func):
        raise TypeError(f"functorch_ext.checkpoint: expected a function, but got {kind_of(func)}.")
    if policy == "everything":
        return func
    keeps = _predicate(policy)
    run: Any = plain.checkpoint

    @functools.wraps(func)
    def checkpointed(*args: _Params.args, **kwargs: _Params.kwargs) -> _Result:
        if keeps is None or torch.compiler.is_compiling():
            return run(func, *args, use_reentrant=False, **kwargs)
        contexts = first, _ = _contexts(keeps)
        # No early stop: its exception can't leave an operator that a dispatch mode runs.
        outputs = run(
            func,
            *args,
            use_reentrant=False,
            context_fn=lambda: contexts,
            early_stop=False,
            **kwargs,
        )
        first.forget(outputs)  # others may write to them, and don't need them again
        return outputs

    return checkpointed


def _predicate(policy: Policy) -> _Keeps:
    """Whether results of an operator are kept; ``None`` if none are."""
    if policy is None:
        return None
    if isinstance(policy, str):
        if policy != "dots":
            raise ValueError(
                "functorch_ext.checkpoint: expected the policy to be None, 'dots', 'everything', a "
                f"list of operators or a function, but got {policy!r}."
            )
        names = {f"aten::{name}" for name in _DOTS.split()}
        return lambda operator: operator._schema.name in names
    known = torch._ops.OpOverloadPacket | torch._ops.OpOverload
    if callable(policy) and not isinstance(policy, known):
        return policy
    try:
        operators = list(policy)  # type: ignore[arg-type]
    except TypeError:
        operators = [None]
    if not all(isinstance(each, known) for each in operators):
        raise TypeError(
            "functorch_ext.checkpoint: expected the policy to be None, 'dots', 'everything', a "
            "list of operators such as torch.ops.aten.mm, or a function of an operator, but got "
            f"{policy!r}."
        )
    listed = set(operators)
    return lambda operator: operator in listed or operator.overloadpacket in listed


class _Kept:
    """What an operator returned."""

    def __init__(self, operator: Any, arguments: Any, results: Any) -> None:
        self._call = operator, arguments
        self._results = map_tensors(Tensor.detach, results)
        self._memory = _memory_of(results)

    def results_of(self, operator: Any, arguments: Any) -> Any:
        """The results if the call is the same, and they are what they were; else ``None``."""
        same = self._results is not None and self._call == (operator, arguments)
        return map_tensors(Tensor.detach, self._results) if same else None

    def forget_if_in(self, memory: set[int]) -> None:
        """Has it computed again, if it lies in memory that somebody writes to."""
        if self._memory & memory:
            self._results, self._memory = None, set()


class _Call:
    """A call that the program makes: its arguments, and what its operators returned."""

    def __init__(self, signature: Any) -> None:
        self.signature = signature
        self.kept: list[_Kept] = []


def _contexts(keeps: Callable[[Any], bool]) -> tuple["_Evaluation", "_Evaluation"]:
    calls: list[_Call] = []
    return _Evaluation(keeps, calls, is_first=True), _Evaluation(keeps, calls, is_first=False)


class _Evaluation(TorchDispatchMode):
    """Keeps results of operators at the first evaluation, and returns them at later ones.

    A later evaluation may compute less: for another derivative, or because it stops when it has
    what was asked for. So results are found by the program's call that led to the operator. If that
    has arguments of the same kind, on the same planes, it leads to the same operators.
    """

    def __init__(self, keeps: Callable[[Any], bool], calls: list[_Call], is_first: bool) -> None:
        super().__init__()
        self._keeps, self._calls, self._is_first = keeps, calls, is_first

    def __enter__(self) -> Any:
        self._number = -1
        self._watch = _Watch(self)
        self._watch.__enter__()
        self.begin(None)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._watch.__exit__(*error)

    def forget(self, written: Any) -> None:
        """Keeps nothing of what lies in the memory of these tensors."""
        memory = _memory_of(written)
        for call in self._calls:
            for kept in call.kept:
                kept.forget_if_in(memory)

    def begin(self, signature: Any) -> None:
        """The program makes a call."""
        self._number += 1
        self._position = 0
        if self._is_first:
            self._calls.append(_Call(signature))
            self._call: _Call | None = self._calls[-1]
        else:
            known = self._calls[self._number] if self._number < len(self._calls) else None
            self._call = known if known and known.signature == signature else None

    def end(self) -> None:
        """What follows is no part of the call, as a backward pass is."""
        self._call = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func._schema.is_mutable:
            self.forget(_written(func, args, kwargs))
        if self._call is None or not _can_be_kept(func) or not self._keeps(func):
            return func(*args, **kwargs)
        arguments = _kinds((args, kwargs))
        if not self._is_first:
            position, self._position = self._position, self._position + 1
            if position < len(self._call.kept):
                found = self._call.kept[position].results_of(func, arguments)
                if found is not None:
                    return found
            self._call = None  # it isn't the same after all
            return func(*args, **kwargs)
        results = func(*args, **kwargs)
        self._call.kept.append(_Kept(func, arguments, results))
        return results


class _Watch(TorchFunctionMode):
    """Tells an evaluation of the program's calls."""

    def __init__(self, evaluation: _Evaluation) -> None:
        super().__init__()
        self._evaluation = evaluation

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]
        planes = [(_kind(x), x.requires_grad, _plane(x)) for x in tensors]
        grad_mode, tangents = torch.is_grad_enabled(), _C.tangent_flows(tuple(tensors))
        self._evaluation.begin((func, planes, grad_mode, tangents))
        try:
            return func(*args, **kwargs)
        finally:
            self._evaluation.end()


def _plane(tensor: Tensor) -> Any:
    described = _C.describe(tensor)
    return None if described is None else described[1:]


def _kind(tensor: Tensor) -> Any:
    return tuple(tensor.shape), tensor.dtype, tensor.device


def _kinds(tree: Any) -> list[Any]:
    return [_kind(leaf) if isinstance(leaf, Tensor) else leaf for leaf in flatten(tree)[0]]


@functools.cache
def _can_be_kept(operator: Any) -> bool:
    """Is it a function of values, which returns new ones?"""
    schema = operator._schema
    aliases = any(each.alias_info is not None for each in (*schema.arguments, *schema.returns))
    return not aliases and torch.Tag.nondeterministic_seeded not in operator.tags


def _written(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The arguments that it writes to."""
    named = zip(operator._schema.arguments, args, strict=False)
    return [
        value
        for each, value in [
            *named,
            *((each, kwargs.get(each.name)) for each in operator._schema.arguments),
        ]
        if each.is_write
    ]


def _memory_of(tree: Any) -> set[int]:
    """Where the numbers of tensors lie, whatever planes they are on."""
    memory = set()
    for leaf in flatten(tree)[0]:
        if isinstance(leaf, Tensor):
            while (described := _C.describe(leaf)) is not None:
                leaf = described[0]
            memory.add(leaf.untyped_storage()._cdata)
    return memory
