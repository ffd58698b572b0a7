"""torch.func's transforms inside ours and around them: right, or refused; never a crash."""

import pytest
import torch
import torch.func as theirs

import functorch_ext as ours
from test.oracle import assert_close, rand
from test.state import assert_clean_state

X = rand(3, 2)


def func(x):
    y = x.clone()
    y.mul_(2)
    return y.sin() * x


def transforms(package):
    total = lambda f: lambda x: f(x).sum()
    return {
        "vmap": package.vmap,
        "grad": lambda f: package.grad(total(f)),
        "jvp": lambda f: lambda x: package.jvp(f, (x,), (x,))[1],
        "jacrev": package.jacrev,
        "jacfwd": package.jacfwd,
        "functionalize": package.functionalize,
        "jvp(jvp)": lambda f: (
            lambda x: package.jvp(lambda x: package.jvp(f, (x,), (x,))[1], (x,), (x,))[1]
        ),
    }


OURS, THEIRS = transforms(ours), transforms(theirs)
REFUSED = r"torch\.func|Nested forward mode AD is not supported"


@pytest.mark.parametrize("outer", OURS)
@pytest.mark.parametrize("inner", OURS)
@pytest.mark.parametrize(("around", "inside"), [(OURS, THEIRS), (THEIRS, OURS)])
def test_nesting(around, inside, outer, inner):
    try:
        result = around[outer](inside[inner](func))(X)
    except RuntimeError as error:
        message = str(error)
        error.with_traceback(None)
    else:
        assert_close(result, OURS[outer](OURS[inner](func))(X))
        message = None
    assert_clean_state()
    if message is not None:
        with pytest.raises(RuntimeError, match=REFUSED):
            raise RuntimeError(message)


def test_their_transforms_still_compile():
    compiled = torch.compile(theirs.vmap(theirs.grad(lambda x: x.sin().sum())), backend="eager")
    assert_close(compiled(X), X.cos())
