"""What can't be done to a batched tensor gets an error that says why, and what to do instead."""

import pytest
import torch
import torch.nn.functional as F

from functorch_ext import grad, vjp, vmap
from test.oracle import rand
from test.state import assert_failure, failure


def over_samples(function, *args):
    return lambda: vmap(function)(*args)


def write(target, value):
    target.add_(value)
    return value


def test_writes_into_what_all_samples_share():
    assert_failure(
        lambda: vmap(write, (None, 0))(torch.zeros(2), rand(3, 2)),
        RuntimeError,
        """functorch_ext.vmap: aten::add_.Tensor would write in-place a value that differs between samples into a tensor from outside, which all samples share. So are those computed from such tensors alone, made by torch.Tensor(...) or on memory of NumPy's. Use the out-of-place form of the operator, or write into memory made inside: with x.new_zeros(...), torch.zeros_like(x), or shared.clone() (if shared requires grad: torch.zeros_like(shared) + shared).""",
    )
    closed_over = torch.zeros(2, dtype=torch.float64)
    assert_failure(
        over_samples(lambda x: torch.sin(x, out=closed_over), rand(3, 2)),
        RuntimeError,
        """functorch_ext.vmap: aten::sin.out would write in-place a value that differs between samples into a tensor from outside, which all samples share. So are those computed from such tensors alone, made by torch.Tensor(...) or on memory of NumPy's. Use the out-of-place form of the operator, or write into memory made inside: with x.new_zeros(...), torch.zeros_like(x), or shared.clone() (if shared requires grad: torch.zeros_like(shared) + shared).""",
    )
    assert closed_over.eq(0).all()


def branch(x):
    return x if x > 0 else -x


def test_control_flow_on_data():
    assert_failure(
        over_samples(branch, rand(3)),
        RuntimeError,
        """functorch_ext.vmap: a number is read out of a batched tensor, by .item() on a Tensor or in data-dependent control flow (bool(), int(), an if statement on a tensor), but the samples differ. Use torch.where, torch.cond, torch.while_loop or another tensor operation instead.""",
    )
    assert_failure(
        over_samples(lambda x: x * x.sum().item(), rand(3)),
        RuntimeError,
        """functorch_ext.vmap: a number is read out of a batched tensor, by .item() on a Tensor or in data-dependent control flow (bool(), int(), an if statement on a tensor), but the samples differ. Use torch.where, torch.cond, torch.while_loop or another tensor operation instead.""",
    )


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.new_zeros(int(x)),
        lambda x: x * float(x),
        lambda x: x if torch.equal(x, x.clamp(max=0.5)) else -x,
        lambda x: x if torch.allclose(x, x.clamp(max=0.5)) else -x,
        lambda x: x if (x > 0.5).is_nonzero() else -x,
    ],
)
def test_other_ways_to_read_data(function):
    message = failure(over_samples(function, torch.tensor([0.2, 0.6, 1.7])), RuntimeError)
    assert "a number is read out of a batched tensor" in message


@pytest.mark.parametrize(
    "function", [lambda x: x * x.tolist()[0], lambda x: torch.tensor(x.numpy())]
)
def test_reading_memory(function):
    assert_failure(
        over_samples(function, rand(3, 2)),
        RuntimeError,
        """functorch_ext.vmap: the function reads the memory of a batched tensor, as x.numpy(), x.tolist() and x.data_ptr() do, but the samples may differ and have no memory of their own. Use tensor operations instead.""",
    )


