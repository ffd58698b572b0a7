"""Which values `chunk_size` takes, and what is said about the others."""

import re
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from functorch_ext import (
    clipped_grad_sum,
    divergence,
    hessian,
    hessian_diag,
    jacfwd,
    jacrev,
    laplacian,
    per_sample_grad_norms,
    per_sample_grads,
    sparse_hessian,
    sparse_jacobian,
    vmap,
)
from functorch_ext._memory import budget_of

TRANSFORMS = {
    "vmap": lambda size: vmap(torch.sin, chunk_size=size),
    "jacrev": lambda size: jacrev(torch.sin, chunk_size=size),
    "jacfwd": lambda size: jacfwd(torch.sin, chunk_size=size),
    "hessian": lambda size: hessian(torch.sum, chunk_size=size),
    "divergence": lambda size: divergence(torch.sin, chunk_size=size),
    "hessian_diag": lambda size: hessian_diag(torch.sum, chunk_size=size),
    "laplacian": lambda size: laplacian(torch.sum, chunk_size=size),
    "sparse_jacobian": lambda size: sparse_jacobian(torch.sin, chunk_size=size),
    "sparse_hessian": lambda size: sparse_hessian(torch.sum, chunk_size=size),
}
OF_MODELS = {
    "per_sample_grads": per_sample_grads,
    "per_sample_grad_norms": per_sample_grad_norms,
    "clipped_grad_sum": lambda *args, **options: clipped_grad_sum(*args, 1.0, **options),
}
X = torch.randn(7)


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("size", [10**30, 1 << 63, np.int64(3), np.uint8(2), np.array(3)], ids=repr)
def test_integers_of_any_size_and_class(name, size):
    make = TRANSFORMS[name]
    found, expected = make(size)(X), make(None)(X)
    if name.startswith("sparse"):
        found, expected = found.to_dense(), expected.to_dense()
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", OF_MODELS)
@pytest.mark.parametrize("size", [10**30, np.int64(3)], ids=repr)
def test_integers_of_any_size_and_class_for_models(name, size):
    model, batch = nn.Linear(2, 2), (torch.randn(7, 2), torch.ones(7, dtype=torch.long))
    transform = OF_MODELS[name]
    found = transform(model, F.cross_entropy, chunk_size=size)(*batch)
    torch.testing.assert_close(found, transform(model, F.cross_entropy)(*batch))


def test_with_a_bar_too():
    pytest.importorskip("tqdm")
    torch.testing.assert_close(vmap(torch.sin, chunk_size=10**30, progress=True)(X), X.sin())
    for size in (True, 0):
        with pytest.raises(ValueError, match="chunk_size should be None or greater than 0"):
            vmap(torch.sin, chunk_size=size, progress=True)


WRONG = [True, False, 0, -1, np.int64(0), np.bool_(True), 1.0, Fraction(2), torch.tensor(3), [2]]


@pytest.mark.parametrize("name", [*TRANSFORMS, *OF_MODELS])
@pytest.mark.parametrize("size", WRONG, ids=repr)
def test_no_numbers_of_samples(name, size):
    with pytest.raises(ValueError) as raised:
        _make(name, size)
    # Of jacrev and of vmap torch.func says it so.
    wanted = "chunk_size should be None or greater than 0"
    if name == "jacrev":
        wanted = "`chunk_size` should be greater than 0, or None"
    assert str(raised.value) == (
        f"functorch_ext.{name}: {wanted}, but got {size!r}. Give a whole number, or text: 'auto' "
        "or an amount of memory, such as '512 MiB'."
    )


@pytest.mark.parametrize("name", [*TRANSFORMS, *OF_MODELS])
@pytest.mark.parametrize(
    "text",
    ["", "much", "AUTO", "12", "512MB", "12 MB", "1e3 KiB", "-1 MiB", "0 MiB", "0.0 B", "0.5 B"],
)
def test_other_text(name, text):
    message = (
        f"functorch_ext.{name}: chunk_size as text must be 'auto' or an amount of memory, such as "
        "'512 MiB': a number greater than 0 and B, KiB, MiB, GiB or TiB. But got "
        f"{text!r}."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        _make(name, text)


def test_amounts():
    for text, amount in {
        "1 B": 1,
        "1.5 KiB": 1536,
        "512MiB": 2**29,
        "0.25 GiB": 2**28,
        "1 TiB": 2**40,
        "1" + "0" * 400 + " TiB": 10**400 << 40,
    }.items():
        assert budget_of(text)._amount == amount


def _make(name, size):
    if name in TRANSFORMS:
        return TRANSFORMS[name](size)
    return OF_MODELS[name](nn.Linear(2, 2), F.cross_entropy, chunk_size=size)
