"""The transforms by Python loops and plain autograd, with the interface of torch.func.

The third to run every row, and the one that says what is right. Nothing here uses functorch_ext or
torch.func.
"""

import torch
from torch.utils import _pytree as pytree

from test import oracle
from test.oracle import private


def vmap(func, in_dims=0, out_dims=0, randomness="error", chunk_size=None):
    return oracle.loop(func, in_dims, out_dims)


def _run(func, args, argnums, has_aux=False):
    """func of private stand-ins of the arguments at argnums: these, its outputs, aux, structure."""
    chosen = args[argnums] if isinstance(argnums, int) else tuple(args[i] for i in argnums)
    leaves, structure = pytree.tree_flatten(chosen)
    args = list(args)
    with torch.inference_mode(False), torch.enable_grad():
        stand_ins = [private(leaf) for leaf in leaves]
        tree = pytree.tree_unflatten(stand_ins, structure)
        for i, value in [(argnums, tree)] if isinstance(argnums, int) else zip(argnums, tree):
            args[i] = value
        output = func(*args)
    output, aux = output if has_aux else (output, None)
    return stand_ins, output, aux, structure


def _pull_back(output, stand_ins, cotangent=None):
    outputs = pytree.tree_leaves(output)
    cotangents = [None] * len(outputs) if cotangent is None else pytree.tree_leaves(cotangent)
    gradients = [torch.zeros_like(x) for x in stand_ins]
    with torch.enable_grad():
        for each, seed in zip(outputs, cotangents):
            found = oracle._gradient(each, stand_ins, seed)
            gradients = [total + part for total, part in zip(gradients, found)]
    return gradients


def grad_and_value(func, argnums=0, has_aux=False):
    def gradient(*args):
        stand_ins, output, aux, structure = _run(func, args, argnums, has_aux)
        gradients = pytree.tree_unflatten(_pull_back(output, stand_ins), structure)
        return (gradients, (output, aux)) if has_aux else (gradients, output)

    return gradient


def grad(func, argnums=0, has_aux=False):
    def gradient(*args):
        gradients, value = grad_and_value(func, argnums, has_aux)(*args)
        return (gradients, value[1]) if has_aux else gradients

    return gradient


def vjp(func, *primals, has_aux=False):
    stand_ins, output, aux, structure = _run(func, primals, tuple(range(len(primals))), has_aux)

    def pullback(cotangent):
        return tuple(pytree.tree_unflatten(_pull_back(output, stand_ins, cotangent), structure))

    return (output, pullback, aux) if has_aux else (output, pullback)


def jvp(func, primals, tangents, *, strict=False, has_aux=False):
    """By differentiating the pullback, which is linear in the cotangents."""
    stand_ins, output, aux, _ = _run(func, primals, tuple(range(len(primals))), has_aux)
    outputs, structure = pytree.tree_flatten(output)
    with torch.enable_grad():
        cotangents = [torch.zeros_like(each).requires_grad_() for each in outputs]
        pulled_back = _pull_back(outputs, stand_ins, cotangents)
        pushed = [torch.zeros_like(each) for each in outputs]
        for each, tangent in zip(pulled_back, pytree.tree_leaves(tangents)):
            found = oracle._gradient(each, cotangents, tangent)
            pushed = [total + part for total, part in zip(pushed, found)]
    tangent = pytree.tree_unflatten(pushed, structure)
    return (output, tangent, aux) if has_aux else (output, tangent)


def jacrev(func, argnums=0, has_aux=False, *, chunk_size=None):
    def jacobian(*args):
        stand_ins, output, aux, structure = _run(func, args, argnums, has_aux)

        def of_one(leaf):
            rows = [_pull_back(element, stand_ins) for element in leaf.reshape(-1).unbind()]
            parts = [
                (torch.stack([row[i] for row in rows]) if rows else x.new_zeros(0)).reshape(
                    leaf.shape + x.shape
                )
                for i, x in enumerate(stand_ins)
            ]
            return pytree.tree_unflatten(parts, structure)

        result = pytree.tree_map(of_one, output)
        return (result, aux) if has_aux else result

    return jacobian


def jacfwd(func, argnums=0, has_aux=False, *, randomness="error"):
    return jacrev(func, argnums, has_aux)


def hessian(func, argnums=0):
    return jacrev(jacrev(func, argnums), argnums)


def functional_call(module, dicts, args):
    dicts = (dicts,) if isinstance(dicts, dict) else dicts
    state = {name: value for each in dicts for name, value in each.items()}
    return torch.nn.utils.stateless.functional_call(module, state, args)
