"""functional_call, stack_module_state, replace_all_batch_norm_modules_.

Compared with calls of plain modules, and with torch.func's functions as a second oracle.
"""

import copy

import pytest
import torch
from expecttest import assert_expected_inline
from torch import nn
from torch.nn.utils import parametrize

from functorch_ext import (
    functional_call,
    grad,
    replace_all_batch_norm_modules_,
    stack_module_state,
    vmap,
)


class Scale(nn.Module):
    """Has every kind of state: parameter, two buffers (one not saved), a plain tensor."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.randn(3))
        self.register_buffer("count", torch.zeros(3))
        self.register_buffer("last", torch.zeros(3), persistent=False)
        self.offset = torch.ones(3)

    def forward(self, x, *, power=1):
        self.count.add_(1)
        self.last = self.last + 10
        return (x * self.scale + self.offset) ** power + self.count + self.last


class Tied(nn.Module):
    """One weight under two names."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3, bias=False)
        self.weight = self.linear.weight

    def forward(self, x):
        return self.linear(x) + x @ self.weight


class Symmetric(nn.Module):
    def forward(self, x):
        return x.triu() + x.triu(1).mT

    def right_inverse(self, x):
        return x.triu()


class Raises(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls = self.calls + 1
        raise ArithmeticError("from the module")


def network():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.Tanh(),
        nn.Flatten(),
        nn.Sequential(nn.Linear(4 * 4, 5), nn.LayerNorm(5)),
    )


def tensors_of(module):
    """All tensors by name, as (identity, version, value) to see any change at all."""
    named = [*module.named_parameters(), *module.named_buffers()]
    return {name: (id(t), t._version, t.detach().clone().tolist()) for name, t in named}


def random_state(module):
    named = [*module.named_parameters(), *module.named_buffers()]
    return {n: torch.rand_like(t) if t.is_floating_point() else t.clone() for n, t in named}


def loaded(module, state):
    """A copy of ``module`` that holds ``state``: what functional_call must agree with."""
    module = copy.deepcopy(module)
    module.load_state_dict(state, strict=False)
    return module


def message(kind, function):
    with pytest.raises(kind) as caught:
        function()
    return str(caught.value)


# ---- functional_call: values ----


@pytest.mark.parametrize("training", [True, False])
def test_equals_module_with_these_tensors(training):
    module = network().train(training)
    before = tensors_of(module)
    state, x = random_state(module), torch.randn(6, 1, 4, 4)
    expected = loaded(module, state)
    expected_state = {name: t.clone() for name, t in state.items()}

    torch.testing.assert_close(functional_call(module, state, (x,)), expected(x))
    assert tensors_of(module) == before
    theirs = torch.func.functional_call(module, expected_state, (x,))
    torch.testing.assert_close(theirs, loaded(module, state)(x))
    for name, t in [*expected.named_buffers()]:
        torch.testing.assert_close(state[name], t, msg=name)
        torch.testing.assert_close(state[name], expected_state[name], msg=name)


def test_partial_state_keeps_the_rest():
    module, x = nn.Linear(3, 2), torch.randn(4, 3)
    bias = torch.randn(2)
    torch.testing.assert_close(
        functional_call(module, {"bias": bias}, x), x @ module.weight.T + bias
    )
    torch.testing.assert_close(functional_call(module, {}, x), module(x))
    torch.testing.assert_close(functional_call(module, [], x), module(x))
    assert module.bias is not bias and isinstance(module.bias, nn.Parameter)


def test_several_dicts():
    module, x = network(), torch.randn(6, 1, 4, 4)
    parameters, buffers = dict(module.named_parameters()), dict(module.named_buffers())
    buffers = {name: t.clone() for name, t in buffers.items()}
    expected = copy.deepcopy(module)(x)
    for dicts in ((parameters, buffers), [parameters, buffers], (parameters, {}, buffers)):
        torch.testing.assert_close(functional_call(module, dicts, (x,)), expected)


def test_args_and_kwargs():
    module, x = Scale(), torch.randn(2, 3)
    expected = copy.deepcopy(module)(x, power=2)
    fresh = lambda: {name: t.clone() for name, t in module.named_buffers()}
    for args, kwargs in (((x,), {"power": 2}), (x, {"power": 2}), (None, {"x": x, "power": 2})):
        torch.testing.assert_close(functional_call(module, fresh(), args, kwargs), expected)
    torch.testing.assert_close(
        functional_call(module, fresh(), args=(x,), kwargs=dict(power=2)), expected
    )


def test_none_stands_for_no_tensor():
    module, x = nn.Linear(3, 2), torch.randn(4, 3)
    torch.testing.assert_close(functional_call(module, {"bias": None}, x), x @ module.weight.T)
    without = nn.Linear(3, 2, bias=False)
    bias = torch.randn(2)
    torch.testing.assert_close(functional_call(without, {"bias": bias}, x), without(x) + bias)
    assert without.bias is None


