"""``torch.export`` of modules that use transforms: saved, loaded and run at other batch sizes."""

import io

import pytest
import torch
from torch import nn
from torch.export import Dim, export, load, save

from functorch_ext import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from functorch_ext._pytree import leaves_of


class Uses(nn.Module):
    """A small network, and what is computed with it."""

    def __init__(self, program):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
        self.program = program

    def forward(self, x):
        return self.program(self.network, x)


def per_sample_gradients(network, x):
    def loss(parameters, sample):
        return functional_call(network, parameters, (sample,)).pow(2).sum()

    return vmap(grad(loss), in_dims=(None, 0))(dict(network.named_parameters()), x)


def scaled(network, x):
    return functional_call(network, {k: v * 2 for k, v in network.named_parameters()}, (x,))


def pulled_back(network, x):
    output, pullback = vjp(network, x)
    return pullback(output)[0]


PROGRAMS = {
    "vmap": lambda network, x: vmap(lambda sample: network(sample).tanh())(x),
    "per-sample gradients": per_sample_gradients,
    "vmap(jacrev)": lambda network, x: vmap(jacrev(network))(x),
    "vmap(jacfwd)": lambda network, x: vmap(jacfwd(network))(x),
    "vmap(hessian)": lambda network, x: vmap(hessian(lambda s: network(s).sum()))(x),
    "functional_call": scaled,
    "grad": lambda network, x: grad(lambda x: network(x).sum())(x),
    "jvp": lambda network, x: jvp(network, (x,), (x.cos(),)),
    "vjp": pulled_back,
}


def saved_and_loaded(program):
    file = io.BytesIO()
    save(program, file)
    file.seek(0)
    return load(file).module()


@pytest.mark.parametrize("strict", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", PROGRAMS)
def test_is_as_the_module_at_any_batch_size(name, strict):
    module = Uses(PROGRAMS[name])
    exported = export(
        module, (torch.randn(3, 4),), strict=strict, dynamic_shapes={"x": {0: Dim("batch")}}
    )
    again = saved_and_loaded(exported)
    for batch in (3, 5, 1):
        x = torch.randn(batch, 4)
        torch.testing.assert_close(leaves_of(again(x)), leaves_of(module(x)))


@pytest.mark.parametrize("strict", [False, True])
def test_parameters_are_parameters_of_what_is_exported(strict):
    module = Uses(per_sample_gradients)
    exported = export(module, (torch.randn(3, 4),), strict=strict)
    assert set(exported.state_dict) == set(module.state_dict())
    assert not exported.constants
    for node in exported.graph.nodes:
        if node.op == "call_function":
            assert getattr(node.target, "namespace", "aten") == "aten", node.target
    again = saved_and_loaded(exported)
    with torch.no_grad():
        for parameters in (module.parameters(), again.parameters()):
            for parameter in parameters:
                parameter.mul_(2)
    x = torch.randn(3, 4)
    torch.testing.assert_close(leaves_of(again(x)), leaves_of(module(x)))


@pytest.mark.slow
def test_package_of_aot_inductor(tmp_path):
    module = Uses(per_sample_gradients)
    exported = export(module, (torch.randn(3, 4),), dynamic_shapes={"x": {0: Dim("batch")}})
    path = torch._inductor.aoti_compile_and_package(
        exported, package_path=str(tmp_path / "gradients.pt2")
    )
    loaded = torch._inductor.aoti_load_package(path)
    for batch in (3, 5):
        x = torch.randn(batch, 4)
        torch.testing.assert_close(leaves_of(loaded(x)), leaves_of(module(x)))
