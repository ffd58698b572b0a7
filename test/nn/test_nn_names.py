"""functional_call: which names it takes, and what it says of others."""

import pytest
import torch
from expecttest import assert_expected_inline
from torch import nn
from torch.nn.utils import parametrize

from functorch_ext import functional_call
from test.nn.modules import Scale, Symmetric, Tied, loaded, message, random_state, tensors_of

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
        """functorch_ext.functional_call: different values for 'linear.weight', 'weight', which are names of one tensor in the module; give one value, or pass tie_weights=False""",
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
        """functorch_ext.functional_call: with strict=True the names must be those of the parameters and buffers of Scale. Missing key(s): 'count', 'last', 'scale'""",
    )
    state = {**random_state(module), "offset": torch.ones(3), "a.b": torch.ones(3)}
    assert_expected_inline(
        message(RuntimeError, lambda: functional_call(module, state, x, strict=True)),
        """functorch_ext.functional_call: with strict=True the names must be those of the parameters and buffers of Scale. Unexpected key(s): 'a.b', 'offset'""",
    )
    del state["count"]
    assert_expected_inline(
        message(RuntimeError, lambda: functional_call(module, state, x, strict=True)),
        """functorch_ext.functional_call: with strict=True the names must be those of the parameters and buffers of Scale. Unexpected key(s): 'a.b', 'offset'. Missing key(s): 'count'""",
    )
    assert_expected_inline(
        message(
            RuntimeError,
            lambda: functional_call(
                Tied(), {"weight": torch.ones(3, 3)}, x, tie_weights=False, strict=True
            ),
        ),
        """functorch_ext.functional_call: with strict=True the names must be those of the parameters and buffers of Tied. Missing key(s): 'linear.weight'""",
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
        """functorch_ext.functional_call: '0.bias' appeared in multiple dictionaries; give each value once""",
    )
    assert_expected_inline(
        failure(ValueError, 3),
        """functorch_ext.functional_call: Expected parameter_and_buffer_dicts to be a dict, or a list/tuple of dicts, but got int""",
    )
    assert_expected_inline(
        failure(ValueError, nn.Linear(2, 2).named_parameters()),
        """functorch_ext.functional_call: Expected parameter_and_buffer_dicts to be a dict, or a list/tuple of dicts, but got generator. Write dict(module.named_parameters())""",
    )
    assert_expected_inline(
        failure(ValueError, ({}, [])),
        """functorch_ext.functional_call: Expected all elements of parameter_and_buffer_dicts to be dictionaries, but got a tuple of (dict, list)""",
    )
    assert_expected_inline(
        failure(TypeError, {"0.bias": 3}),
        """functorch_ext.functional_call: the value for '0.bias' must be a tensor, got int""",
    )
    assert_expected_inline(
        failure(AttributeError, {"1.bias": bias}),
        """functorch_ext.functional_call: '1.bias': Sequential has no submodule '1'""",
    )
    assert_expected_inline(
        failure(AttributeError, {"0.weight.bias": bias}),
        """functorch_ext.functional_call: '0.weight.bias': Linear has no submodule 'weight'""",
    )
    assert_expected_inline(
        failure(TypeError, {"0.in_features": bias}),
        """functorch_ext.functional_call: '0.in_features' is not a tensor of Linear that can be replaced""",
    )
    assert_expected_inline(
        failure(TypeError, {"0": bias}),
        """functorch_ext.functional_call: '0' is not a tensor of Sequential that can be replaced""",
    )
    assert_expected_inline(
        failure(KeyError, {"0.": bias}),
        """\"functorch_ext.functional_call: the name '0.' is empty or ends in a dot\"""",
    )
    assert_expected_inline(
        failure(TypeError, {}, module=torch.sin),
        """functorch_ext.functional_call: expected a torch.nn.Module, got builtin_function_or_method""",
    )
    assert_expected_inline(
        failure(RuntimeError, {}, module=torch.jit.script(nn.Linear(3, 2))),
        """functorch_ext.functional_call: a RecursiveScriptModule cannot be called with other parameters; pass the plain module that it was made from""",
    )
    assert_expected_inline(
        failure(RuntimeError, {}, module=nn.DataParallel(nn.Linear(3, 2))),
        """functorch_ext.functional_call: a DataParallel cannot be called with other parameters; pass the plain module that it was made from""",
    )
    assert_expected_inline(
        failure(TypeError, {1: bias}),
        """functorch_ext.functional_call: names must be strings, got int""",
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
        """functorch_ext.functional_call: 'squared' is not a tensor of Squared that can be replaced""",
    )
