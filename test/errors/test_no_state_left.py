"""After an exception inside a transform, and for tensors that leave one, the state is as before."""

import pytest
import torch
import torch.autograd.forward_ad as forward_ad

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
from test.oracle import assert_close, rand
from test.state import failure


class Stop(Exception):
    """Raised by the functions under transformation."""


def stop(x):
    x.sin()
    raise Stop


def pullback_that_stops(x):
    class Fail(torch.autograd.Function):
        @staticmethod
        def forward(x):
            return x.clone()

        @staticmethod
        def setup_context(ctx, inputs, output):
            pass

        @staticmethod
        def backward(ctx, cotangent):
            raise Stop

        @staticmethod
        def vmap(info, in_dims, x):
            return Fail.apply(x), in_dims[0]

    return Fail.apply(x)


TRANSFORMS = {
    "vmap": lambda f: vmap(f),
    "vmap different": lambda f: vmap(f, randomness="different"),
    "grad": lambda f: grad(f),
    "grad_and_value": lambda f: grad_and_value(f),
    "vjp": lambda f: lambda x: vjp(f, x)[0],
    "jvp": lambda f: lambda x: jvp(f, (x,), (x,))[1],
    "linearize": lambda f: lambda x: linearize(f, x)[0],
    "jacrev": lambda f: jacrev(f),
    "jacfwd": lambda f: jacfwd(f),
    "hessian": lambda f: hessian(f),
    "functionalize": lambda f: functionalize(f),
    "no_grad": lambda f: torch.no_grad()(f),
}


@pytest.mark.parametrize("outer", TRANSFORMS)
@pytest.mark.parametrize("inner", TRANSFORMS)
def test_exceptions_inside(outer, inner):
    failure(lambda: TRANSFORMS[outer](TRANSFORMS[inner](stop))(rand(2, 2)), Stop)


@pytest.mark.parametrize("outer", ["vmap", "functionalize", "grad"])
def test_exceptions_in_a_backward_pass(outer):
    def total(x):
        return pullback_that_stops(x).sum()

    failure(lambda: TRANSFORMS[outer](grad(total))(rand(2, 2)), Stop)


class StopsBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, cotangent):
        raise Stop


@pytest.mark.parametrize("outer", [vmap, lambda f: f, lambda f: vmap(vmap(f))])
def test_a_backward_pass_that_stops_with_more_to_run(outer):
    # Of two branches the one stops, and what flows to the other waits in PyTorch's queue.
    def total(x):
        branches = [StopsBackward.apply(x.sin() * i).cos() for i in range(4)]
        return sum(branch.sum() for branch in branches)

    failure(lambda: outer(grad(total))(rand(2, 3, 2)), Stop)


def test_exceptions_are_caught_inside():
    def recovers(x):
        try:
            vmap(grad(stop))(x)
        except Stop:
            pass
        return x.sin()

    x = rand(3, 2)
    assert_close(vmap(recovers)(x), x.sin())


def test_grad_mode_of_the_caller_is_restored():
    with torch.no_grad():
        with pytest.raises(Stop):
            grad(stop)(rand())
        assert not torch.is_grad_enabled()
        vmap(grad(torch.sin))(rand(3))
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        with pytest.raises(Stop):
            vmap(stop)(rand(3))
        assert torch.is_inference_mode_enabled()


def test_a_keyboard_interrupt_leaves_no_state():
    def interrupt(x):
        raise KeyboardInterrupt

    for transform in TRANSFORMS.values():
        failure(lambda transform=transform: transform(interrupt)(rand(2)), KeyboardInterrupt)


def escape(transform, *args):
    """The tensors that `transform` hands to its function, once the transform is over."""
    kept = []
    transform(lambda *xs: (kept.extend(xs), xs[0] * 1)[1])(*args)
    return kept[0]


USES = {
    "pointwise": lambda x: x + 1,
    "with a plain tensor": lambda x: torch.ones(2) * x,
    "in place": lambda x: x.mul_(2),
    "view": lambda x: x[0],
    "reduction": lambda x: x.sum(),
    "under another vmap": lambda x: vmap(lambda y: x + y)(rand(3, 2)),
}


@pytest.mark.parametrize("use", USES)
def test_a_batched_tensor_that_outlived_its_vmap_raises(use):
    escaped = escape(vmap, rand(3, 2))
    with pytest.raises(RuntimeError, match="outliv|escape|no longer|has ended|dead|already exited"):
        USES[use](escaped)
    assert "escape" in repr(escaped) or "Batched" in repr(escaped) or "dead" in repr(escaped)
    del escaped


def test_a_batched_tensor_of_an_inner_vmap_raises_in_the_outer_one():
    def outer(x):
        return escape(vmap, x) + 1

    with pytest.raises(RuntimeError, match="outliv|escape|no longer|has ended|dead|already exited"):
        vmap(outer)(rand(3, 2))


def test_tensors_that_outlive_grad_and_jvp_stand_for_their_values():
    x = rand(2)
    for transform in (
        lambda f: grad(lambda x: f(x).sum()),
        lambda f: lambda x: jvp(f, (x,), (x,)),
        lambda f: lambda x: jvp(lambda x: jvp(f, (x,), (x,))[1], (x,), (x,)),
    ):
        escaped = escape(transform, x)
        assert_close((escaped + 1).detach(), x + 1)
        assert forward_ad._current_level < 0


def test_the_pullback_of_a_finished_vmap_raises_when_it_uses_batched_tensors():
    pullbacks = []

    def keep(x):
        output, pullback = vjp(torch.sin, x)
        pullbacks.append(pullback)
        return output

    vmap(keep)(rand(3, 2))
    with pytest.raises(RuntimeError, match="outliv|escape|no longer|has ended|dead|already exited"):
        pullbacks[0](rand(2))


def test_threads_do_not_see_each_other():
    import concurrent.futures

    x = rand(8, 3)
    expected = x.cos()

    def work(_):
        return vmap(grad(lambda x: x.sin().sum()))(x)

    def from_inside(x):
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            plain = pool.submit(lambda: torch.ones(2) + 1).result()
        assert type(plain) is torch.Tensor and plain.shape == (2,)
        return x

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for result in pool.map(work, range(20)):
            assert_close(result, expected)
    vmap(from_inside)(x)
