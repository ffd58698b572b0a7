"""The transforms as Python loops over plain torch: the names and parameters that programs use."""

from types import SimpleNamespace

import torch
import torch.nn.functional
from torch.utils import _pytree as pytree

from test import oracle

_gradient = oracle._gradient


def vmap(function, in_dims=0, out_dims=0, randomness="error", chunk_size=None):
    def looped(*args):
        dims = in_dims if isinstance(in_dims, tuple) else (in_dims,) * len(args)
        state = torch.get_rng_state() if randomness == "same" else None

        def one(*sample):
            if state is not None:
                torch.set_rng_state(state)
            return function(*sample)

        return oracle.loop(one, dims, out_dims)(*args)

    return looped


def grad_and_value(function, argnums=0, has_aux=False):
    numbers = (argnums,) if isinstance(argnums, int) else argnums

    def compute(*args):
        args = [oracle.private(x) if i in numbers else x for i, x in enumerate(args)]
        output = function(*args)
        value = output[0] if has_aux else output
        found = tuple(_gradient(value, [args[i] for i in numbers]))
        return found[0] if isinstance(argnums, int) else found, output

    return compute


def grad(function, argnums=0, has_aux=False):
    def compute(*args):
        gradient, output = grad_and_value(function, argnums, has_aux)(*args)
        return (gradient, output[1]) if has_aux else gradient

    return compute


def vjp(function, *primals):
    primals = [oracle.private(x) for x in primals]
    output = function(*primals)

    def pullback(*cotangents):
        return tuple(_pulled(output, primals, cotangents))

    return output, pullback


def _pulled(output, primals, cotangents):
    """The sum over the outputs of cotangent times Jacobian."""
    outputs = pytree.tree_leaves(output)
    parts = [_gradient(each, primals, c) for each, c in zip(outputs, cotangents, strict=True)]
    return [sum(part[1:], part[0]) for part in zip(*parts, strict=True)]


def linearize(function, *primals):
    """The transpose of the pullback, which is linear in the cotangents."""
    primals = [oracle.private(x) for x in primals]
    output = function(*primals)
    leaves, spec = pytree.tree_flatten(output)

    def push(*tangents):
        cotangents = [torch.zeros_like(each).requires_grad_() for each in leaves]
        pulled = _pulled(output, primals, cotangents)
        pushed = [
            _gradient(each, cotangents, tangent)
            for each, tangent in zip(pulled, tangents, strict=True)
        ]
        return pytree.tree_unflatten(
            [sum(part[1:], part[0]) for part in zip(*pushed, strict=True)], spec
        )

    return output, push


def jvp(function, primals, tangents):
    output, push = linearize(function, *primals)
    return output, push(*tangents)


def jacrev(function, argnums=0, has_aux=False, chunk_size=None):
    def compute(*args):
        kept = []

        def first(*args):
            output = function(*args)
            if has_aux:
                kept[:] = output[1:]
                output = output[0]
            return output

        jacobian = oracle.jacobian(first, argnums)(*args)
        return (jacobian, kept[0]) if has_aux else jacobian

    return compute


def jacfwd(function, argnums=0, has_aux=False, randomness="error", chunk_size=None):
    return jacrev(function, argnums, has_aux)


def hessian(function, argnums=0, chunk_size=None):
    return oracle.hessian(function, argnums)


def functionalize(function, remove="mutations"):
    return function


# PyTorch's normalizations are wrong when differentiated three times, so here they are made of sums.


def _normalized(x, dims, eps=1e-5):
    centred = x - x.mean(dims, keepdim=True)
    return centred / (centred.square().mean(dims, keepdim=True) + eps).sqrt()


def _scaled(x, weight, bias, shape):
    x = x if weight is None else x * weight.reshape(shape)
    return x if bias is None else x + bias.reshape(shape)


def layer_norm(x, shape, weight=None, bias=None):
    y = _normalized(x, tuple(range(-len(shape), 0)))
    return _scaled(y, weight, bias, shape)


def batch_norm(x, mean, variance, weight=None, bias=None, training=False):
    channels = (1, -1) + (1,) * (x.dim() - 2)
    if training:
        y = _normalized(x, (0, *range(2, x.dim())))
    else:
        y = (x - mean.reshape(channels)) / (variance.reshape(channels) + 1e-5).sqrt()
    return _scaled(y, weight, bias, channels)


def group_norm(x, groups, weight=None, bias=None):
    parts = x.reshape(x.shape[0], groups, -1)
    y = _normalized(parts, (2,)).reshape(x.shape)
    return _scaled(y, weight, bias, (1, -1) + (1,) * (x.dim() - 2))


def instance_norm(x):
    return _normalized(x, tuple(range(2, x.dim())))


F = SimpleNamespace(
    **vars(torch.nn.functional)
    | {each.__name__: each for each in (layer_norm, batch_norm, group_norm, instance_norm)}
)
