"""Errors of wrong calls have torch.func's type, and the words by which its clients know them."""

import pytest
import torch

import functorch_ext
from test.errors.bad_calls import CALLS


@pytest.mark.parametrize(("phrase", "call"), [c[1:] for c in CALLS], ids=[c[0] for c in CALLS])
@pytest.mark.filterwarnings("ignore")
def test_as_torch_func(phrase, call):
    with pytest.raises(Exception, match="") as theirs:
        call(torch.func)
    assert phrase in str(theirs.value)
    with pytest.raises(type(theirs.value)) as ours:
        call(functorch_ext)
    assert type(ours.value) is type(theirs.value)
    assert phrase in str(ours.value)
    assert str(ours.value) != str(theirs.value)
