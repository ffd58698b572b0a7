"""The oracle: per-sample Python loops over plain torch and plain reverse-mode autograd.

Nothing here uses functorch_ext or torch.func.
"""

import torch
from torch.utils import _pytree as pytree

TOLERANCE = 1e-9
CONTIGUOUS = torch.contiguous_format


def rand(*shape, dtype=torch.float64, requires_grad=False):
    """Fresh normal numbers: no two samples along any dimension are the same."""
    return torch.randn(shape, dtype=dtype, requires_grad=requires_grad)


def assert_close(actual, expected, tolerance=TOLERANCE, message=""):
    """Same tree structure, same types, shapes and dtypes, and the same numbers."""
    actual_leaves, actual_spec = pytree.tree_flatten(actual)
    expected_leaves, expected_spec = pytree.tree_flatten(expected)
    assert actual_spec == expected_spec, f"{message}: {actual_spec} is not {expected_spec}"
    for got, want in zip(actual_leaves, expected_leaves, strict=True):
        if isinstance(want, torch.Tensor):
            torch.testing.assert_close(
                got,
                want,
                rtol=tolerance,
                atol=tolerance,
                equal_nan=True,
                msg=lambda text: f"{message}: {text}",
            )
        else:
            assert type(got) is type(want) and got == want, f"{message}: {got!r} is not {want!r}"


def spread(dims, tree):
    """The flat list of dims for the leaves of `tree`, `dims` being a prefix of its structure."""
    if dims is None or isinstance(dims, int):
        return [dims] * len(pytree.tree_leaves(tree))
    if isinstance(dims, dict):
        pairs = [(dims[key], tree[key]) for key in tree]
    else:
        pairs = list(zip(dims, tree, strict=True))
    return [dim for sub_dims, sub_tree in pairs for dim in spread(sub_dims, sub_tree)]


def loop(function, in_dims=0, out_dims=0):
    """What vmap(function, in_dims, out_dims) has to give, one sample at a time."""

    def looped(*args, **kwargs):
        leaves, spec = pytree.tree_flatten(args)
        dims = spread(in_dims, args)
        mapped = [(leaf, dim) for leaf, dim in zip(leaves, dims, strict=True) if dim is not None]
        samples = []
        for i in range(mapped[0][0].shape[mapped[0][1]]):
            # A sample is a contiguous tensor with memory of its own: as_strided and its like count
            # from the start of the memory, and some kernels of PyTorch are wrong for strided
            # samples (the derivative of batch_norm in evaluation mode ignores the strides of the
            # running statistics).
            sample = [
                leaf if dim is None else leaf.select(dim, i).clone(memory_format=CONTIGUOUS)
                for leaf, dim in zip(leaves, dims, strict=True)
            ]
            samples.append(function(*pytree.tree_unflatten(sample, spec), **kwargs))
        columns = zip(*(pytree.tree_leaves(sample) for sample in samples), strict=True)
        stacked = [
            column[0] if dim is None else torch.stack(column, dim)
            for column, dim in zip(columns, spread(out_dims, samples[0]), strict=True)
        ]
        return pytree.tree_unflatten(stacked, pytree.tree_structure(samples[0]))

    return looped


def private(x):
    """A stand-in for x: differentiating with respect to it ends there, and goes on to x."""
    return x.clone() if x.requires_grad else x.detach().clone().requires_grad_()


def _gradient(output, inputs, cotangent=None):
    """torch.autograd.grad that keeps the graph and gives zeros for inputs that play no role."""
    inputs = list(inputs)
    if not output.requires_grad:
        return [torch.zeros_like(x) for x in inputs]
    found = torch.autograd.grad(
        output, inputs, cotangent, create_graph=True, retain_graph=True, allow_unused=True
    )
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True)]


def grad(function, argnum=0):
    """The gradient of a scalar function of tensors."""

    def gradient(*args):
        args = list(args)
        args[argnum] = private(args[argnum])
        return _gradient(function(*args), [args[argnum]])[0]

    return gradient


def vjp(function, x, cotangent):
    """(function(x), cotangent times the Jacobian)."""
    x = private(x)
    output = function(x)
    return output, _gradient(output, [x], cotangent)[0]


def jvp(function, x, tangent):
    """(function(x), the Jacobian times tangent), by differentiating the pullback (it is linear)."""
    x = private(x)
    output = function(x)
    cotangent = torch.zeros_like(output).requires_grad_()
    pulled_back = _gradient(output, [x], cotangent)[0]
    return output, _gradient(pulled_back, [cotangent], tangent)[0]


def jacobian(function, argnum=0):
    """The Jacobian, one output element at a time: output shape, then input shape."""

    def rows(*args):
        args = list(args)
        args[argnum] = x = private(args[argnum])
        output = function(*args)
        found = [_gradient(element, [x])[0] for element in output.reshape(-1).unbind()]
        stacked = torch.stack(found) if found else x.new_zeros(0)
        return stacked.reshape(output.shape + x.shape)

    return rows


def hessian(function, argnum=0):
    """The Jacobian of the Jacobian."""
    return jacobian(jacobian(function, argnum), argnum)
