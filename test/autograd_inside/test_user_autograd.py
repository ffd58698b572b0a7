"""``torch.autograd`` called by the function, inside ``vmap``: as in a loop over the samples."""

import pytest
import torch

from functorch_ext import FallbackWarning, grad, jacrev, vmap
from test.oracle import assert_close, loop

X = torch.tensor([[0.3, -1.0, 2.0], [1.5, 0.2, -0.7]], dtype=torch.float64)
W = torch.tensor([0.5, 2.0, -1.5], dtype=torch.float64)


def same_as_loop(func, *args, in_dims=0):
    assert_close(vmap(func, in_dims)(*args), loop(func, in_dims, 0)(*args))


def of_leaf(func):
    """The function, of a leaf made inside."""
    return lambda x, *rest: func(x.detach().clone().requires_grad_(), *rest)


def first(x):
    return torch.autograd.grad((x.sin() * x).sum(), x)[0]


def second(x):
    (gradient,) = torch.autograd.grad(x.exp().square().sum(), x, create_graph=True)
    return torch.autograd.grad((gradient * x).sum(), x)[0]


def with_cotangents(x):
    return torch.autograd.grad([x.sin(), x.square()], [x], [x.detach() * 2, x.exp()])[0]


def unused(x):
    other = torch.zeros(2, requires_grad=True)
    found = torch.autograd.grad(x.sum(), [x, other], allow_unused=True)
    zeros = torch.autograd.grad(x.sin().sum(), [other], materialize_grads=True)[0]
    return found[0], torch.tensor(found[1] is None), zeros


def kept(x):
    y = x.sin().sum()
    one = torch.autograd.grad(y, x, retain_graph=True)[0]
    return one + torch.autograd.grad(y, x)[0]


def backward(x):
    (x.square().sum() * 3).backward()
    x.sin().sum().backward()
    return x.grad


def backward_of_inputs(x):
    other = torch.ones(3, dtype=x.dtype, requires_grad=True)
    (x * other).sin().sum().backward(inputs=[other])
    return other.grad, torch.tensor(x.grad is None)


def backward_of_several(x):
    torch.autograd.backward([x.sin(), x.sum()], [x.detach(), None])
    return x.grad


def by_the_attribute(x):
    y = x.detach()
    y.requires_grad = True
    return torch.autograd.grad(y.exp().sum(), y)[0]


def gradient_descent(x):
    w = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    for _ in range(4):
        ((w - x).square().sum() + w.sum().cos()).backward()
        with torch.no_grad():
            w -= 0.1 * w.grad
        w.grad = None
    return w.detach()


def optimizer(x):
    w = torch.ones(3, dtype=torch.float64, requires_grad=True)
    moved = w
    for _ in range(3):
        moved = (
            moved - 0.1 * torch.autograd.grad((moved * x).sin().sum(), moved, create_graph=True)[0]
        )
    return torch.autograd.grad(moved.square().sum(), w)[0]


def basis(x):
    y = x.sin() * x.flip(0)
    directions = torch.eye(3, dtype=torch.float64)
    (rows,) = torch.autograd.grad(y, x, directions, is_grads_batched=True)
    return rows


def jacobian(x):
    return torch.autograd.functional.jacobian(torch.sin, x.detach(), vectorize=True)


def hook(x):
    y = x.sin()
    y.register_hook(lambda cotangent: cotangent * 3)
    return torch.autograd.grad(y.sum(), x)[0]


FUNCTIONS = [
    first, second, with_cotangents, unused, kept, backward, backward_of_inputs,
    backward_of_several, by_the_attribute, gradient_descent, optimizer, basis, jacobian, hook,
]  # fmt: skip


@pytest.mark.parametrize("func", FUNCTIONS, ids=lambda func: func.__name__)
def test_by_a_leaf_made_inside(func):
    same_as_loop(of_leaf(func), X)


@pytest.mark.parametrize("func", FUNCTIONS, ids=lambda func: func.__name__)
def test_in_two_vmaps(func):
    xs = torch.stack([X, X * 0.5])
    assert_close(vmap(vmap(of_leaf(func)))(xs), loop(loop(of_leaf(func), 0, 0), 0, 0)(xs))


@pytest.mark.parametrize("func", [first, backward, kept], ids=lambda func: func.__name__)
def test_is_a_constant_to_the_transform_outside(func):
    total = lambda x: (of_leaf(func)(x) * x).sum()
    expected = loop(of_leaf(func), 0, 0)(X)
    assert_close(vmap(grad(total))(X), expected)
    assert_close(grad(lambda x: vmap(total)(x).sum())(X), expected)


