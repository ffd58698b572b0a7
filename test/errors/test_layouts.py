"""Tensors that aren't strided hold neither samples, nor tangents, nor the rows of a Jacobian."""

import re

import pytest
import torch

from functorch_ext import jacfwd, jacrev, jvp, vmap
from test.oracle import rand

ENDS, PLACES = torch.arange(4), torch.arange(3)
LAYOUTS = {
    "sparse": lambda x: x.to_sparse(),
    "compressed rows": lambda x: x.to_sparse_csr(),
    "compressed blocks": lambda x: x.to_sparse_bsc((1, 1)),
    "rows": lambda x: torch.sparse_csr_tensor(ENDS, PLACES, x[0], (3, 3)),
    "mkldnn": lambda x: x.float().to_mkldnn(),
    "nested": lambda x: torch.nested.as_nested_tensor([x[0], x[1]]),
}
INTERNAL = "Could not run|INTERNAL|storage|holding the GIL|report"


@pytest.mark.filterwarnings("ignore:Sparse .* support is in beta")
@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.filterwarnings("ignore::functorch_ext.FallbackWarning")
@pytest.mark.parametrize("name", LAYOUTS)
def test_the_message_speaks_of_the_layout(name):
    function = LAYOUTS[name]
    x = rand(3, 3)
    for call in (
        lambda: jvp(function, (x,), (x,)),
        lambda: jvp(lambda x: function(x).to_dense(), (x,), (x,)),
        lambda: jacfwd(function)(x),
        lambda: jacrev(function)(x),
        lambda: vmap(function)(x[None]),
    ):
        with pytest.raises((RuntimeError, NotImplementedError)) as caught:
            call()
        assert not re.search(INTERNAL, str(caught.value)), caught.value
        assert "strided" in str(caught.value) or "sparse" in str(caught.value), caught.value
