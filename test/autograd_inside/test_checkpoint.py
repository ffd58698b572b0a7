"""``torch.utils.checkpoint`` and hooks of saved tensors under transforms."""

import contextlib

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import dropout
from torch.utils.checkpoint import checkpoint, checkpoint_sequential, set_checkpoint_early_stop

from functorch_ext import grad, hessian, jacfwd, jacrev, jvp, vmap
from test.oracle import assert_close

X = torch.tensor([[0.3, -1.0, 2.0], [1.5, 0.2, -0.7]], dtype=torch.float64)
REENTRANT = pytest.mark.parametrize("reentrant", [False, True])


def body(x):
    return (x.sin() * x).exp().cumsum(-1)


def checkpointed(reentrant=False, calls=None, **options):
    def counted(x):
        if calls is not None:
            calls.append(None)
        return body(x)

    return lambda x: checkpoint(counted, x, use_reentrant=reentrant, **options).cos().sum()


def plain(x):
    return body(x).cos().sum()


TRANSFORMS = {
    "grad": lambda f: grad(f)(X[0]),
    "grad(grad)": lambda f: grad(lambda x: grad(f)(x).sin().sum())(X[0]),
    "jacrev": lambda f: jacrev(lambda x: f(x) * x)(X[0]),
    "jacfwd": lambda f: jacfwd(lambda x: f(x) * x)(X[0]),
    "hessian": lambda f: hessian(f)(X[0]),
    "jvp": lambda f: jvp(f, (X[0],), (X[1],)),
    "vmap(grad)": lambda f: vmap(grad(f))(X),
    "vmap(hessian)": lambda f: vmap(hessian(f))(X),
    "grad(vmap)": lambda f: grad(lambda x: vmap(f)(x).sin().sum())(X),
    "grad(vmap(grad))": lambda f: grad(lambda x: vmap(grad(f))(x).sin().sum())(X),
    "grad(vmap(vmap))": lambda f: grad(lambda x: vmap(vmap(f))(x).sin().sum())(
        torch.stack([X, -X])
    ),
    "vmap(grad(vmap))": lambda f: vmap(grad(lambda x: vmap(f)(x).sin().sum()))(
        torch.stack([X, -X])
    ),
    "jacrev(vmap)": lambda f: jacrev(vmap(f))(X),
}


@REENTRANT
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_same_as_without(transform, reentrant):
    calls = []
    assert_close(transform(checkpointed(reentrant, calls)), transform(plain))
    assert len(calls) > 1 or transform in (TRANSFORMS["jvp"], TRANSFORMS["jacfwd"])


@REENTRANT
def test_what_the_function_closes_over(reentrant):
    w = X[1].clone().requires_grad_()

    def func(checked):
        def of_sample(x):
            y = x.cos()
            return checked(lambda z: (z * w).sin() * y, x * 2).sum()

        return of_sample

    checked = lambda f, x: checkpoint(f, x, use_reentrant=reentrant)
    total = lambda f: lambda x: vmap(func(f))(x).sum()
    assert_close(grad(total(checked))(X), grad(total(lambda f, x: f(x)))(X))
    vmap(func(checked))(X).sum().backward()
    expected = torch.autograd.grad(total(lambda f, x: f(x))(X), w)[0]
    assert_close(w.grad, expected)


@REENTRANT
@pytest.mark.parametrize("randomness", ["same", "different"])
@pytest.mark.parametrize("way", ["vmap(grad)", "grad(vmap)"])
def test_draws_the_same_numbers_again(way, randomness, reentrant):
    def noisy(x):
        return dropout(x.exp(), 0.5).square() * dropout(x.sin(), 0.3)

    def func(checked):
        return lambda x: (
            checkpoint(noisy, x, use_reentrant=reentrant) if checked else noisy(x)
        ).sum()

    def of(checked):
        torch.manual_seed(3)
        if way == "vmap(grad)":
            return vmap(grad(func(checked)), randomness=randomness)(X)
        return grad(lambda x: vmap(func(checked), randomness=randomness)(x).sum())(X)

    assert_close(of(True), of(False))


def test_pulled_back_inside_another_vmap():
    """The recomputation draws on no vmap where the function did not."""
    x = X[0].clone().requires_grad_()
    y = checkpoint(lambda x: dropout(x.exp(), 0.5).square(), x, use_reentrant=False)
    pull = lambda v: torch.autograd.grad(y, x, v, retain_graph=True)[0]
    jacobian = vmap(pull)(torch.eye(3, dtype=torch.float64))
    assert_close(jacobian, torch.stack([pull(row) for row in torch.eye(3, dtype=torch.float64)]))


@pytest.mark.parametrize("early", [False, True])
def test_early_stop(early):
    ended = []

    def func(x):
        y = x.sin() * x
        ended.append(None)
        return y + 1

    with set_checkpoint_early_stop(early):
        grad(lambda x: vmap(lambda x: checkpoint(func, x, use_reentrant=False))(x).sum())(X)
    assert len(ended) == (1 if early else 2)


def test_context_fn():
    entered = []

    @contextlib.contextmanager
    def context(name):
        entered.append(name)
        yield

    func = checkpointed(context_fn=lambda: (context("forward"), context("again")))
    assert_close(grad(lambda x: vmap(func)(x).sum())(X), vmap(grad(plain))(X))
    assert entered == ["forward", "again"]


def test_sequential():
    layers = [torch.nn.Linear(3, 3).double(), torch.nn.Tanh(), torch.nn.Linear(3, 2).double()]
    network = torch.nn.Sequential(*layers)
    for reentrant in (False, True):
        func = lambda x: checkpoint_sequential(layers, 2, x, use_reentrant=reentrant).sum()
        assert_close(vmap(grad(func))(X), vmap(grad(lambda x: network(x).sum()))(X))


def test_reentrant_is_as_it_was_outside_of_transforms():
    x = X[0].clone().requires_grad_()
    y = checkpoint(body, x, use_reentrant=True)
    assert "CheckpointFunction" in y.grad_fn.name()
    with pytest.raises(RuntimeError, match="incompatible with .grad()"):
        torch.autograd.grad(y.sum(), x)


HOOKS = (lambda t: t * 2, lambda t: t / 2)


def test_packed_by_hooks():
    """What packs and unpacks is seen by the planes below: an error of its own would show."""

    def hooked(x):
        with saved_tensors_hooks(*HOOKS):
            return plain(x)

    for transform in TRANSFORMS.values():
        assert_close(transform(hooked), transform(plain))


@pytest.mark.parametrize("pairs", [1, 2])
def test_packed_by_hooks_set_before_a_transform_begins(pairs):
    for transform in TRANSFORMS.values():
        with contextlib.ExitStack() as stack:
            for _ in range(pairs):
                stack.enter_context(saved_tensors_hooks(*HOOKS))
            result = transform(plain)
        assert_close(result, transform(plain))
        assert torch._C._autograd._top_saved_tensors_default_hooks(True) is None


def test_hooks_on_plain_tensors_are_the_programs_own_around_a_transform():
    x = X[0].clone().requires_grad_()
    packed = []
    with saved_tensors_hooks(lambda t: packed.append(type(t)) or t, lambda t: t):
        x.sin()
        vmap(torch.sin)(X)
        y = x.cos()
    assert packed == [torch.Tensor, torch.Tensor]
    y.sum().backward()
    assert_close(x.grad, -x.detach().sin())