def test_plain_and_new_attributes():
    module, x = Scale(), torch.randn(2, 3)
    offset, own = torch.full((3,), 5.0), module.offset
    expected = copy.deepcopy(module)(x) - 1 + 5
    state = {name: t.clone() for name, t in module.named_buffers()}
    torch.testing.assert_close(functional_call(module, {**state, "offset": offset}, x), expected)
    assert module.offset is own

    class Reads(nn.Module):
        def forward(self, x):
            return x + self.extra

    assert torch.equal(functional_call(Reads(), {"extra": torch.ones(3)}, torch.ones(3)), 2 * own)
    module = Reads()
    functional_call(module, {"extra": torch.ones(3)}, torch.ones(3))
    assert not hasattr(module, "extra")


def test_submodule_outside_the_registered_ones():
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            object.__setattr__(self, "hidden", nn.Linear(3, 2))

        def forward(self, x):
            return self.hidden(x)

    module, bias = Holder(), torch.randn(2)
    out = functional_call(module, {"hidden.bias": bias}, torch.zeros(3))
    torch.testing.assert_close(out, bias)


def test_gradients_reach_the_given_tensors_only():
    module, x = nn.Linear(3, 2), torch.randn(4, 3)
    weight = torch.randn(2, 3, requires_grad=True)
    functional_call(module, {"weight": weight}, x).sum().backward()
    torch.testing.assert_close(weight.grad, x.sum(0).expand(2, 3))
    assert module.weight.grad is None and module.bias.grad is not None


def test_hooks_run():
    module, seen = nn.Linear(3, 2), []
    module.register_forward_hook(lambda m, args, out: seen.append(m.bias))
    bias = torch.randn(2)
    functional_call(module, {"bias": bias}, torch.randn(3))
    assert seen[0] is bias


# ---- functional_call: buffers, exceptions, nesting ----


def test_buffers_written_by_the_module_show_in_the_dict():
    module, x = Scale(), torch.randn(2, 3)
    count, last = torch.zeros(3), torch.zeros(3)
    state = {"count": count, "last": last}
    for call in (1, 2):
        functional_call(module, state, x)
        assert state["count"] is count and count.eq(call).all()  # Written in place.
        assert state["last"] is not last and state["last"].eq(10 * call).all()  # Assigned anew.
    assert last.eq(0).all() and module.count.eq(0).all() and module.last.eq(0).all()


def test_buffers_of_several_dicts_are_as_with_torch_func():
    module, x = Scale(), torch.randn(2, 3)
    for call in (functional_call, torch.func.functional_call):
        state = {"count": torch.zeros(3), "last": torch.zeros(3)}
        call(module, (state, {"scale": torch.ones(3)}), x)
        assert state["count"].eq(1).all() and state["last"].eq(0).all()


def test_shared_submodule_hands_its_buffer_out():
    scale = Scale()
    module = nn.Sequential(scale, scale)
    state, theirs = ({"0.last": torch.zeros(3)} for _ in range(2))
    functional_call(module, state, torch.randn(3))
    torch.func.functional_call(module, theirs, torch.randn(3))
    assert state["0.last"].eq(20).all() and theirs["0.last"].eq(20).all()
    assert scale.last.eq(0).all()


def test_state_is_restored_after_an_exception():
    module = Raises()
    before, order = tensors_of(module), list(module.state_dict())
    state = random_state(module)
    with pytest.raises(ArithmeticError, match="from the module"):
        functional_call(module, state, torch.randn(3))
    assert tensors_of(module) == before and list(module.state_dict()) == order


@pytest.mark.parametrize("bad", [{"1.bias": 3}, {"1.nothing.bias": torch.ones(2)}])
def test_state_is_restored_after_a_bad_entry(bad):
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    before = tensors_of(module)
    state = {"0.weight": torch.ones(3, 3), **bad, "1.weight": torch.ones(2, 3)}
    with pytest.raises((TypeError, AttributeError)):
        functional_call(module, state, torch.randn(3))
    assert tensors_of(module) == before


def test_nested_calls_of_one_module():
    class Recursive(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.tensor(2.0))

        def forward(self, x, depth=0):
            if depth == 3:
                return x * self.factor
            inner = functional_call(self, {"factor": self.factor + 1}, (x, depth + 1))
            return inner * self.factor

    module = Recursive()
    own = module.factor
    assert functional_call(module, {"factor": torch.tensor(1.0)}, (torch.tensor(1.0),)) == 24
    assert module.factor is own


# ---- functional_call: tied weights ----


