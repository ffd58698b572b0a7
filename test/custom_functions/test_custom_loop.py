"""Custom autograd functions that read memory: a loop over the samples, with its warning."""

import numpy
import pytest
import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from functorch_ext import FallbackWarning, grad, jacrev, jvp, vmap
from test.custom_functions.functions import NumpyBackward
from test.oracle import assert_close, loop
from test.releases import since

X = torch.tensor([[0.3, -1.0, 2.0], [1.5, 0.2, -0.7]], dtype=torch.float64)
pytestmark = pytest.mark.filterwarnings("ignore::functorch_ext.FallbackWarning")


def array(x):
    return x.detach().numpy()


class Sine(Function):
    """Leaves arrays on ctx, which differ between samples."""

    @staticmethod
    def forward(ctx, x, factor):
        ctx.cosine, ctx.factor, ctx.shape = numpy.cos(array(x)), factor, x.shape
        return torch.from_numpy(numpy.sin(array(x)) * factor)

    @staticmethod
    @once_differentiable
    def backward(ctx, cotangent):
        assert ctx.needs_input_grad == (True, False)
        assert ctx.shape == cotangent.shape
        return torch.from_numpy(array(cotangent) * ctx.cosine * ctx.factor), None


class Saves(Function):
    """Saves what is neither an argument nor an output, and has several outputs."""

    @staticmethod
    def forward(ctx, x, y):
        product = torch.from_numpy(array(x) * array(y))
        cosine = torch.cos(product)
        ctx.save_for_backward(x, y, cosine, product)
        sign = torch.from_numpy(numpy.sign(array(product)))
        ctx.mark_non_differentiable(sign)
        return product.sin(), sign, y + 0

    @staticmethod
    def backward(ctx, by_product, by_sign, by_y):
        x, y, cosine, product = ctx.saved_tensors
        return by_product * y * product.cos(), by_product * x * (x * y).cos() + by_y


class WithSetup(Function):
    @staticmethod
    def forward(x):
        return torch.from_numpy(numpy.exp(array(x)))

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx, cotangent):
        return cotangent * ctx.saved_tensors[0]

    @staticmethod
    def jvp(ctx, tangent):
        return torch.from_numpy(array(tangent) * array(ctx.saved_tensors[0]))


class InPlace(Function):
    @staticmethod
    def forward(ctx, x):
        array(x)[...] = numpy.sin(array(x))
        ctx.mark_dirty(x)
        return x

    @staticmethod
    def backward(ctx, cotangent):
        return 2 * cotangent


class PlainBackward(NumpyBackward):
    @staticmethod
    def backward(ctx, cotangent):
        return torch.from_numpy(array(cotangent) * numpy.cos(array(ctx.saved_tensors[0])))


FUNCTIONS = {
    "attributes": lambda x: Sine.apply(x, 3) * x,
    "saved tensors": lambda x: sum(each * x for each in Saves.apply(x, x.cos())),
    "one argument shared": lambda x: Saves.apply(x, torch.ones(3, dtype=x.dtype))[0],
    "setup_context": lambda x: WithSetup.apply(x) * x,
    "in place": lambda x: InPlace.apply(x * 2) * x,
    "backward": NumpyBackward.apply,
    "a backward without once_differentiable": PlainBackward.apply,
    "one after another": lambda x: Sine.apply(NumpyBackward.apply(x), 2),
}


@pytest.mark.parametrize("func", FUNCTIONS.values(), ids=FUNCTIONS)
def test_values_and_gradients(func):
    total = lambda x: func(x).sin().sum()
    expected = torch.stack([grad(total)(x) for x in X])
    assert_close(vmap(func)(X), loop(func, 0, 0)(X))
    assert_close(vmap(grad(total))(X), expected)
    assert_close(grad(lambda x: vmap(total)(x).sum())(X), expected)
    assert_close(vmap(vmap(func))(X.reshape(2, 3, 1)), func_of_elements(func))
    rows = [[torch.autograd.functional.jacobian(func, x)] for x in X]
    assert_close(vmap(jacrev(func))(X), torch.stack([row for (row,) in rows]))


def func_of_elements(func):
    if func is FUNCTIONS["one argument shared"]:
        return loop(loop(func, 0, 0), 0, 0)(X.reshape(2, 3, 1))
    return torch.stack([torch.stack([func(x.reshape(1)) for x in row]) for row in X])