def test_what_flows_into_the_leafs_gradient_is_a_constant_too():
    def by_grad(x):
        w = torch.zeros(3, dtype=x.dtype, requires_grad=True)
        return (torch.autograd.grad((w * x.square()).sum(), w)[0] * x).sum()

    def by_backward(x):
        w = torch.zeros(3, dtype=x.dtype, requires_grad=True)
        (w * x.square()).sum().backward()
        return (w.grad * x).sum()

    for func in (by_grad, by_backward):
        assert_close(grad(lambda x: vmap(func)(x).sum())(X), X.square())
        assert_close(vmap(grad(func))(X), X.square())


def test_create_graph_lets_the_transform_outside_differentiate():
    def func(x):
        w = torch.ones(3, dtype=x.dtype, requires_grad=True)
        (gradient,) = torch.autograd.grad((w * x).sin().sum(), w, create_graph=True)
        return gradient.sum()

    expected = X.cos() - X * X.sin()
    assert_close(grad(lambda x: vmap(func)(x).sum())(X), expected)
    assert_close(vmap(grad(func))(X), expected)


def test_cotangents_mapped_over():
    x = W.clone().requires_grad_()
    y = x.sin() * x.flip(0)
    pull = lambda v: torch.autograd.grad(y, x, v, retain_graph=True)[0]
    directions = torch.eye(3, dtype=torch.float64)
    assert_close(vmap(pull)(directions), loop(pull, 0, 0)(directions))


def test_by_a_tensor_from_outside():
    w = W.clone().requires_grad_()

    def func(x):
        return torch.autograd.grad([(x * w).sin(), w.sum()], w, [x.exp(), None])[0]

    with pytest.warns(FallbackWarning, match="2 backward passes, one per sample"):
        actual = vmap(func)(X)
    assert_close(actual, loop(func, 0, 0)(X))


def test_by_tensors_from_inside_and_outside():
    w = W.clone().requires_grad_()

    def func(x):
        y = x.detach().requires_grad_()
        z = w * 2
        return torch.autograd.grad((y * z).sin().sum(), [y, z])

    with pytest.warns(FallbackWarning, match="tensor from outside"):
        actual = vmap(func)(X)
    assert_close(actual, loop(func, 0, 0)(X))


def test_by_a_tensor_of_the_vmap_around():
    def func(x, ys):
        w = x.detach().requires_grad_()
        return vmap(lambda y: torch.autograd.grad((w * y).sin().sum(), w)[0])(ys)

    def plain(x, ys):
        w = x.detach().requires_grad_()
        return loop(lambda y: torch.autograd.grad((w * y).sin().sum(), w)[0], 0, 0)(ys)

    ys = torch.stack([X, X * 0.5, X + 1], 1)
    with pytest.warns(FallbackWarning, match="tensor from outside"):
        actual = vmap(func)(X, ys)
    assert_close(actual, loop(plain, 0, 0)(X, ys))


@pytest.mark.parametrize("dims", [(0, None), (None, 0), (0, 0)])
def test_by_tensors_from_outside_of_two_vmaps(dims):
    """In either vmap the output, the cotangent, or both may differ between samples."""
    w = W.clone().requires_grad_()

    def func(x, v):
        return torch.autograd.grad([(x * w).sin(), w.exp()], w, [v, v])[0]

    of_plain = loop(loop(func, (0, 0), 0), dims, 0)(*by_dims(dims))
    with pytest.warns(FallbackWarning, match="tensor from outside"):
        assert_close(vmap(vmap(func), dims)(*by_dims(dims)), of_plain)


def by_dims(dims):
    """Arguments for two vmaps: a stack of matrices where the outer one maps, else a matrix."""
    stacks = torch.stack([X, X * 0.5, X + 1]), torch.stack([X.cos(), X, X - 1])
    return [stack if dim == 0 else stack[0] for stack, dim in zip(stacks, dims, strict=True)]


def test_by_tensors_of_every_plane():
    w = W.clone().requires_grad_()

    def func(x, y):
        u = x.detach().requires_grad_()

        def inner(y):
            v = y.detach().requires_grad_()
            return torch.autograd.grad((u * w * v).sin().sum(), [w, u, v])

        return vmap(inner)(y), u

    def plain(x, y):
        u = x.detach().requires_grad_()
        columns = [
            torch.autograd.grad(
                (u * w * (v := each.detach().requires_grad_())).sin().sum(), [w, u, v]
            )
            for each in y
        ]
        return tuple(map(torch.stack, zip(*columns, strict=True))), u

    ys = torch.stack([X, X * 0.5])
    with pytest.warns(FallbackWarning, match="tensor from outside"):
        assert_close(vmap(func)(X, ys), loop(plain, 0, 0)(X, ys))


