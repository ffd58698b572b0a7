"""Drop-in: the signatures are torch.func's, and whatever we add is keyword-only."""

import inspect

import pytest
import torch.func

import functorch_ext

ADDITIONS = {
    "vmap": {"kwarg_dims", "axis_size", "axis_name", "progress"},
    "debug_unwrap": set(),
    "grad": {"argnames"},
    "grad_and_value": {"argnames"},
    "vjp": set(),
    "jvp": set(),
    "linearize": set(),
    "jacrev": {"argnames", "progress"},
    "jacfwd": {"chunk_size", "argnames", "progress"},
    "hessian": {"has_aux", "chunk_size", "argnames", "with_grad_and_value", "progress"},
    "functionalize": set(),
    "functional_call": set(),
    "stack_module_state": set(),
    "replace_all_batch_norm_modules_": set(),
}
REQUIRED_ADDITIONS = {"vmap": {"kwarg_dims", "axis_size"}, "hessian": {"has_aux", "chunk_size"}}


def parameters(function):
    """The public parameters; a leading underscore is not part of torch.func's interface."""
    found = inspect.signature(function).parameters.values()
    return {p.name: p for p in found if not p.name.startswith("_")}


@pytest.mark.parametrize("name", ADDITIONS)
def test_signature_is_torch_funcs(name):
    ours = parameters(getattr(functorch_ext, name))
    theirs = parameters(getattr(torch.func, name))
    shared = [(p.name, p.kind, p.default) for p in ours.values() if p.name in theirs]
    assert shared == [(p.name, p.kind, p.default) for p in theirs.values()]


@pytest.mark.parametrize("name", ADDITIONS)
def test_additions_are_keyword_only(name):
    ours = parameters(getattr(functorch_ext, name))
    added = ours.keys() - parameters(getattr(torch.func, name)).keys()
    assert added <= ADDITIONS[name]
    assert added >= REQUIRED_ADDITIONS.get(name, set())
    for parameter in added:
        assert ours[parameter].kind is inspect.Parameter.KEYWORD_ONLY
        assert ours[parameter].default is not inspect.Parameter.empty


@pytest.mark.parametrize("name", ADDITIONS)
def test_is_public_and_documented(name):
    assert name in functorch_ext.__all__
    assert len(inspect.getdoc(getattr(functorch_ext, name))) > 200


def test_all_is_complete():
    assert set(functorch_ext.__all__) >= ADDITIONS.keys()
    assert issubclass(functorch_ext.FallbackWarning, Warning)
