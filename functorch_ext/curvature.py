"""Products with matrices of second derivatives, which are never formed.

``hvp``, ``vhp``, ``ggnvp`` and ``fisher_vp`` each make a function of a point and a vector. Its
attribute ``at`` takes the point alone and returns the linear map there: what is evaluated at the
point is evaluated once for all vectors. ``vmap`` of that map takes many vectors at once.
"""

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from functorch_ext import _C
from functorch_ext._arguments import Argnums, check_differentiable, replaced, selected
from functorch_ext._pytree import Tree, flatten, leaves_of, unflatten
from functorch_ext.forward import LinearMap, checked_tangents, jvp
from functorch_ext.reverse import gradient_function

LinearFunction = Callable[[Any], Any]


class CurvatureProduct:
    """A product of a matrix that depends on a point with a vector: ``product(*point, vector)``."""

    def __init__(self, transform: str, at: Callable[..., LinearFunction]) -> None:
        self._transform = transform
        self._at = at

    def __repr__(self) -> str:
        return f"<functorch_ext.{self._transform} of {self._at.__qualname__}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The product at the point ``args[:-1]`` with the vector ``args[-1]``."""
        if len(args) < 2:
            raise TypeError(
                f"functorch_ext.{self._transform}: expected the arguments of the function and then "
                f"the vector, but got {len(args)} positional arguments in all. For many products "
                "at one point, use .at(*arguments)(vector)."
            )
        return self._at(*args[:-1], **kwargs)(args[-1])

    def at(self, *args: Any, **kwargs: Any) -> LinearFunction:
        """The linear map at the point; it holds the graph of what it has evaluated there."""
        return self._at(*args, **kwargs)


def hvp(func: Callable[..., Any], argnums: Argnums = 0) -> CurvatureProduct:
    """Products of the Hessian with vectors: ``hvp(func)(x, v)`` is ``hessian(func)(x) @ v``.

    The gradient's graph is pulled back (reverse mode over reverse mode), which costs a few
    evaluations of ``func`` whatever the number of parameters::

        H v = d/dx <grad func(x), v>

    Args:
        func: Returns a tensor without dimensions.
        argnums: The positional argument to differentiate by, or a tuple of several.

    Returns:
        ``product(*args, vector)``, where the vector is shaped as the argument at ``argnums`` (a
        tuple of vectors for a tuple of argnums) and so is the result. ``product.at(*args)``
        evaluates ``func`` and its gradient and returns a function of the vector alone; ``vmap`` of
        it takes many vectors at once.

    Raises:
        RuntimeError: the vector doesn't fit the argument, or as for :func:`grad`.
        TypeError: the vector is missing.

    Example::

        >>> cubes = lambda x: (x**3).sum()
        >>> x = torch.tensor([1.0, 2.0])
        >>> hvp(cubes)(x, torch.ones(2))
        tensor([ 6., 12.])
        >>> vmap(hvp(cubes).at(x))(torch.eye(2))  # a row for each vector
        tensor([[ 6.,  0.],
                [ 0., 12.]])

    Source: B. Pearlmutter, "Fast exact multiplication by the Hessian", 1994.
    """
    return _hessian_product("hvp", func, argnums)


def vhp(func: Callable[..., Any], argnums: Argnums = 0) -> CurvatureProduct:
    """Products of vectors with the Hessian: ``vhp(func)(x, v)`` is ``v @ hessian(func)(x)``.

    A Hessian is symmetric wherever second derivatives are continuous, so this is :func:`hvp`, but
    computed in forward mode over reverse mode: it keeps no graph of the gradient, which takes less
    memory where ``func`` is deep. ``at`` evaluates nothing ahead.

    Args:
        func: Returns a tensor without dimensions.
        argnums: The positional argument to differentiate by, or a tuple of several.

    Returns:
        As :func:`hvp`.

    Raises:
        RuntimeError: as for :func:`hvp`.
        TypeError: the vector is missing.

    Example::

        >>> vhp(lambda x: x[0] ** 2 * x[1])(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 0.0]))
        tensor([4., 2.])
    """

    @functools.wraps(func)
    def at(*args: Any, **kwargs: Any) -> LinearFunction:
        point = selected("vhp", argnums, args)
        leaves, structure = flatten(point)
        check_differentiable("vhp", "the argument at argnums", leaves)
        gradient = _gradient_by("vhp", func, argnums, args, kwargs)

        def product(vector: Any) -> Any:
            checked_tangents("vhp", flatten(vector), leaves, structure)
            return jvp(gradient, (point,), (vector,))[1]

        return product

    return CurvatureProduct("vhp", at)


def _hessian_product(
    transform: str, func: Callable[..., Any], argnums: Argnums
) -> CurvatureProduct:
    @functools.wraps(func)
    def at(*args: Any, **kwargs: Any) -> LinearFunction:
        leaves, structure = flatten(selected(transform, argnums, args))
        check_differentiable(transform, "the argument at argnums", leaves)
        gradient = _gradient_by(transform, func, argnums, args, kwargs)

        def record(frame: _C.ReverseFrame) -> tuple[_C.ReverseFrame, list[Tensor]]:
            return frame, leaves_of(gradient(unflatten(structure, frame.differentiable(leaves))))

        frame, gradients = _C.run_reverse(record)

        def product(vector: Any) -> Any:
            given = checked_tangents(transform, flatten(vector), leaves, structure)
            return unflatten(structure, frame.pull_back(gradients, given, True))

        return product

    return CurvatureProduct(transform, at)


