"""Checkpoints, hooks of saved tensors, of tensors and of modules, parametrized modules."""

import torch
from torch import nn
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint

from test.composing.rows import TWICE, row, sample, total, uses

FEATURE = "Checkpoints and hooks"
XS = (sample(4, 3),)


def body(x):
    return (x.sin() * x).exp().cumsum(-1)


def checkpointed(x):
    return checkpoint(body, x, use_reentrant=False).cos()


def checkpointed_reentrant(x):
    return checkpoint(body, x, use_reentrant=True).cos()


def plain(x):
    return body(x).cos()


def with_hooks(x):
    """Saved tensors are packed as NumPy programs might: as a tuple of something else."""
    with saved_tensors_hooks(lambda t: (t.double() * 2, t.dtype), lambda p: (p[0] / 2).to(p[1])):
        return plain(x)


def saved_on_cpu(x):
    with save_on_cpu():
        return plain(x)


def tensor_hook(x):
    y = x.sin()
    y.register_hook(lambda cotangent: 3 * cotangent.cos())
    return y * x


def hook_of_the_input(x):
    x.register_hook(lambda cotangent: cotangent * 5)
    return body(x)


class Symmetric(nn.Module):
    def forward(self, x):
        return x.triu() + x.triu(1).transpose(-1, -2)


def seeded(make):
    def made():
        torch.manual_seed(0)
        return make().double()

    return made


@seeded
def hooked():
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))
    module[0].register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    module[1].register_forward_hook(lambda module, args, output: output + args[0])
    return module


@seeded
def backward_hooked():
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))
    module[1].register_full_backward_hook(lambda module, by_in, by_out: (by_in[0] * by_out[0],))
    module[2].register_full_backward_pre_hook(lambda module, by_out: (by_out[0] * 3,))
    return module


@seeded
def parametrized():
    module = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    parametrize.register_parametrization(module[0], "weight", Symmetric())
    return module


MODULES = {
    "forward hooks of modules": hooked,
    "full backward hooks of modules": backward_hooked,
    "parametrize": parametrized,
    "parametrizations.weight_norm": seeded(lambda: parametrizations.weight_norm(nn.Linear(3, 3))),
    "parametrizations.orthogonal": seeded(lambda: parametrizations.orthogonal(nn.Linear(3, 3))),
    "parametrizations.spectral_norm, evaluation": seeded(
        lambda: parametrizations.spectral_norm(nn.Linear(3, 3)).eval()
    ),
    "parametrizations.spectral_norm, training": seeded(
        lambda: parametrizations.spectral_norm(nn.Linear(3, 3))
    ),
    "nn.utils.weight_norm": seeded(lambda: nn.utils.weight_norm(nn.Linear(3, 3))),
    "nn.utils.spectral_norm, evaluation": seeded(
        lambda: nn.utils.spectral_norm(nn.Linear(3, 3)).eval()
    ),
}


def loss(F, module, buffers=None):
    def of_parameters(parameters, x):
        return total(lambda x: F.functional_call(module, (parameters, buffers or {}), (x,)))(x)

    return of_parameters


def modules(name, make):
    """Gradients by inputs, by parameters, by parameters for each sample, and by .backward()."""

    def by_input(F):
        return F.grad(total(make()))(XS[0][0])

    def per_sample_by_input(F):
        return F.vmap(F.grad(total(make())))(XS[0])

    def by_parameters(F):
        module = make()
        return F.grad(loss(F, module))(dict(module.named_parameters()), XS[0][0])

    def per_sample(F):
        module = make()
        return F.vmap(F.grad(loss(F, module)), (None, 0))(dict(module.named_parameters()), XS[0])

    def ensemble(F):
        module = make()
        stacked = {
            name: torch.stack([p.detach() * scale for scale in (1.0, 0.5, -2.0)])
            for name, p in module.named_parameters()
        }
        return F.vmap(loss(F, module), (0, None))(stacked, XS[0][0])

    def along_parameters(F):
        module = make()
        parameters = {k: p.detach() for k, p in module.named_parameters()}
        tangents = {k: p.sin() for k, p in parameters.items()}
        return F.jvp(lambda p: loss(F, module)(p, XS[0][0]), (parameters,), (tangents,))

    def backward(F):
        module = make()
        total(F.vmap(module))(XS[0]).backward()
        return [p.grad for p in module.parameters()]

    ways = {
        "grad by inputs": by_input,
        "vmap(grad) by inputs": per_sample_by_input,
        "grad by parameters": by_parameters,
        "jvp by parameters": along_parameters,
        "vmap(grad) by parameters": per_sample,
        "vmap over parameters": ensemble,
        "backward of vmap": backward,
    }
    if make is backward_hooked:
        del ways["jvp by parameters"]  # the reference runs backward, and with it the hooks
    if "spectral_norm, training" in name:  # each call moves the norm's buffers on
        ways = {way: ways[way] for way in ways if "vmap" not in way or "over" in way}
    return [row(FEATURE, name, way, compute) for way, compute in ways.items()]


def hooks_around(F):
    with saved_tensors_hooks(lambda t: t.double(), lambda t: t.double()):
        return F.grad(total(plain))(XS[0][0]), F.vmap(F.grad(total(plain)))(XS[0])


def checkpointed_module(F):
    module = hooked()

    def of_parameters(parameters, x):
        def call(x):
            return F.functional_call(module, parameters, (x,))

        return total(lambda x: checkpoint(call, x, use_reentrant=False))(x)

    parameters = dict(module.named_parameters())
    return F.vmap(F.grad(of_parameters), (None, 0))(parameters, XS[0])


def backward_of_checkpoint(F):
    w = sample(3, seed=3).requires_grad_()
    total(F.vmap(lambda x: checkpointed(x * w)))(XS[0]).backward()
    return w.grad


ROWS = [
    *uses(FEATURE, "checkpoint(use_reentrant=False)", checkpointed, XS, TWICE, plain=plain),
    *uses(FEATURE, "checkpoint(use_reentrant=True)", checkpointed_reentrant, XS, plain=plain),
    row(FEATURE, "checkpoint(use_reentrant=False)", "per-sample gradients", checkpointed_module),
    row(FEATURE, "checkpoint(use_reentrant=False)", "backward of vmap", backward_of_checkpoint),
    *uses(FEATURE, "saved_tensors_hooks", with_hooks, XS, TWICE, plain=plain),
    row(FEATURE, "saved_tensors_hooks", "around grad", hooks_around),
    *uses(FEATURE, "save_on_cpu", saved_on_cpu, XS, TWICE, plain=plain),
    *uses(FEATURE, "Tensor.register_hook on an intermediate", tensor_hook, XS,
          ("grad", "vjp", "jacrev", "vmap(grad)", "grad(vmap)")),
    *uses(FEATURE, "Tensor.register_hook on the input", hook_of_the_input, XS,
          ("grad", "vjp", "jacrev", "vmap(grad)", "grad(vmap)")),
    *(each for name, make in MODULES.items() for each in modules(name, make)),
]  # fmt: skip