@pytest.mark.parametrize("key", ["weight", "linear.weight"])
def test_tied_weights_follow_any_of_their_names(key):
    module, x, weight = Tied(), torch.randn(4, 3), torch.randn(3, 3)
    own, expected = module.weight, x @ weight.T + x @ weight
    state = {key: weight}
    torch.testing.assert_close(functional_call(module, state, x), expected)
    assert list(state) == [key]
    both = {"weight": weight, "linear.weight": weight}
    torch.testing.assert_close(functional_call(module, both, x), expected)
    assert module.weight is own and module.linear.weight is own


def test_tied_weights_untied():
    module, x, weight = Tied(), torch.randn(4, 3), torch.randn(3, 3)
    out = functional_call(module, {"weight": weight}, x, tie_weights=False)
    torch.testing.assert_close(out, x @ module.weight.T + x @ weight)
    both = {"weight": weight, "linear.weight": 2 * weight}
    out = functional_call(module, both, x, tie_weights=False)
    torch.testing.assert_close(out, 2 * x @ weight.T + x @ weight)


def test_tied_weights_with_different_values():
    both = {"weight": torch.ones(3, 3), "linear.weight": torch.ones(3, 3)}
    assert_expected_inline(
        message(ValueError, lambda: functional_call(Tied(), both, torch.ones(3))),
        """functional_call: different values for 'linear.weight', 'weight', which are names of one tensor in the module; give one value, or pass tie_weights=False""",
    )


def test_weights_tied_after_an_earlier_call():
    module, x = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), torch.randn(4, 3)
    weight = torch.randn(3, 3)
    functional_call(module, {"0.weight": weight}, x)
    module[1].weight = module[0].weight
    twice = loaded(module, {"0.weight": weight})
    torch.testing.assert_close(functional_call(module, {"0.weight": weight}, x), twice(x))


def test_replaced_submodule_after_an_earlier_call():
    module, x = nn.Sequential(nn.Linear(3, 3)), torch.randn(4, 3)
    bias = torch.randn(2)
    functional_call(module, {"0.bias": torch.ones(3)}, x)
    module[0] = nn.Linear(3, 2)
    torch.testing.assert_close(
        functional_call(module, {"0.bias": bias}, x), x @ module[0].weight.T + bias
    )


# ---- functional_call: strict ----


def test_strict_accepts_all_names():
    module, x = Scale(), torch.randn(2, 3)
    functional_call(module, random_state(module), x, strict=True)
    functional_call(Tied(), {"weight": torch.ones(3, 3)}, x, strict=True)


def test_strict_messages():
    module, x = Scale(), torch.randn(2, 3)
    assert_expected_inline(
        message(RuntimeError, lambda: functional_call(module, {}, x, strict=True)),
        """functional_call: with strict=True the names must be those of the parameters and buffers of Scale: missing 'count', 'last', 'scale'""",
    )
    state = {**random_state(module), "offset": torch.ones(3), "a.b": torch.ones(3)}
    assert_expected_inline(
        message(RuntimeError, lambda: functional_call(module, state, x, strict=True)),
        """functional_call: with strict=True the names must be those of the parameters and buffers of Scale: unexpected 'a.b', 'offset'""",
    )
    del state["count"]
    assert_expected_inline(
        message(RuntimeError, lambda: functional_call(module, state, x, strict=True)),
        """functional_call: with strict=True the names must be those of the parameters and buffers of Scale: unexpected 'a.b', 'offset', missing 'count'""",
    )
    assert_expected_inline(
        message(
            RuntimeError,
            lambda: functional_call(
                Tied(), {"weight": torch.ones(3, 3)}, x, tie_weights=False, strict=True
            ),
        ),
        """functional_call: with strict=True the names must be those of the parameters and buffers of Tied: missing 'linear.weight'""",
    )


# ---- functional_call: parametrized modules ----


def test_parametrized_by_its_original():
    module, x = nn.Linear(3, 3), torch.randn(4, 3)
    parametrize.register_parametrization(module, "weight", Symmetric())
    original = torch.randn(3, 3)
    state = {"parametrizations.weight.original": original}
    out = functional_call(module, state, x)
    torch.testing.assert_close(out, x @ Symmetric()(original) + module.bias)
    torch.testing.assert_close(out, torch.func.functional_call(module, state, x))
    names = dict(module.named_parameters())
    torch.testing.assert_close(functional_call(module, names, x, strict=True), module(x))


def test_parametrized_by_its_weight():
    module, x = nn.Sequential(nn.Linear(3, 3)), torch.randn(4, 3)
    parametrize.register_parametrization(module[0], "weight", Symmetric())
    before, weight = tensors_of(module), torch.randn(3, 3)  # Not symmetric: nothing may change it.
    out = functional_call(module, {"0.weight": weight}, x)
    torch.testing.assert_close(out, x @ weight.T + module[0].bias)
    assert tensors_of(module) == before and parametrize.is_parametrized(module[0], "weight")
    torch.testing.assert_close(module(x), x @ module[0].weight.T + module[0].bias)