def _gradient_by(
    transform: str,
    func: Callable[..., Any],
    argnums: Argnums,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Callable[[Tree], Tree]:
    """The gradient as a function of what argnums select."""
    compute = gradient_function(transform, func, argnums, has_aux=False, with_value=False)
    return lambda point: compute(tuple(replaced(argnums, args, point)), kwargs)[0]


def ggnvp(model: Callable[..., Any], loss: Callable[[Any], Any]) -> CurvatureProduct:
    """Products of the generalized Gauss-Newton matrix of ``loss(model(x))`` with vectors.

    The Hessian of the loss by the model's output, between the model's Jacobians::

        G v = J^T H (J v)    J = d model(x) / dx,    H = d^2 loss(z) / dz^2 at z = model(x)

    It is positive semi-definite where the loss is convex, and the Hessian if the model is linear.

    Args:
        model: Returns a tensor or a container of tensors, as a function of its first argument.
        loss: Takes the model's output and returns a tensor without dimensions.

    Returns:
        ``product(*args, vector)``, where ``args`` are the model's arguments, and the vector is
        shaped as the first; so is the result. ``product.at(*args)`` evaluates the model once and
        returns a function of the vector alone; ``vmap`` of it takes many vectors at once.

    Raises:
        RuntimeError: the vector doesn't fit the first argument, the model returns something else
            than tensors, or the loss isn't a number.
        TypeError: the vector is missing.

    Example::

        >>> data, targets = torch.eye(2), torch.zeros(2)
        >>> model = lambda weight: data @ weight
        >>> loss = lambda output: 0.5 * ((output - targets) ** 2).sum()
        >>> ggnvp(model, loss)(torch.ones(2), torch.tensor([1.0, 2.0]))
        tensor([1., 2.])

    Source: N. Schraudolph, "Fast curvature matrix-vector products for second-order gradient
    descent", 2002; J. Martens, "New insights and perspectives on the natural gradient method",
    arXiv 1412.1193.
    """
    curvature = _hessian_product("ggnvp", loss, 0)
    return _gauss_newton_product("ggnvp", model, curvature.at)


def fisher_vp(
    model: Callable[..., Any], distribution: Callable[[Any], Distribution]
) -> CurvatureProduct:
    """Products of the Fisher information matrix of ``distribution(model(x))`` with vectors.

    The Fisher information is the second derivative of the Kullback-Leibler divergence of nearby
    distributions, between the model's Jacobians; divergences of a batch are summed::

        F v = J^T K (J v)    K = d^2 KL(p(z), p(z')) / dz'^2 at z' = z = model(x)

    It is exact: nothing is drawn. (The *empirical* Fisher, of gradients at observed labels, is
    another matrix.)

    Args:
        model: Returns a tensor or a container of tensors, as a function of its first argument.
        distribution: Makes a ``torch.distributions.Distribution`` of the model's output, of a
            family for which ``torch.distributions.kl_divergence`` has a formula.

    Returns:
        As :func:`ggnvp`.

    Raises:
        NotImplementedError: PyTorch has no divergence of the family.
        RuntimeError: the vector doesn't fit the first argument, or the model returns something else
            than tensors.
        TypeError: the vector is missing, or ``distribution`` returns something else.

    Example::

        >>> data = torch.eye(2)
        >>> model = lambda weight: data @ weight
        >>> unit_normal = lambda mean: torch.distributions.Normal(mean, 1.0)
        >>> fisher_vp(model, unit_normal)(torch.zeros(2), torch.tensor([1.0, 2.0]))
        tensor([1., 2.])

    Source: S. Amari, "Natural gradient works efficiently in learning", 1998; R. Pascanu and
    Y. Bengio, "Revisiting natural gradient for deep networks", arXiv 1301.3584.
    """

    def information(output: Any) -> LinearFunction:
        here = distribution(output)
        if not isinstance(here, Distribution):
            raise TypeError(
                "functorch_ext.fisher_vp: distribution has to make a torch.distributions."
                f"Distribution of the model's output, but returned a {type(here).__name__}."
            )

        def divergence(output: Any) -> Tensor:
            return kl_divergence(here, distribution(output)).sum()

        return hvp(divergence).at(output)

    return _gauss_newton_product("fisher_vp", model, information)


def _gauss_newton_product(
    transform: str, model: Callable[..., Any], curvature_at: Callable[[Any], LinearFunction]
) -> CurvatureProduct:
    """J^T C J, where J is the model's Jacobian and C the curvature at its output."""

    @functools.wraps(model)
    def at(*args: Any, **kwargs: Any) -> LinearFunction:
        leaves, structure = flatten(selected(transform, 0, args))
        check_differentiable(transform, "the first argument", leaves)
        evaluate = lambda point: model(point, *args[1:], **kwargs)
        jacobian = LinearMap(transform, evaluate, leaves, structure)
        curvature = curvature_at(jacobian.output)

        def product(vector: Any) -> Any:
            pushed = jacobian(checked_tangents(transform, flatten(vector), leaves, structure))
            return unflatten(structure, jacobian.transposed(leaves_of(curvature(pushed))))

        return product

    return CurvatureProduct(transform, at)
