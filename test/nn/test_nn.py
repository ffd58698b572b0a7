"""functional_call: values, buffers, exceptions and nesting.

Compared with calls of plain modules, and with torch.func's as a second oracle.
"""

import copy
from types import MappingProxyType

import pytest
import torch
from torch import nn

from functorch_ext import functional_call
from test.nn.modules import Raises, Scale, loaded, network, random_state, tensors_of

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
    for args, kwargs in (
        ((x,), {"power": 2}),
        (x, {"power": 2}),
        (None, {"x": x, "power": 2}),
        ((x,), MappingProxyType({"power": 2})),
    ):
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
