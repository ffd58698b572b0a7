"""Rows that functorch_ext doesn't answer rightly: with an error on purpose, or not yet.

Both map a regular expression for row ids, "feature | name | way", to one for what comes instead:
the message, or "WRONG" for wrong numbers. The tests are strict: a row in here must behave so.
"""

import re

ON_PURPOSE = {
    # What is computed from shared tensors alone is computed by PyTorch without us, which costs
    # nothing; so nothing tells that it was made inside. A clone of it is.
    r"In-place writes.*\| arithmetic on a shared tensor: add_ \|.*": "would write in.place",
    # The input is what the derivative is by: neither torch.func nor a plain leaf takes it.
    r".*an in-place write to the input \| .*(grad|vjp|jacrev).*": "a leaf Variable that requires grad",
    # A buffer that all samples share can't take each sample's statistics.
    r".*spectral_norm, training \| vmap over parameters": "would write in.place",
    # Its hooks put the module's own parameters in place of the given ones.
    r"DDP.*fully_shard \| .*functional_call.*": "FSDPModule",
    # It asks whether the tensor requires grad, which it does outside of the vmap, and leaves it at
    # that: so nothing is recorded inside by which to differentiate.
    r".*torch.autograd.grad by an intermediate \| grad\(vmap\)": "requires grad outside of the vmap only",
    # PyTorch has no forward derivative of it.
    r".*spectral_norm, training \| jvp by parameters": "forward AD with div_out",
}

NOT_YET = {}
KNOWN = ON_PURPOSE | NOT_YET


def expected_error(row):
    """What comes of a row instead of the right result, or None if it has to be right."""
    for pattern, words in KNOWN.items():
        if re.fullmatch(pattern, row.id):
            return words
    return None
