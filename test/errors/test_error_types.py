"""Errors of wrong calls have torch.func's type, and the words by which its clients know them."""

import pytest
import torch

import functorch_ext
from test.errors.bad_calls import CALLS


def _one_line(error):
    return " ".join(str(error).split())  # tensordict, once imported, breaks torch.func's lines


@pytest.mark.parametrize(("phrase", "call"), [c[1:] for c in CALLS], ids=[c[0] for c in CALLS])
@pytest.mark.filterwarnings("ignore")
def test_as_torch_func(phrase, call):
    with pytest.raises(Exception, match="") as theirs:
        call(torch.func)
    assert phrase in _one_line(theirs.value)
    with pytest.raises(type(theirs.value)) as ours:
        call(functorch_ext)
    assert type(ours.value) is type(theirs.value)
    assert phrase in _one_line(ours.value)
    assert str(ours.value) != str(theirs.value)
