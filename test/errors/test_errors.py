"""Bad arguments and outputs of vmap get an error that says what is wrong, and leave no state."""

import torch

from functorch_ext import vmap
from test.oracle import rand
from test.state import assert_failure, failure


def identity(x):
    return x


def call(function, *args, **options):
    """vmap(function, **options)(*args), later."""
    return lambda: vmap(function, **options)(*args)


def test_batch_sizes_differ():
    assert_failure(
        call(torch.add, rand(3, 2), rand(4, 2)),
        ValueError,
        """functorch_ext.vmap: Expected all tensors to have the same size in the mapped dimension, but args[0] of shape (3, 2) has 3 along dimension 0 and args[1] of shape (4, 2) has 4 along dimension 0. Check in_dims.""",
    )
    assert_failure(
        call(torch.add, rand(3, 2), rand(3, 2), in_dims=(0, 1)),
        ValueError,
        """functorch_ext.vmap: Expected all tensors to have the same size in the mapped dimension, but args[0] of shape (3, 2) has 3 along dimension 0 and args[1] of shape (3, 2) has 2 along dimension 1. Check in_dims.""",
    )
    tree = {"first": rand(3), "second": [rand(4)]}
    assert_failure(
        call(lambda tree, x: x, tree, rand(3)),
        ValueError,
        """functorch_ext.vmap: Expected all tensors to have the same size in the mapped dimension, but args[0]['first'] of shape (3,) has 3 along dimension 0 and args[0]['second'][0] of shape (4,) has 4 along dimension 0. Check in_dims.""",
    )
    message = failure(
        lambda: vmap(lambda x, y: x, kwarg_dims={"y": 0})(rand(3), y=rand(4)), ValueError
    )
    assert "args[0] of shape (3,) has 3" in message and "'y'] of shape (4,) has 4" in message


def test_axis_size():
    assert_failure(
        call(identity, rand(3), axis_size=4),
        ValueError,
        """functorch_ext.vmap: Expected all tensors to have the same size in the mapped dimension, but axis_size is 4 and args[0] of shape (3,) has 3 along dimension 0. Check in_dims.""",
    )
    assert_failure(
        call(identity, rand(3), in_dims=None, axis_size=-1),
        ValueError,
        """functorch_ext.vmap: axis_size should be None or a number of samples, but got -1.""",
    )


def test_in_dims_out_of_range():
    assert_failure(
        call(identity, rand(3, 2), in_dims=2),
        ValueError,
        """functorch_ext.vmap: Got in_dim=2 for some input, but that input is a Tensor of dimensionality 2: args[0] of shape (3, 2). Expected an int in [-2, 2).""",
    )
    assert_failure(
        call(identity, rand(3, 2), in_dims=-3),
        ValueError,
        """functorch_ext.vmap: Got in_dim=-3 for some input, but that input is a Tensor of dimensionality 2: args[0] of shape (3, 2). Expected an int in [-2, 2).""",
    )
    assert_failure(
        call(identity, rand()),
        ValueError,
        """functorch_ext.vmap: Got in_dim=0 for some input, but that input is a Tensor of dimensionality 0: args[0] of shape (). It can't be mapped over: use the in_dim None for it.""",
    )
    message = failure(
        lambda: vmap(lambda x, y: x, kwarg_dims={"y": 3})(rand(3), y=rand(3)), ValueError
    )
    assert "Got in_dim=3 for some input" in message and "'y'] of shape (3,)" in message


