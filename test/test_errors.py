"""Bad input gets an error that says what is wrong, and no state is left behind."""

import re

import pytest
import torch
import torch.nn.functional as F

from functorch_ext import (
    functionalize,
    grad,
    grad_and_value,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    linearize,
    vjp,
    vmap,
)
from test.oracle import rand
from test.state import failure

INTEGERS = torch.arange(3)


def identity(x):
    return x


def write(target, value):
    target.add_(value)
    return value


def branch(x):
    return x if x > 0 else -x


def call(transform, function, *args, **options):
    return lambda: transform(function, **options)(*args)


CASES = {
    # name: (what to call, the type of the error, words that its message has to have, in order)
    # batch sizes
    "sizes": (
        call(vmap, torch.add, rand(3, 2), rand(4, 2)),
        ValueError,
        ["vmap", "3", "4"],
    ),
    "sizes in a tree": (
        call(vmap, lambda tree, z: z, {"first": rand(3), "second": [rand(4)]}, rand(3)),
        ValueError,
        ["first", "3", "second", "4"],
    ),
    "sizes of two dims": (
        call(vmap, torch.add, rand(3, 2), rand(3, 2), in_dims=(0, 1)),
        ValueError,
        ["3", "2"],
    ),
    "size is not axis_size": (
        call(vmap, identity, rand(3), axis_size=4),
        ValueError,
        ["axis_size", "4", "3"],
    ),
    "axis_size is not a size": (
        call(vmap, identity, rand(3), in_dims=None, axis_size=-1),
        ValueError,
        ["axis_size", "-1"],
    ),
    # in_dims
    "in_dims too large": (
        call(vmap, identity, rand(3, 2), in_dims=2),
        ValueError,
        ["in_dim", "2", "-2"],
    ),
    "in_dims too small": (
        call(vmap, identity, rand(3, 2), in_dims=-3),
        ValueError,
        ["in_dim", "-3"],
    ),
    "a scalar to map over": (call(vmap, identity, rand()), ValueError, ["in_dim", "0"]),
    "in_dims too short": (
        call(vmap, torch.add, rand(3), rand(3), in_dims=(0,)),
        ValueError,
        ["in_dims", "structure"],
    ),
    "in_dims too long": (
        call(vmap, identity, rand(3), in_dims=(0, 0)),
        ValueError,
        ["in_dims", "structure"],
    ),
    "in_dims of other keys": (
        call(vmap, lambda tree: tree["a"], {"a": rand(3)}, in_dims=({"b": 0},)),
        ValueError,
        ["in_dims", "structure"],
    ),
    "in_dims of the wrong type": (
        call(vmap, identity, rand(3), in_dims="0"),
        ValueError,
        ["in_dims", "int", "tuple", "str"],
    ),
    "in_dims with a float": (
        call(vmap, identity, rand(3), in_dims=(0.0,)),
        ValueError,
        ["in_dims", "float"],
    ),
    "in_dims of a number": (
        call(vmap, torch.add, rand(3), 2.0, in_dims=(0, 0)),
        ValueError,
        ["in_dim", "0", "float"],
    ),
    "nothing to map over": (call(vmap, identity, rand(3), in_dims=None), ValueError, ["in_dims"]),
    "no arguments": (call(vmap, lambda: rand(3)), ValueError, ["no input|no argument|axis_size"]),
    "kwarg_dims of an unknown name": (
        call(vmap, identity, rand(3), kwarg_dims={"y": 0}),
        ValueError,
        ["kwarg_dims", "y"],
    ),
    "kwarg_dims out of range": (
        lambda: vmap(lambda x, y: x, kwarg_dims={"y": 3})(rand(3), y=rand(3)),
        ValueError,
        ["kwarg_dims|in_dim", "3"],
    ),
    # out_dims and outputs
    "out_dims too large": (
        call(vmap, identity, rand(3, 2), out_dims=2),
        (ValueError, IndexError),
        ["out_dim|Dimension", "2"],
    ),
    "out_dims too small": (
        call(vmap, identity, rand(3, 2), out_dims=-3),
        (ValueError, IndexError),
        ["out_dim|Dimension", "-3"],
    ),
    "out_dims too long": (
        call(vmap, identity, rand(3), out_dims=(0, 0)),
        ValueError,
        ["out_dims", "structure"],
    ),
    "out_dims too short": (
        call(vmap, lambda x: (x, x, x), rand(3), out_dims=(0, 0)),
        ValueError,
        ["out_dims", "structure"],
    ),
    "out_dims of the wrong type": (
        call(vmap, identity, rand(3), out_dims="0"),
        ValueError,
        ["out_dims", "str"],
    ),
    "out_dims None of a mapped output": (
        call(vmap, identity, rand(3), out_dims=None),
        ValueError,
        ["out_dim", "None"],
    ),
    "an output that is no tensor": (
        call(vmap, lambda x: 3, rand(3)),
        ValueError,
        ["int", "out_dims|[Tt]ensor"],
    ),
    "None as the output": (call(vmap, lambda x: None, rand(3)), ValueError, ["NoneType"]),
    "chunk_size": (call(vmap, identity, rand(3), chunk_size=0), ValueError, ["chunk_size", "0"]),
    "randomness": (
        call(vmap, identity, rand(3), randomness="random"),
        RuntimeError,
        ["error", "different", "same", "random"],
    ),
    # what a batched tensor cannot do
    "in-place write into an unbatched tensor": (
        lambda: vmap(write, (None, 0))(torch.zeros(2), rand(3, 2)),
        RuntimeError,
        ["in-place|inplace", "add"],
    ),
    "item": (call(vmap, lambda x: x * x.sum().item(), rand(3)), RuntimeError, ["item"]),
    "bool": (call(vmap, branch, rand(3)), RuntimeError, ["control flow|bool|truth"]),
    "int": (call(vmap, lambda x: x.new_zeros(int(x)), INTEGERS), RuntimeError, ["item|int"]),
    "tolist": (call(vmap, lambda x: x * x.tolist()[0], rand(3, 2)), RuntimeError, ["item|tolist"]),
    "numpy": (call(vmap, lambda x: torch.tensor(x.numpy()), rand(3)), RuntimeError, ["numpy"]),
    "nonzero": (call(vmap, torch.nonzero, rand(3, 2)), RuntimeError, ["nonzero"]),
    "boolean index": (call(vmap, lambda x: x[x > 0], rand(3, 2)), RuntimeError, ["shape|nonzero"]),
    "unique": (call(vmap, torch.unique, rand(3, 2)), RuntimeError, ["unique"]),
    "masked_select": (
        call(vmap, lambda x: x.masked_select(x > 0), rand(3, 2)),
        RuntimeError,
        ["masked_select"],
    ),
    "dropout": (call(vmap, F.dropout, rand(3)), RuntimeError, ["randomness"]),
    "out=": (
        call(vmap, lambda x: torch.sin(x, out=torch.empty(2).double()), rand(3, 2)),
        RuntimeError,
        ["out"],
    ),
    # reverse mode
    "grad of a vector": (call(grad, identity, rand(3)), RuntimeError, ["scalar", r"3"]),
    "grad of no tensor": (call(grad, lambda x: 3.0, rand()), RuntimeError, ["[Tt]ensor", "float"]),
    "grad of a tuple": (call(grad, lambda x: (x, x), rand()), RuntimeError, ["[Tt]ensor", "tuple"]),
    "grad of integers": (
        call(grad, lambda x: x.sum() * 1.0, INTEGERS),
        RuntimeError,
        ["floating|Floating|float", "int64|Long"],
    ),
    "grad of a number": (
        call(grad, lambda x: x * rand(), 2.0),
        (RuntimeError, ValueError),
        ["[Tt]ensor", "float"],
    ),
    "grad argnums": (
        call(grad, torch.dot, rand(3), rand(3), argnums=2),
        RuntimeError,
        ["argnums|argnum", "2"],
    ),
    "grad negative argnums": (
        call(grad, torch.dot, rand(3), rand(3), argnums=-3),
        RuntimeError,
        ["argnums|argnum", "-3|2"],
    ),
    "grad argnums twice": (
        call(grad, torch.dot, rand(3), rand(3), argnums=(0, 0)),
        RuntimeError,
        ["argnums", "unique|twice|repeat"],
    ),
    "grad argnums of the wrong type": (
        call(grad, torch.sum, rand(3), argnums="0"),
        RuntimeError,
        ["argnum", "int"],
    ),
    "grad without arguments": (call(grad, lambda: rand()), RuntimeError, ["argnum|argument"]),
    "grad aux": (
        call(grad_and_value, torch.sum, rand(3), has_aux=True),
        RuntimeError,
        ["aux|has_aux", "tuple"],
    ),
    "vjp aux": (
        lambda: vjp(torch.sin, rand(3), has_aux=True),
        RuntimeError,
        ["aux|has_aux", "tuple"],
    ),
    "vjp of integers": (
        lambda: vjp(lambda x: x * 1.0, INTEGERS),
        RuntimeError,
        ["float|Float", "int64|Long"],
    ),
    "vjp of no tensor": (lambda: vjp(lambda x: 3, rand(3)), RuntimeError, ["[Tt]ensor", "int"]),
    "cotangent structure": (
        lambda: vjp(lambda x: (x, x), rand(3))[1](rand(3)),
        RuntimeError,
        ["cotangent", "structure"],
    ),
    "cotangent shape": (
        lambda: vjp(torch.sin, rand(3))[1](rand(4)),
        RuntimeError,
        [r"4", r"3"],
    ),
    "cotangent dtype": (
        lambda: vjp(torch.sin, rand(3))[1](torch.ones(3, dtype=torch.complex64)),
        RuntimeError,
        ["complex|Complex"],
    ),
    # forward mode
    "tangent structure": (
        lambda: jvp(torch.sin, (rand(3),), ((rand(3), rand(3)),)),
        RuntimeError,
        ["tangents", "structure"],
    ),
    "tangent shape": (
        lambda: jvp(torch.sin, (rand(3),), (rand(4),)),
        RuntimeError,
        ["tangent", "4|size|shape"],
    ),
    "tangent dtype": (
        lambda: jvp(torch.sin, (rand(3),), (torch.ones(3),)),
        RuntimeError,
        ["tangent", "dtype|float"],
    ),
    "tangents are no tuple": (
        lambda: jvp(torch.sin, (rand(3),), rand(3)),
        RuntimeError,
        ["tangents", "tuple"],
    ),
    "primals are no tuple": (
        lambda: jvp(torch.sin, rand(3), (rand(3),)),
        RuntimeError,
        ["primals", "tuple"],
    ),
    "fewer tangents than primals": (
        lambda: jvp(torch.add, (rand(3), rand(3)), (rand(3),)),
        RuntimeError,
        ["primals|tangents", "structure|same"],
    ),
    "jvp of integers": (
        lambda: jvp(lambda x: x * 1.0, (INTEGERS,), (INTEGERS,)),
        (RuntimeError, ValueError),
        ["float|Float", "int64|Long|integer"],
    ),
    "jvp of no tensor": (
        lambda: jvp(lambda x: 3, (rand(3),), (rand(3),)),
        RuntimeError,
        ["[Tt]ensor", "int"],
    ),
    "strict": (
        lambda: jvp(lambda x: torch.ones(2), (rand(3),), (rand(3),), strict=True),
        RuntimeError,
        ["strict", "independent"],
    ),
    "linearize": (
        lambda: linearize(torch.sin, rand(3))[1](rand(4)),
        (RuntimeError, ValueError),
        ["tangent", "4|shape"],
    ),
    # Jacobians
    "jacrev of integers": (
        call(jacrev, lambda x: x * 1.0, INTEGERS),
        RuntimeError,
        ["float|Float", "int64|Long"],
    ),
    "jacfwd of integers": (
        call(jacfwd, lambda x: x * 1.0, INTEGERS),
        (RuntimeError, ValueError),
        ["float|Float", "int64|Long"],
    ),
    "jacrev of no tensor": (call(jacrev, lambda x: 3, rand(3)), RuntimeError, ["[Tt]ensor", "int"]),
    "jacfwd of no tensor": (call(jacfwd, lambda x: 3, rand(3)), RuntimeError, ["[Tt]ensor", "int"]),
    "jacrev argnums": (
        call(jacrev, torch.sin, rand(3), argnums=1),
        RuntimeError,
        ["argnums|argnum", "1"],
    ),
    "jacfwd argnums": (
        call(jacfwd, torch.sin, rand(3), argnums=1),
        RuntimeError,
        ["argnums|argnum", "1"],
    ),
    "hessian argnums": (
        call(hessian, torch.sum, rand(3), argnums=(0, 5)),
        RuntimeError,
        ["argnums|argnum", "5"],
    ),
    "jacrev chunk_size": (
        call(jacrev, torch.sin, rand(3), chunk_size=0),
        ValueError,
        ["chunk_size", "0"],
    ),
    "jacrev aux": (
        call(jacrev, torch.sin, rand(3), has_aux=True),
        RuntimeError,
        ["aux|has_aux", "tuple"],
    ),
    "functionalize": (
        call(functionalize, identity, rand(3), remove="everything"),
        RuntimeError,
        ["remove", "mutations", "mutations_and_views"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_error(name):
    function, error_type, words = CASES[name]
    message = failure(function, error_type)
    missing = [word for word in words if not re.search(word, message)]
    assert not missing, f"{missing} not in: {message}"
    assert "INTERNAL ASSERT" not in message