def test_shapes_that_depend_on_data():
    assert_failure(
        over_samples(torch.nonzero, rand(3, 2)),
        RuntimeError,
        """functorch_ext.vmap: the shape of the result of aten::nonzero depends on the data, so it may differ between samples. Use an operation whose result has a static shape (torch.where instead of a mask, for example).""",
    )
    assert_failure(
        over_samples(lambda x: x.masked_select(x > 0), torch.eye(3).cumsum(0)),
        RuntimeError,
        """functorch_ext.vmap: the shape of the result of aten::masked_select depends on the data, so it may differ between samples. Use an operation whose result has a static shape (torch.where instead of a mask, for example).""",
    )


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: x[x > 0], "indexing with a boolean mask that differs between samples"),
        (torch.unique, "the shape of the result of aten::_unique2 depends on the data"),
        (torch.argwhere, "the shape of the result of aten::nonzero depends on the data"),
    ],
)
def test_other_shapes_that_depend_on_data(function, words):
    assert words in failure(over_samples(function, torch.eye(3).cumsum(0)), RuntimeError)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: torch.mm(torch.eye(3), x), "mat2 must be a matrix"),
        (lambda x: torch.mm(x, torch.eye(3)), "self must be a matrix"),
        (lambda x: torch.mv(torch.eye(3), x[None]), "vector + matrix @ vector expected"),
        (lambda x: torch.bmm(torch.ones(1, 3, 3), x[None]), "batch2 must be a 3D tensor"),
        (lambda x: torch.dot(torch.eye(3), x), "1D tensors expected"),
    ],
)
def test_ranks_that_products_would_take_with_the_samples(function, words):
    assert words in failure(over_samples(function, rand(3, 3)), RuntimeError)


def test_randomness():
    assert_failure(
        over_samples(F.dropout, rand(3)),
        RuntimeError,
        """functorch_ext.vmap: called random operation while in randomness error mode: aten::dropout under randomness='error'. Pass randomness='different' to vmap to draw anew for each sample, or randomness='same' to draw once for all samples.""",
    )
    assert_failure(
        over_samples(lambda x: x + torch.randn(2), rand(3)),
        RuntimeError,
        """functorch_ext.vmap: called random operation while in randomness error mode: aten::randn under randomness='error'. Pass randomness='different' to vmap to draw anew for each sample, or randomness='same' to draw once for all samples.""",
    )


def test_an_inner_error_is_that_of_plain_pytorch():
    with pytest.raises(RuntimeError) as plain:
        torch.mm(rand(2, 3), rand(2, 3))
    message = failure(over_samples(torch.mm, rand(5, 2, 3), rand(5, 2, 3)), RuntimeError)
    assert "mat1 and mat2 shapes cannot be multiplied" in str(plain.value)
    assert "INTERNAL ASSERT" not in message


@pytest.mark.parametrize("transform", [vmap, lambda f: vmap(vmap(f)), lambda f: vmap(grad(f))])
def test_an_inner_error_that_prints_a_tensor(transform):
    """Of a sample: a batched tensor can't be printed by PyTorch's own code."""
    message = failure(
        lambda: transform(lambda x: torch.meshgrid(x, x, indexing="ij"))(rand(2, 2, 1, 2)),
        RuntimeError,
    )
    assert message.startswith("torch.meshgrid: Expected 0D or 1D tensor in the tensor list but got")
    assert "DoubleTensor" in message


def outlive(x):
    """What vmap handed to its function, once vmap is over."""
    kept = []
    vmap(lambda x: (kept.append(x), x)[1])(x)
    return kept[0]


def test_a_batched_tensor_that_outlived_its_vmap():
    x = rand(3, 2)
    assert_failure(
        lambda: outlive(x) + 1,
        RuntimeError,
        """functorch_ext.vmap: a batched tensor outlived its vmap: it was used after the vmap that made it had returned. Return the tensor from the mapped function instead of keeping it (in a list, an attribute or a closure).""",
    )
    assert_failure(
        lambda: vmap(lambda y: outlive(y) + 1)(x),
        RuntimeError,
        """functorch_ext.vmap: a batched tensor outlived its vmap: it was used after the vmap that made it had returned. Return the tensor from the mapped function instead of keeping it (in a list, an attribute or a closure).""",
    )
    assert_failure(
        lambda: grad(lambda y: (outlive(x) * y).sum())(rand(2)),
        RuntimeError,
        """functorch_ext.vmap: a batched tensor outlived its vmap: it was used after the vmap that made it had returned. Return the tensor from the mapped function instead of keeping it (in a list, an attribute or a closure).""",
    )


def test_a_pullback_that_outlived_its_vmap():
    pullbacks = []
    vmap(lambda x: (pullbacks.append(vjp(torch.sin, x)[1]), x)[1])(rand(3, 2))
    assert_failure(
        lambda: pullbacks.pop()(rand(2)),
        RuntimeError,
        """functorch_ext.vmap: a batched tensor outlived its vmap: it was used after the vmap that made it had returned. Return the tensor from the mapped function instead of keeping it (in a list, an attribute or a closure).""",
    )
