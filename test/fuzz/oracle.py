"""The transforms as Python loops over plain torch: the names and parameters that programs use."""

import torch
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
