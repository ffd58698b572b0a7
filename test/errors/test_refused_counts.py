"""Arguments of counting and drawing operators that plain PyTorch refuses for a sample."""

import pytest
import torch

from functorch_ext import vmap

CASES = {
    "histc, bounds": (lambda x: torch.histc(x, 4, 2, -1), torch.rand(3, 5)),
    "histc, dtype": (lambda x: torch.histc(x, 4), torch.ones(3, 5, dtype=torch.int32)),
    "bincount, dtype": (lambda x: torch.bincount(x, minlength=2), torch.ones(3, 5).bool()),
    "multinomial, rank": (lambda x: torch.multinomial(x, 1), torch.rand(3)),
}


@pytest.mark.parametrize("function, samples", CASES.values(), ids=CASES)
def test_refused(function, samples):
    with pytest.raises((RuntimeError, NotImplementedError)):
        function(samples[0])
    with pytest.raises((RuntimeError, NotImplementedError)):
        vmap(function, randomness="different")(samples)
