"""What Dynamo traces where a program uses our transforms.

Each is the Python of a transform that stands around the engine's work: containers are taken apart
and put together. The work itself is a node of the graph, ``transform_call``.

What a polyfill can't say, it leaves to the transform, by an exception: the graph breaks.
"""

# mypy: ignore-errors

from torch import Tensor
from torch.nn.utils import stateless
from torch.utils import _pytree as pytree

from functorch_ext._dynamo.entry import call_transform
from functorch_ext._dynamo.graph_call import SAMPLES, transform_call


class Refused(Exception):
    """The arguments are wrong, or of a form that only the transform itself takes."""


# The transforms, as functions that return functions ---------------------------------------------


def vmap(
    func,
    in_dims=0,
    out_dims=0,
    randomness="error",
    *,
    chunk_size=None,
    axis_size=None,
    kwarg_dims=None,
    axis_name=None,
    progress=False,
):
    if axis_name is not None:
        raise Refused
    options = (in_dims, out_dims, randomness, chunk_size, axis_size, kwarg_dims)

    def mapped(*args, **kwargs):
        return call_transform("vmap", func, options, args, kwargs)

    return mapped


def grad(func, argnums=0, has_aux=False, *, argnames=None):
    if argnames is not None:
        raise Refused

    def gradient(*args, **kwargs):
        return call_transform("grad", func, (argnums, has_aux), args, kwargs)

    return gradient


def grad_and_value(func, argnums=0, has_aux=False, *, argnames=None):
    if argnames is not None:
        raise Refused

    def gradient_and_value(*args, **kwargs):
        return call_transform("grad_and_value", func, (argnums, has_aux), args, kwargs)

    return gradient_and_value


def jacrev(
    func,
    argnums=0,
    *,
    has_aux=False,
    chunk_size=None,
    argnames=None,
    progress=False,
    _preallocate_and_copy=False,
):
    if argnames is not None:
        raise Refused

    def jacobian(*args, **kwargs):
        return call_transform("jacrev", func, (argnums, has_aux, chunk_size), args, kwargs)

    return jacobian


def jacfwd(
    func,
    argnums=0,
    has_aux=False,
    *,
    randomness="error",
    chunk_size=None,
    argnames=None,
    progress=False,
):
    if argnames is not None:
        raise Refused
    options = (argnums, has_aux, chunk_size, randomness)

    def jacobian(*args, **kwargs):
        return call_transform("jacfwd", func, options, args, kwargs)

    return jacobian


def hessian(
    func,
    argnums=0,
    *,
    has_aux=False,
    chunk_size=None,
    argnames=None,
    with_grad_and_value=False,
    progress=False,
):
    if argnames is not None or with_grad_and_value:
        raise Refused

    def of_second_derivatives(*args, **kwargs):
        return call_transform("hessian", func, (argnums, has_aux, chunk_size), args, kwargs)

    return of_second_derivatives


def functionalize(func, *, remove="mutations"):
    return func  # compilers do so anyway


def functional_call(
    module, parameter_and_buffer_dicts, args=None, kwargs=None, *, tie_weights=True, strict=False
):
    values = parameter_and_buffer_dicts
    if isinstance(values, (tuple, list)):
        values = {}
        for each in parameter_and_buffer_dicts:
            for name in each:
                if name in values:
                    raise Refused
                values[name] = each[name]
    return stateless._functional_call(
        module, values, args, kwargs, tie_weights=tie_weights, strict=strict
    )


# Their calls -------------------------------------------------------------------------------------


def traced_call(transform, func, options, args, kwargs):
    if transform == "vmap":
        return _call_vmap(func, options, args, kwargs)
    if transform == "grad" or transform == "grad_and_value":
        return _call_grad(transform, func, options, args, kwargs)
    if transform == "norms_of":
        return _reduced(transform, func, options[0], *args)[1][0]
    if transform == "clipped_sum_of":
        structure, sums = _reduced(transform, func, options[0], *args)
        return pytree.tree_unflatten(sums, structure)
    return _call_jacobian(transform, func, options, args, kwargs)


def _call_vmap(func, options, args, kwargs):
    in_dims, out_dims, randomness, chunk_size, axis_size, kwarg_dims = options
    leaves, structure = pytree.tree_flatten((list(args), kwargs))
    dims = list(in_dims) if isinstance(in_dims, (tuple, list)) else [in_dims] * len(args)
    if len(dims) != len(args):
        raise Refused
    dims_by_name = {name: None for name in kwargs}
    if kwarg_dims:
        for name in kwarg_dims:
            dims_by_name[name] = kwarg_dims[name]
    roles = pytree._broadcast_to_and_flatten((dims, dims_by_name), structure)
    if roles is None:
        raise Refused

    def body(leaves):
        inner_args, inner_kwargs = pytree.tree_unflatten(leaves, structure)
        return func(*inner_args, **inner_kwargs)

    settings = (("randomness", randomness), ("chunk_size", chunk_size), ("axis_size", axis_size))
    _, result = transform_call("vmap", settings, body, leaves, roles, [], out_dims)
    return result


def dims_of_outputs(out_dims, structure):
    """``out_dims`` with one entry per leaf of the outputs."""
    dims = pytree._broadcast_to_and_flatten(out_dims, structure)
    if dims is None and isinstance(out_dims, tuple) and len(out_dims) == 1:
        dims = pytree._broadcast_to_and_flatten(out_dims[0], structure)
    if dims is None:
        raise Refused
    return dims