def test_gradient_of_vmap_of_gradient():
    total = lambda x: FUNCTIONS["saved tensors"](x).sin().sum()
    outer = lambda f: lambda x: f(grad(total))(x).sin().sum()
    assert_close(grad(outer(vmap))(X), torch.stack([grad(outer(lambda f: f))(x) for x in X]))


def test_forward_mode():
    func = FUNCTIONS["setup_context"]
    expected = torch.stack([jvp(func, (x,), (x.cos(),))[1] for x in X])
    assert_close(vmap(lambda x: jvp(func, (x,), (x.cos(),))[1])(X), expected)
    assert_close(jvp(vmap(func), (X,), (X.cos(),))[1], expected)


def test_warns():
    with pytest.warns(FallbackWarning, match="the forward of Sine reads the memory"):
        vmap(FUNCTIONS["attributes"])(X)
    with pytest.warns(FallbackWarning, match="the backward of NumpyBackward reads the memory"):
        vmap(grad(lambda x: NumpyBackward.apply(x).sum()))(X)


def test_a_loop_is_differentiated_once():
    twice = grad(lambda x: grad(lambda x: PlainBackward.apply(x).sum())(x).sum())
    with pytest.raises(RuntimeError, match="backward of PlainBackward ran sample by sample"):
        vmap(twice)(X)
    with pytest.raises(RuntimeError, match="backward of NumpyBackward ran sample by sample"):
        vmap(grad(lambda x: grad(lambda x: NumpyBackward.apply(x).sum())(x).sum()))(X)


def test_in_place_on_what_is_shared():
    shared = X[0].clone()
    with pytest.raises(RuntimeError, match="write in place to a tensor that all samples share"):
        vmap(lambda x: InPlace2.apply(shared, x))(X)


class InPlace2(Function):
    @staticmethod
    def forward(ctx, x, y):
        array(x)[...] += array(y)
        ctx.mark_dirty(x)
        return x


def test_other_errors_pass():
    class Fails(Function):
        @staticmethod
        def forward(ctx, x):
            raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        vmap(Fails.apply)(X)
    with pytest.raises(RuntimeError, match="reads the memory of a batched tensor"):
        vmap(lambda x: torch.from_numpy(x.numpy()))(X)


def test_in_two_vmaps():
    xs = X.reshape(2, 3, 1)
    total = lambda func: lambda x: func(x).sin().sum()
    for func in (FUNCTIONS["saved tensors"], FUNCTIONS["one after another"]):
        if func is FUNCTIONS["one after another"]:
            with pytest.raises(RuntimeError, match="inside two vmaps, .* Use save_for_backward"):
                vmap(vmap(grad(total(func))))(xs)
            continue
        expected = torch.stack([torch.stack([grad(total(func))(x) for x in row]) for row in xs])
        assert_close(vmap(vmap(grad(total(func))))(xs), expected)
        assert_close(grad(lambda x: vmap(vmap(total(func)))(x).sum())(xs), expected)


def test_no_samples():
    with pytest.raises(RuntimeError, match="reads the memory"):
        vmap(WithSetup.apply)(X[:0])


class Boxed(Function):
    """Gets its cotangents in a list, which it empties."""

    boxed_grads_call = True

    @staticmethod
    def forward(ctx, x, y):
        ctx.save_for_backward(x, y)
        return x * y, x + y

    @staticmethod
    def backward(ctx, cotangents):
        x, y = ctx.saved_tensors
        by_sum, by_product = cotangents.pop(), cotangents.pop()
        assert not cotangents
        by_x = torch.from_numpy(array(by_product) * array(y) + array(by_sum))
        return by_x, by_product * x + by_sum


@since((2, 13), "a backward gets its cotangents one by one")
def test_cotangents_in_a_list():
    def func(x):
        product, total = Boxed.apply(x, x.exp())
        return (product * total.sin()).sum()

    def expected(x):
        y = x.exp()
        return (x * y * (x + y).sin()).sum()

    assert_close(vmap(grad(func))(X), vmap(grad(expected))(X))
    assert_close(grad(lambda x: vmap(func)(x).sum())(X), vmap(grad(expected))(X))
    assert_close(jacrev(lambda x: Boxed.apply(x, x)[0])(X[0]), jacrev(lambda x: x * x)(X[0]))
    assert_close(grad(func)(X[0]), grad(expected)(X[0]))