def test_parametrized_weight_norm():
    module, x = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)), torch.randn(4, 3)
    state = random_state(module)
    torch.testing.assert_close(
        functional_call(module, state, x), loaded(module, state)(x), msg=str(list(state))
    )


# ---- functional_call: bad input ----


def test_bad_input_messages():
    module, x, bias = nn.Sequential(nn.Linear(3, 2)), torch.randn(3), torch.ones(2)

    def failure(kind, dicts, module=module):
        return message(kind, lambda: functional_call(module, dicts, x))

    assert_expected_inline(
        failure(ValueError, [{"0.bias": bias}, {"0.bias": bias}]),
        """functional_call: '0.bias' in more than one of the dicts; give each value once""",
    )
    assert_expected_inline(
        failure(ValueError, 3),
        """functional_call: parameter_and_buffer_dicts must be a dict or a list or tuple of dicts, got int""",
    )
    assert_expected_inline(
        failure(ValueError, ({}, [])),
        """functional_call: parameter_and_buffer_dicts must be a dict or a list or tuple of dicts, got a tuple of (dict, list)""",
    )
    assert_expected_inline(
        failure(TypeError, {"0.bias": 3}),
        """functional_call: the value for '0.bias' must be a tensor, got int""",
    )
    assert_expected_inline(
        failure(AttributeError, {"1.bias": bias}),
        """functional_call: '1.bias': Sequential has no submodule '1'""",
    )
    assert_expected_inline(
        failure(AttributeError, {"0.weight.bias": bias}),
        """functional_call: '0.weight.bias': Linear has no submodule 'weight'""",
    )
    assert_expected_inline(
        failure(TypeError, {"0.in_features": bias}),
        """functional_call: '0.in_features' is not a tensor of Linear that can be replaced""",
    )
    assert_expected_inline(
        failure(TypeError, {"0": bias}),
        """functional_call: '0' is not a tensor of Sequential that can be replaced""",
    )
    assert_expected_inline(
        failure(KeyError, {"0.": bias}),
        """\"functional_call: the name '0.' is empty or ends in a dot\"""",
    )
    assert_expected_inline(
        failure(TypeError, {}, module=torch.sin),
        """functional_call: expected a torch.nn.Module, got builtin_function_or_method""",
    )
    assert_expected_inline(
        failure(RuntimeError, {}, module=torch.jit.script(nn.Linear(3, 2))),
        """functional_call: a RecursiveScriptModule cannot be called with other parameters; pass the plain module that it was made from""",
    )
    assert_expected_inline(
        failure(RuntimeError, {}, module=nn.DataParallel(nn.Linear(3, 2))),
        """functional_call: a DataParallel cannot be called with other parameters; pass the plain module that it was made from""",
    )
    assert_expected_inline(
        failure(TypeError, {1: bias}),
        """functional_call: names must be strings, got int""",
    )


def test_a_property_is_not_replaced():
    class Squared(nn.Linear):
        @property
        def squared(self):
            return self.weight**2

    assert_expected_inline(
        message(
            TypeError,
            lambda: functional_call(Squared(3, 3), {"squared": torch.ones(3, 3)}, torch.ones(3)),
        ),
        """functional_call: 'squared' is not a tensor of Squared that can be replaced""",
    )


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
        failure(), """stack_module_state: expected at least one model, got none"""
    )
    assert_expected_inline(
        failure(nn.Linear(2, 2), nn.Linear(2, 2), nn.Conv1d(2, 2, 1)),
        """stack_module_state: expected models of one class, but model 0 is a Linear and model 2 is a Conv1d""",
    )
    assert_expected_inline(
        failure(nn.Linear(2, 2), nn.Linear(2, 2).eval()),
        """stack_module_state: expected models all in training mode or all in evaluation mode, but model 0 has training=True and model 1 has training=False""",
    )
    assert_expected_inline(
        failure(nn.Linear(2, 2), nn.Linear(2, 2, bias=False)),
        """stack_module_state: expected models with the same parameters and buffers, but 'bias' is not in both model 0 and model 1""",
    )
    assert_expected_inline(
        failure(nn.Linear(2, 2), nn.Linear(3, 2)),
        """stack_module_state: expected 'weight' to have the same shape in all models, but it is (2, 2) in model 0 and (2, 3) in model 1""",
    )
    assert_expected_inline(
        failure(nn.Linear(2, 2), frozen),
        """stack_module_state: expected 'bias' to have the same requires_grad in all models, but it is True in model 0 and False in model 1""",
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
