"""What Dynamo traces for products with Hessians, their diagonals and traces, and for divergences.

The transforms are composed as their formulas are: what the composition computes twice, compilers
compute once. What a polyfill can't say, it leaves to the transform, as in ``polyfills.py``.
"""

# mypy: ignore-errors

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import functorch_ext
from functorch_ext._dynamo import polyfills
from functorch_ext._dynamo.entry import call_transform
from functorch_ext._dynamo.polyfills import Refused
from functorch_ext.curvature import CurvatureProduct

# The transforms, as functions that return functions ---------------------------------------------


def hvp(func, argnums=0):
    return _product("hvp", func, argnums)


def vhp(func, argnums=0):
    return _product("vhp", func, argnums)


def ggnvp(model, loss):
    return _product("ggnvp", model, loss)


def _product(transform, func, option):
    def at(*args, **kwargs):
        return call_transform(f"{transform}.at", func, (option,), args, kwargs)

    return CurvatureProduct(transform, at)


def hessian_diag(func, argnums=0, *, chunk_size=None):
    def diagonal(*args, **kwargs):
        return call_transform("hessian_diag", func, (argnums, chunk_size), args, kwargs)

    return diagonal


def divergence(func, argnums=0, *, chunk_size=None):
    def of_point(*args, **kwargs):
        return call_transform("divergence", func, (argnums, chunk_size), args, kwargs)

    return of_point


def laplacian(func, argnums=0, *, weights=None, chunk_size=None):
    def trace(*args, **kwargs):
        return call_transform("laplacian", func, (argnums, weights, chunk_size), args, kwargs)

    return trace


# Their calls -------------------------------------------------------------------------------------


def traced_call(transform, func, options, args, kwargs):
    if transform == "hvp.at":
        return _hvp_at(func, options[0], args, kwargs)
    if transform == "vhp.at":
        return _vhp_at(func, options[0], args, kwargs)
    if transform == "ggnvp.at":
        return _ggnvp_at(func, options[0], args, kwargs)
    if transform == "hessian_diag":
        seconds, size = _seconds(func, *options, args, kwargs)
        return pytree.tree_map(lambda each: each.reshape(each.shape[:-1] + size), seconds)
    if transform == "divergence":
        return _divergence(func, *options, args, kwargs)
    if transform == "laplacian":
        argnums, weights, chunk_size = options
        if weights is not None:
            raise Refused
        seconds, _ = _seconds(func, argnums, chunk_size, args, kwargs)
        return pytree.tree_map(lambda each: each.sum(-1), seconds)
    return polyfills.traced_call(transform, func, options, args, kwargs)


def _hvp_at(func, argnums, args, kwargs):
    gradient = _by_point(functorch_ext.grad(func, argnums), argnums, args, kwargs)
    _, pullback = functorch_ext.vjp(gradient, _point(argnums, args))

    def product(vector):
        return pullback(vector)[0]

    return product


def _vhp_at(func, argnums, args, kwargs):
    gradient = _by_point(functorch_ext.grad(func, argnums), argnums, args, kwargs)
    point = _point(argnums, args)

    def product(vector):
        return functorch_ext.jvp(gradient, (point,), (vector,))[1]

    return product


def _ggnvp_at(model, loss, args, kwargs):
    evaluate = _by_point(model, 0, args, kwargs)
    output, pullback = functorch_ext.vjp(evaluate, args[0])

    def product(vector):
        pushed = functorch_ext.jvp(evaluate, (args[0],), (vector,))[1]
        return pullback(functorch_ext.hvp(loss)(output, pushed))[0]

    return product


def _seconds(func, argnums, chunk_size, args, kwargs):
    """Second derivatives along each element of one tensor, in the last dimension; its shape."""
    point, basis = _point_and_basis(argnums, args)
    evaluate = _by_point(func, argnums, args, kwargs)

    def along(direction):
        first = lambda x: functorch_ext.jvp(evaluate, (x,), (direction,))[1]
        return functorch_ext.jvp(first, (point,), (direction,))[1]

    return functorch_ext.vmap(along, 0, -1, chunk_size=chunk_size)(basis), point.shape


def _divergence(func, argnums, chunk_size, args, kwargs):
    point, basis = _point_and_basis(argnums, args)
    evaluate = _by_point(func, argnums, args, kwargs)

    def along(direction):
        pushed = functorch_ext.jvp(evaluate, (point,), (direction,))[1]
        if not isinstance(pushed, Tensor) or pushed.shape != point.shape:
            raise Refused
        return (pushed * direction).sum()

    return functorch_ext.vmap(along, chunk_size=chunk_size)(basis).sum()


def _point_and_basis(argnums, args):
    """One tensor, and directions along each of its elements."""
    point = _point(argnums, args)
    if not isinstance(point, Tensor) or not point.is_floating_point() or point.numel() == 0:
        raise Refused
    basis = torch.eye(point.numel(), dtype=point.dtype, device=point.device)
    return point, basis.reshape((point.numel(), *point.shape))


def _point(argnums, args):
    if isinstance(argnums, int):
        return args[argnums]
    return tuple([args[position] for position in argnums])


def _by_point(func, argnums, args, kwargs):
    """The function of what argnums select alone."""

    def of_point(point):
        given = list(args)
        if isinstance(argnums, int):
            given[argnums] = point
        else:
            for position, each in zip(argnums, point):
                given[position] = each
        return func(*given, **kwargs)

    return of_point