def test_in_dims_of_another_structure():
    three = rand(3), rand(3), rand(3)
    assert_failure(
        call(lambda x, y, z: x, *three, in_dims=(0, 0)),
        ValueError,
        """functorch_ext.vmap: in_dims is not compatible with the structure of `inputs`: it has 2 entries, but the function was called with 3 positional arguments: in_dims=(0, 0).""",
    )
    assert_failure(
        call(torch.add, *three[:2], in_dims=(0, 0, 0)),
        ValueError,
        """functorch_ext.vmap: in_dims is not compatible with the structure of `inputs`: it has 3 entries, but the function was called with 2 positional arguments: in_dims=(0, 0, 0).""",
    )
    assert_failure(
        call(lambda tree: tree["a"], {"a": rand(3)}, in_dims=({"b": 0},)),
        ValueError,
        """functorch_ext.vmap: in_dims is not compatible with the structure of `inputs`, nor with a part of it from the root: in_dims=({'b': 0},), inputs ({'a': *},).""",
    )
    assert_failure(
        call(identity, rand(3), in_dims="0"),
        ValueError,
        """functorch_ext.vmap: expected `in_dims` to be int or a (potentially nested) tuple with one entry per argument, but got '0' of type str.""",
    )
    assert_failure(
        call(identity, rand(3), in_dims=(0.0,)),
        ValueError,
        """functorch_ext.vmap: in_dim must be either an integer dimension or None, but got 0.0 of type float for args[0].""",
    )
    assert_failure(
        call(identity, rand(3), kwarg_dims={"y": 0}),
        ValueError,
        """functorch_ext.vmap: kwarg_dims names ['y'], but the call got the keyword arguments [].""",
    )


def test_nothing_to_map_over():
    assert_failure(
        call(identity, rand(3), in_dims=None),
        ValueError,
        """functorch_ext.vmap: expected at least one Tensor to vmap over, so the number of samples is unknown. Map at least one tensor (in_dims), or give axis_size.""",
    )
    assert_failure(
        call(lambda: rand(3)),
        ValueError,
        """functorch_ext.vmap: got no inputs, so the number of samples is unknown. Map at least one tensor (in_dims), or give axis_size.""",
    )
    assert_failure(
        call(torch.add, rand(3), 2.0, in_dims=(0, 0)),
        ValueError,
        """functorch_ext.vmap: Got in_dim=0 for an input but the input is of type <class 'float'>: args[1]. Only tensors can be mapped over: use the in_dim None for it.""",
    )


def test_out_dims_out_of_range():
    assert_failure(
        call(identity, rand(3, 2), out_dims=2),
        IndexError,
        """functorch_ext.vmap: Dimension out of range: got out_dim 2 for output of shape (2,) per sample, expected one in [-2, 1].""",
    )
    assert_failure(
        call(identity, rand(3, 2), out_dims=-3),
        IndexError,
        """functorch_ext.vmap: Dimension out of range: got out_dim -3 for output of shape (2,) per sample, expected one in [-2, 1].""",
    )


def test_out_dims_of_another_structure():
    assert_failure(
        call(identity, rand(3), out_dims=(0, 0)),
        ValueError,
        """functorch_ext.vmap: out_dims is not compatible with the structure of `outputs`, nor with a part of it from the root: out_dims=(0, 0), outputs * (no container).""",
    )
    assert_failure(
        call(lambda x: (x, x, x), rand(3), out_dims=(0, 0)),
        ValueError,
        """functorch_ext.vmap: out_dims is not compatible with the structure of `outputs`, nor with a part of it from the root: out_dims=(0, 0), outputs (*, *, *).""",
    )
    assert_failure(
        call(identity, rand(3), out_dims="0"),
        ValueError,
        """functorch_ext.vmap: `out_dims` must be an int, None or a python collection of ints, but got '0' of type str for output.""",
    )


def test_outputs():
    assert_failure(
        call(identity, rand(3), out_dims=None),
        ValueError,
        """functorch_ext.vmap: the function can not return a BatchedTensor when out_dim is None: output depends on a mapped input. Give it an int as its out_dim.""",
    )
    assert_failure(
        call(lambda x: 3.0, rand(3)),
        ValueError,
        """functorch_ext.vmap: the function must only return Tensors, got type <class 'float'>: a float, which can't be stacked along out_dim 0. Give that output the out_dim None.""",
    )
    assert_failure(
        call(lambda x: None, rand(3)),
        ValueError,
        """functorch_ext.vmap: the function must only return Tensors, got type <class 'NoneType'>: None, which can't be stacked along out_dim 0. Give that output the out_dim None.""",
    )


def test_options():
    assert_failure(
        call(identity, rand(3), chunk_size=0),
        ValueError,
        """functorch_ext.vmap: chunk_size should be None or greater than 0, but got 0. Give a whole number, or text: 'auto' or an amount of memory, such as '512 MiB'.""",
    )
    assert_failure(
        call(identity, rand(3), randomness="random"),
        RuntimeError,
        """functorch_ext.vmap: Only allowed values for randomness are 'error', 'different', or 'same', but got 'random'.""",
    )
