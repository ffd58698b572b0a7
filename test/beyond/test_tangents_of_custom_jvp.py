"""The tangent that the rule of a `custom_jvp` returns must fit the output."""

import pytest
import torch

from functorch_ext import custom_jvp, grad, jacfwd, jvp, vmap

X = torch.ones(3)


def ruled(change):
    @custom_jvp
    def twice(x):
        return x * 2

    twice.defjvp(lambda primals, tangents: (primals[0] * 2, change(tangents[0] * 2)))
    return twice


WRONG = {
    "shape (1, 3) and dtype torch.float32": lambda t: t[None],
    "shape () and dtype torch.float32": lambda t: t.sum(),
    "shape (3,) and dtype torch.float64": lambda t: t.double(),
    "shape (3,) and dtype torch.complex64": lambda t: t + 0j,
    "shape (3,) and dtype torch.int64": lambda t: t.long(),
}


@pytest.mark.parametrize("found", WRONG)
def test_shapes_and_dtypes(found):
    f = ruled(WRONG[found])
    for call in (
        lambda: jvp(f, (X,), (X,)),
        lambda: grad(lambda x: f(x).sum())(X),
        lambda: jacfwd(f)(X),
        lambda: vmap(lambda x: jvp(f, (x,), (x,)))(torch.ones(2, 3)),
    ):
        with pytest.raises(ValueError) as raised:
            call()
        assert str(raised.value).split("\n")[0] == (
            "functorch_ext.custom_jvp: the rule of twice must return a tangent of shape (3,) and "
            f"dtype torch.float32, as the output is, but returned one of {found}."
        )


def test_devices_and_what_is_no_tensor():
    with pytest.raises(ValueError, match="dtype torch.float32 on device cpu, .* on device meta"):
        jvp(ruled(lambda t: t.to("meta")), (X,), (X,))
    with pytest.raises(TypeError, match="but returned a float"):
        jvp(ruled(lambda t: 2.0), (X,), (X,))


def test_integers_have_no_tangent():
    @custom_jvp
    def both(x):
        return x * 2, x.argmax()

    both.defjvp(lambda primals, tangents: (both(*primals), (tangents[0] * 2, None)))
    assert jvp(lambda x: both(x)[0], (X,), (X,))[1].tolist() == [2, 2, 2]
    assert grad(lambda x: both(x)[0].sum())(X).tolist() == [2, 2, 2]
