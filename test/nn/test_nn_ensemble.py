"""stack_module_state, replace_all_batch_norm_modules_, and modules inside transforms."""

import pytest
import torch
from expecttest import assert_expected_inline
from torch import nn

from functorch_ext import (
    functional_call,
    grad,
    replace_all_batch_norm_modules_,
    stack_module_state,
    vmap,
)
from test.nn.modules import message, network

# ---- with the transforms ----


def test_per_sample_gradients_equal_the_loop():
    module, x = (
        nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double(),
        torch.randn(5, 3, dtype=torch.float64),
    )
    parameters = {name: p.detach() for name, p in module.named_parameters()}
    loss = lambda parameters, x: functional_call(module, parameters, (x,)).square().sum()
    ours = vmap(grad(loss), in_dims=(None, 0))(parameters, x)
    for i, sample in enumerate(x):
        expected = torch.autograd.grad(module(sample).square().sum(), list(module.parameters()))
        for gradient, name in zip(expected, parameters):
            torch.testing.assert_close(ours[name][i], gradient, rtol=1e-12, atol=1e-12)


def test_ensemble_equals_the_loop():
    models = [network().eval().double() for _ in range(4)]
    for model in models:
        model[1].running_mean.normal_()
    x = torch.randn(4, 6, 1, 4, 4, dtype=torch.float64)
    call = lambda parameters, buffers, x: functional_call(models[0], (parameters, buffers), (x,))
    state = stack_module_state(models)
    torch.testing.assert_close(
        vmap(call)(*state, x), torch.stack([m(sample) for m, sample in zip(models, x)])
    )
    torch.testing.assert_close(
        vmap(call, in_dims=(0, 0, None))(*state, x[0]), torch.stack([m(x[0]) for m in models])
    )


# ---- stack_module_state ----


def test_stacked_state_is_torch_funcs():
    models = [network() for _ in range(3)]
    for model in models:
        model[0].bias.requires_grad_(False)
    for ours, theirs in zip(stack_module_state(models), torch.func.stack_module_state(models)):
        assert list(ours) == list(theirs)
        for name in ours:
            assert torch.equal(ours[name], theirs[name]) and ours[name].is_leaf
            assert ours[name].dtype == theirs[name].dtype
            assert ours[name].requires_grad == theirs[name].requires_grad
    assert not stack_module_state(models)[0]["0.bias"].requires_grad
    assert len(stack_module_state(nn.ModuleList(models))[0]) == len(list(models[0].parameters()))


def test_stacked_state_is_a_copy():
    models = [nn.Linear(2, 2) for _ in range(2)]
    parameters, buffers = stack_module_state(models)
    with torch.no_grad():
        parameters["weight"].zero_()
    assert models[0].weight.ne(0).any() and buffers == {}


def test_stack_module_state_messages():
    def failure(*models):
        return message(RuntimeError, lambda: stack_module_state(models))

    frozen = nn.Linear(2, 2)
    frozen.bias.requires_grad_(False)
    assert_expected_inline(
        failure(), """functorch_ext.stack_module_state: Expected at least one model, got 0"""
    )
    assert_expected_inline(
        message(TypeError, lambda: stack_module_state(nn.Linear(2, 2))),
        """functorch_ext.stack_module_state: models must be a list of torch.nn.Module, but got one Linear""",
    )
    assert_expected_inline(
        failure(nn.Linear(2, 2), nn.Linear(2, 2), nn.Conv1d(2, 2, 1)),
        """functorch_ext.stack_module_state: Expected all models to be of the same class, but model 0 is a Linear and model 2 is a Conv1d""",
    )
    assert_expected_inline(
        failure(nn.Linear(2, 2), nn.Linear(2, 2).eval()),
        """functorch_ext.stack_module_state: Expected all models to have the same training/eval mode, but model 0 has training=True and model 1 has training=False""",
    )
    assert_expected_inline(
        failure(nn.Linear(2, 2), nn.Linear(2, 2, bias=False)),
        """functorch_ext.stack_module_state: expected models with the same parameters and buffers, but 'bias' is not in both model 0 and model 1""",
    )
    assert_expected_inline(
        failure(nn.Linear(2, 2), nn.Linear(3, 2)),
        """functorch_ext.stack_module_state: Expected 'weight' from each model to have the same .shape, but it is (2, 2) in model 0 and (2, 3) in model 1""",
    )
    assert_expected_inline(
        failure(nn.Linear(2, 2), frozen),
        """functorch_ext.stack_module_state: Expected 'bias' from each model to have the same .requires_grad, but it is True in model 0 and False in model 1""",
    )


# ---- replace_all_batch_norm_modules_ ----


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.BatchNorm1d(3),
        lambda: nn.BatchNorm2d(3, affine=False),
        lambda: nn.BatchNorm3d(3, momentum=None),
        lambda: nn.SyncBatchNorm(3),
        lambda: nn.LazyBatchNorm1d(),
        lambda: nn.BatchNorm2d(3, track_running_stats=False),
        lambda: nn.InstanceNorm1d(3, track_running_stats=True),
        network,
        lambda: nn.Sequential(network(), nn.ModuleDict({"norm": nn.BatchNorm1d(3)})),
    ],
)
def test_batch_norms_are_replaced_as_by_torch_func(make):
    ours, theirs = make(), make()
    assert replace_all_batch_norm_modules_(ours) is ours
    torch.func.replace_all_batch_norm_modules_(theirs)
    assert list(dict(ours.named_buffers())) == list(dict(theirs.named_buffers()))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for mine, other in zip(ours.modules(), theirs.modules()):
        for name in ("running_mean", "running_var", "num_batches_tracked", "track_running_stats"):
            values = [getattr(module, name, "absent") for module in (mine, other)]
            assert str(values[0]) == str(values[1])


def test_replaced_batch_norm_uses_the_batch():
    module, x = replace_all_batch_norm_modules_(nn.BatchNorm1d(3)), torch.randn(8, 3)
    expected = (x - x.mean(0)) / (x.var(0, unbiased=False) + module.eps).sqrt()
    torch.testing.assert_close(module(x), expected)
    torch.testing.assert_close(module.eval()(x), expected)


def test_vmap_over_replaced_batch_norm():
    module = replace_all_batch_norm_modules_(network())
    parameters = dict(module.named_parameters())
    x = torch.randn(3, 6, 1, 4, 4)
    out = vmap(lambda x: functional_call(module, parameters, (x,)))(x)
    torch.testing.assert_close(out, torch.stack([module(sample) for sample in x]))
