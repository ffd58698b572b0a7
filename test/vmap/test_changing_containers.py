"""Containers that change while a transform reads them: by a finalizer, or by their keys.

Another thread may do the same, wherever a finalizer lets it run.
"""

import gc

import pytest
import torch

from functorch_ext import grad, jvp, vmap
from test.oracle import rand


def total(values):
    return sum((value * value).sum() for value in values)


class Clearing:
    """Garbage whose finalizer changes a list."""

    def __init__(self, values):
        self.values = values
        self.itself = self

    def __del__(self):
        self.values.clear()
        self.values.extend([1, 2])


@pytest.fixture
def collections():
    """Gives a function that has garbage collected after so many allocations from now on."""
    threshold = gc.get_threshold()

    def collect_after(allocations):
        gc.set_threshold(allocations, 1000, 1000)
        gc.enable()

    gc.collect()
    gc.freeze()  # so that a collection takes no time
    gc.disable()
    yield collect_after
    gc.unfreeze()
    gc.set_threshold(*threshold)
    gc.enable()


def returned(values):
    def function(x):
        values[:] = [x * i for i in range(8)]
        return values

    return vmap(function)(rand(3, 4))


CALLS = {
    "vmap": vmap(lambda values: torch.zeros(4)),
    "vmap over 1": vmap(lambda values: torch.zeros(4), 1),
    "grad": grad(total),
    "jvp": lambda values: jvp(total, (values,), (list(values),)),
    "returned": returned,
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_finalizers(call, collections):
    for allocations in range(1, 40):
        values = [rand(3, 4) for _ in range(8)]
        gc.disable()
        gc.collect()
        Clearing(values)
        collections(allocations)
        try:
            call(values)
        except (RuntimeError, ValueError) as error:
            assert "functorch_ext" in str(error)  # noqa: PT017  (not each raises)
        gc.disable()


class Key:
    """Clears the dict that it is in as soon as it is compared."""

    def __init__(self, owner):
        self.owner = owner

    def __hash__(self):
        return 1

    def __eq__(self, other):
        if self.owner["armed"]:
            self.owner["values"].clear()
            gc.collect()
        return self is other


@pytest.mark.parametrize("call", [vmap(lambda values: torch.zeros(4)), grad(total)])
def test_keys(call):
    owner = {"armed": False, "values": {}}
    owner["values"].update({Key(owner): rand(3, 4) for _ in range(3)})
    owner["armed"] = True
    with pytest.raises(RuntimeError, match="was changed while a transform was reading it"):
        call(owner["values"])


def test_keys_that_cant_be_compared():
    class Raising:
        armed = False

        def __hash__(self):
            return 1

        def __eq__(self, other):
            if Raising.armed:
                raise ValueError("no key is like this")
            return False

    primals, tangents = ({Raising(): rand(3), Raising(): rand(3)} for _ in range(2))
    Raising.armed = True
    with pytest.raises(ValueError, match="no key is like this"):
        jvp(lambda values: total(values.values()), (primals,), (tangents,))