def test_unused_tensor_from_outside():
    w = W.clone().requires_grad_()

    def func(x, allow_unused=True):
        u = x.detach().requires_grad_()
        return torch.autograd.grad(u.sin().sum(), [u, w], allow_unused=allow_unused)

    with pytest.warns(FallbackWarning, match="tensor from outside"):
        actual = vmap(lambda x: [each for each in func(x) if each is not None])(X)
    assert_close(actual, [X.cos()])
    with pytest.warns(FallbackWarning), pytest.raises(RuntimeError, match="allow_unused=True"):
        vmap(lambda x: func(x, allow_unused=False))(X)


def test_create_graph_by_a_tensor_from_outside():
    w = W.clone().requires_grad_()

    def func(x):
        return torch.autograd.grad((x * w).sin().sum(), w, create_graph=True)[0].sum()

    with pytest.warns(FallbackWarning):
        assert_close(vmap(func)(X), loop(func, 0, 0)(X))
    with pytest.raises(
        RuntimeError, match="can't be differentiated further by tensors of the vmap"
    ):
        vmap(grad(func))(X)


def test_backward_to_a_tensor_from_outside():
    w = W.clone().requires_grad_()
    with pytest.raises(RuntimeError, match="depends on nothing of this vmap that requires grad"):
        vmap(lambda x: (x * w).sum().backward())(X)
    with pytest.raises(RuntimeError, match="All samples share it"):
        vmap(lambda x: (x.requires_grad_() * w).sum().backward(inputs=[w]))(X)
    y = w.sin()
    with pytest.raises(RuntimeError, match="All samples share it"):
        vmap(lambda v: y.backward(v))(X)
    assert w.grad is None


def test_nothing_requires_grad():
    with pytest.raises(RuntimeError, match="Call x.requires_grad_\\(\\) before you use x"):
        vmap(lambda x: torch.autograd.grad(x.sum(), x))(X)
    with pytest.raises(RuntimeError, match="Call x.requires_grad_\\(\\) before you use x"):
        vmap(lambda x: x.sum().backward())(X)


def test_unused():
    def func(x):
        w = torch.ones(3, requires_grad=True)
        return torch.autograd.grad(x.detach().requires_grad_().sum(), w)

    with pytest.raises(RuntimeError, match="allow_unused=True"):
        vmap(func)(X)


def accumulated(x, passes):
    w = torch.ones(3, dtype=torch.float64, requires_grad=True)
    for one in passes:
        one(w, x).sum().backward()
    return w.grad


PASSES = {
    "the same for all, then not": [lambda w, x: w * w, lambda w, x: w * x],
    "samples, then the same": [lambda w, x: w * x, lambda w, x: w * w],
    "both the same": [lambda w, x: w * w, lambda w, x: w.sin()],
    "three": [lambda w, x: w * x, lambda w, x: w * x.exp(), lambda w, x: w.exp() * x],
}


@pytest.mark.parametrize("name", PASSES)
def test_passes_add_up(name):
    same_as_loop(lambda x: accumulated(x, PASSES[name]), X)
    xs = torch.stack([X, X * 0.5])
    func = lambda x: accumulated(x, PASSES[name])
    assert_close(vmap(vmap(func))(xs), loop(loop(func, 0, 0), 0, 0)(xs))


def test_a_pass_that_fails_leaves_the_gradient():
    def func(x):
        w = torch.ones(3, dtype=torch.float64, requires_grad=True)
        (w * x).sum().backward()
        y = w * x
        y.register_hook(lambda cotangent: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            y.sum().backward()
        return w.grad

    assert_close(vmap(func)(X), X)


@pytest.mark.filterwarnings("error::functorch_ext.FallbackWarning")
def test_an_output_that_all_samples_share_takes_one_pass():
    w = W.clone().requires_grad_()

    def func(x):
        output = (w * torch.ones(3, dtype=w.dtype)).sin()
        return torch.autograd.grad([output, output.sum()], w, [x.exp(), None])[0]

    assert_close(vmap(func)(X), loop(func, 0, 0)(X))


def test_a_backward_that_computes_the_forward_again():
    class Again(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.sin()

        @staticmethod
        def backward(ctx, cotangent):
            with torch.enable_grad():
                x = ctx.saved_tensors[0].detach().requires_grad_()
                y = (x * torch.ones(3, dtype=x.dtype)).sin()
            (by_x,) = torch.autograd.grad(y, x, cotangent)
            total = torch.zeros(3, dtype=x.dtype)
            total[:2] = by_x[:2]
            total[2] += by_x[2]
            return total

    assert_close(jacrev(Again.apply)(W), torch.diag(W.cos()))
    assert_close(vmap(jacrev(Again.apply))(X), torch.diag_embed(X.cos()))
    assert_close(vmap(grad(lambda x: Again.apply(x).sum()))(X), X.cos())
