"""Transforms on a GPU: streams, captured graphs, mixed precision, other threads, several devices."""

import pytest
import torch
from torch.autograd import Function
from torch.nn.functional import cross_entropy, mse_loss

from functorch_ext import functional_call, grad, hessian, jacrev, jvp, vmap
from test.oracle import assert_close

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def on_gpu(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, device="cuda")


def network():
    layers = torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 4)
    return torch.nn.Sequential(*layers).to("cuda", torch.float64)


def per_sample(model):
    def loss(weights, x, label):
        return cross_entropy(functional_call(model, weights, (x,)), label)

    return vmap(grad(loss), (None, 0, 0))


def batch_of(model, samples=5):
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    return weights, on_gpu(samples, 6), torch.randint(4, (samples,), device="cuda")


def test_per_sample_gradients():
    model = network()
    weights, x, labels = batch_of(model)
    found = per_sample(model)(weights, x, labels)
    for i in range(len(x)):
        expected = torch.autograd.grad(
            cross_entropy(model(x[i]), labels[i]), list(model.parameters())
        )
        assert_close([gradient[i] for gradient in found.values()], list(expected))


def test_a_stream_of_the_programs():
    model = network()
    weights, x, labels = batch_of(model)
    expected = per_sample(model)(weights, x, labels)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        found = per_sample(model)(weights, x, labels)
    torch.cuda.current_stream().wait_stream(stream)
    assert_close(found, expected)


@pytest.mark.parametrize(
    "transform",
    [
        lambda f: vmap(grad(f)),
        lambda f: vmap(hessian(f)),
        lambda f: jacrev(lambda x: vmap(f)(x)),
        lambda f: lambda x: jvp(grad(lambda x: vmap(f)(x).sum()), (x,), (x,)),
    ],
    ids=["vmap-grad", "vmap-hessian", "jacrev", "jvp-grad"],
)
def test_a_captured_graph_computes_for_other_numbers(transform):
    function = transform(lambda x: (x.sin() * x.roll(1)).square().sum())
    x = on_gpu(4, 3)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            function(x)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = function(x)
    x.copy_(on_gpu(4, 3))
    graph.replay()
    assert_close(captured, function(x.clone()))


def test_mixed_precision_with_a_scaler():
    model = network().float()
    scaler = torch.amp.GradScaler("cuda")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, goal = on_gpu(8, 6, dtype=torch.float32), on_gpu(8, 4, dtype=torch.float32)

    def loss(weights, x, goal):
        with torch.autocast("cuda", torch.float16):
            output = functional_call(model, weights, (x,))
        assert output.dtype == torch.float16
        return mse_loss(output.float(), goal)

    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    scaled = vmap(grad(lambda *args: scaler.scale(loss(*args))), (None, 0, 0))(weights, x, goal)
    plain = vmap(grad(loss), (None, 0, 0))(weights, x, goal)
    for name, weight in model.named_parameters():
        weight.grad = scaled[name].mean(0)
    scaler.unscale_(optimizer)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, plain[name].mean(0), rtol=2e-2, atol=2e-3)
    before = [weight.clone() for weight in model.parameters()]
    scaler.step(optimizer)
    scaler.update()
    assert not any(torch.equal(a, b) for a, b in zip(before, model.parameters()))


def test_samples_from_pinned_memory():
    pinned = torch.randn(4, 3, dtype=torch.float64).pin_memory()
    found = vmap(grad(lambda x: x.to("cuda", non_blocking=True).sin().sum()))(pinned)
    assert found.device.type == "cpu"
    assert_close(found, pinned.cos())


def test_two_devices_are_named():
    with pytest.raises(RuntimeError, match=r"cuda:0.*cpu|cpu.*cuda:0"):
        vmap(lambda x, y: x + y)(on_gpu(3, 2), torch.randn(3, 2, device="cpu"))


class GradientInside(Function):
    """Its backward, which runs in a thread of the GPU's, calls a transform."""

    generate_vmap_rule = False

    @staticmethod
    def forward(x):
        return x.sin()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, cotangent):
        (x,) = ctx.saved_tensors
        return cotangent * grad(lambda x: x.sin().sum())(x)


@pytest.mark.parametrize("nest", [grad, lambda f: vmap(grad(f)), lambda f: vmap(jacrev(f))])
def test_transforms_in_a_backward_pass_of_another_thread(nest):
    x = on_gpu(4, 3)
    found = nest(lambda x: GradientInside.apply(x).sum())(x)
    assert_close(found, x.cos())


@pytest.mark.parametrize("randomness", ["same", "different"])
def test_draws(randomness):
    x = torch.zeros(3, 1000, device="cuda")
    found = vmap(lambda x: x + torch.randn_like(x), randomness=randomness)(x)
    assert found.std() > 0.9
    assert torch.equal(found[0], found[1]) == (randomness == "same")


def test_a_generator_of_the_gpus():
    generator = torch.Generator("cuda").manual_seed(7)
    x = torch.zeros(3, 5, device="cuda")
    draw = lambda x: x + torch.rand(5, generator=generator, device="cuda")
    first = vmap(draw, randomness="different")(x)
    generator.manual_seed(7)
    assert torch.equal(vmap(draw, randomness="different")(x), first)
