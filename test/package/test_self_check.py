"""An unknown release of PyTorch: the import says by name what has changed since the last known."""

import json
import warnings

import pytest
import torch

from functorch_ext import _releases
from functorch_ext._releases import self_check
from test.releases import only

EXPECTED = json.loads(self_check._EXPECTED.read_text())


@only((2, 13), "what is recorded is of that release")
def test_what_is_recorded_is_current():
    """Functions are replaced by now: only operators can be compared here."""
    missing, changed = self_check.differences({**EXPECTED, "functions": {}})
    assert not missing and not changed
    missing, _ = self_check.differences({**EXPECTED, "operators": {}})
    assert not missing


def expect(monkeypatch, tmp_path, functions=None, operators=None):
    path = tmp_path / "expected.json"
    expected = {"torch": "2.13.0", "functions": functions or {}, "operators": operators or {}}
    path.write_text(json.dumps(expected))
    monkeypatch.setattr(self_check, "_EXPECTED", path)
    monkeypatch.setattr(_releases, "RELEASE", (3, 7))


def test_a_function_that_is_gone(monkeypatch, tmp_path):
    expect(monkeypatch, tmp_path, functions={"torch.autograd.graph:_run_the_engine": "outputs"})
    with pytest.raises(ImportError, match="no longer there: torch.autograd.graph._run_the_engine"):
        _releases.check_release()


def test_a_class_that_is_gone(monkeypatch, tmp_path):
    expect(monkeypatch, tmp_path, functions={"torch.utils.hooks:ForwardHook.apply": "self"})
    with pytest.raises(ImportError, match="no longer there: torch.utils.hooks.ForwardHook.apply"):
        _releases.check_release()


def test_other_parameters_and_schemas(monkeypatch, tmp_path):
    functions = {"torch.autograd:backward": "tensors, weights"}
    expect(monkeypatch, tmp_path, functions, {"aten::mv": "12345678", "aten::vm": "12345678"})
    with pytest.warns(UserWarning, match="since: torch.autograd.backward, aten::mv, aten::vm"):
        _releases.check_release()


def test_nothing_changed(monkeypatch, tmp_path):
    operators = {"aten::mv": EXPECTED["operators"]["aten::mv"]}
    expect(monkeypatch, tmp_path, {"torch.no_such_module:function": "x"}, operators)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if torch.__version__.startswith("2.13"):
            _releases.check_release()


def test_a_known_release_is_not_looked_at(monkeypatch, tmp_path):
    expect(monkeypatch, tmp_path, functions={"torch.autograd.graph:_run_the_engine": "outputs"})
    monkeypatch.setattr(_releases, "RELEASE", _releases.KNOWN[0])
    _releases.check_release()