def _split(func, argnums, has_aux, args, kwargs):
    """The leaves to differentiate by and the others, their function, and the former's structure."""
    if isinstance(argnums, int):
        selected = args[argnums]
        positions = [argnums % len(args)]
    else:
        positions = [position % len(args) for position in argnums]
        selected = tuple([args[position] for position in positions])
    if len(set(positions)) != len(positions):
        raise Refused
    leaves, structure = _tensors(selected)
    others = [None if i in positions else args[i] for i in range(len(args))]
    other_leaves, other_structure = pytree.tree_flatten((others, kwargs))
    count = len(leaves)

    def body(all_leaves):
        inner_args, inner_kwargs = pytree.tree_unflatten(all_leaves[count:], other_structure)
        given = pytree.tree_unflatten(all_leaves[:count], structure)
        if isinstance(argnums, int):
            given = (given,)
        for i in range(len(positions)):
            inner_args[positions[i]] = given[i]
        output = func(*inner_args, **inner_kwargs)
        if not has_aux:
            return output, None
        value, aux = output
        return value, aux

    roles = [0] * count + [None] * len(other_leaves)
    return leaves + other_leaves, roles, body, structure


def _call_grad(transform, func, options, args, kwargs):
    argnums, has_aux = options
    leaves, roles, body, structure = _split(func, argnums, has_aux, args, kwargs)
    gradients, (value, aux) = transform_call("grad", (), body, leaves, roles, [], None)
    result = pytree.tree_unflatten(gradients, structure)
    if transform == "grad":
        return (result, aux) if has_aux else result
    return (result, (value, aux)) if has_aux else (result, value)


def _call_jacobian(transform, func, options, args, kwargs):
    argnums, has_aux, chunk_size = options[:3]
    leaves, roles, body, structure = _split(func, argnums, has_aux, args, kwargs)
    settings = (("chunk_size", chunk_size),)
    if len(options) > 3:
        settings += (("randomness", options[3]),)
    blocks, (numbers, aux) = transform_call(transform, settings, body, leaves, roles, [], None)
    columns = len([role for role in roles if role is not None])

    def put_together(blocks):  # of one output
        return pytree.tree_unflatten(blocks, structure)

    def of_output(number):
        if transform != "hessian":
            return put_together(blocks[number * columns : (number + 1) * columns])
        start = number * columns * columns
        rows = [
            put_together(blocks[start + i * columns : start + (i + 1) * columns])
            for i in range(columns)
        ]
        return put_together(rows)

    result = pytree.tree_map(of_output, numbers)
    return (result, aux) if has_aux else result


def _reduced(transform, loss, option, trained, batch, targets):
    """The structure of what is trained, and a reduction of the samples' gradients."""
    if option is not None and not isinstance(option, (int, float)):
        raise Refused
    weights, structure = _tensors(trained)
    samples, structure_of_samples = _tensors((batch, targets))
    count = len(weights)

    def body(leaves):
        sample, target = pytree.tree_unflatten(leaves[count:], structure_of_samples)
        return loss(pytree.tree_unflatten(leaves[:count], structure), sample, target), None

    settings = (("option", option),)
    roles = [0] * count + [SAMPLES] * len(samples)
    return structure, transform_call(transform, settings, body, weights + samples, roles, [], None)


def _of_leaves(func, structure, has_aux):
    """The function of its arguments' leaves, which returns (output, aux)."""

    def body(leaves):
        output = func(*pytree.tree_unflatten(leaves, structure))
        if not has_aux:
            return output, None
        value, aux = output
        return value, aux

    return body


def jvp(func, primals, tangents, *, strict=False, has_aux=False):
    primals, tangents = tuple(primals), tuple(tangents)
    leaves, structure = _tensors(primals)
    tangent_leaves, tangent_structure = _tensors(tangents)
    if structure != tangent_structure:
        raise Refused

    settings = (("strict", strict),)
    roles = [0] * len(leaves)
    body = _of_leaves(func, structure, has_aux)
    pushed, (output, aux) = transform_call(
        "jvp", settings, body, leaves, roles, tangent_leaves, None
    )
    tangent = pytree.tree_unflatten(pushed, pytree.tree_flatten(output)[1])
    return (output, tangent, aux) if has_aux else (output, tangent)


def vjp(func, *primals, has_aux=False):
    leaves, structure = _tensors(primals)

    roles = [0] * len(leaves)
    body = _of_leaves(func, structure, has_aux)
    (pull,), (output, aux) = transform_call("vjp", (), body, leaves, roles, [], None)
    output_structure = pytree.tree_flatten(output)[1]

    def pullback(*cotangents, retain_graph=True, create_graph=None):
        given = cotangents[0] if len(cotangents) == 1 else cotangents
        seeds, given_structure = _tensors(given)
        if given_structure != output_structure:
            raise Refused
        return pytree.tree_unflatten(list(pull(*seeds)), structure)

    return (output, pullback, aux) if has_aux else (output, pullback)


def linearize(func, *primals):
    leaves, structure = _tensors(primals)

    def body(leaves):
        return func(*pytree.tree_unflatten(leaves, structure)), None

    roles = [0] * len(leaves)
    (push,), (output, _) = transform_call("linearize", (), body, leaves, roles, [], None)
    output_structure = pytree.tree_flatten(output)[1]

    def push_forward(*tangents):
        given, given_structure = _tensors(tangents)
        if given_structure != structure:
            raise Refused
        return pytree.tree_unflatten(list(push(*given)), output_structure)

    return output, push_forward


def _tensors(tree):
    leaves, structure = pytree.tree_flatten(tree)
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            raise Refused
    return leaves, structure
