"""Errors inside transforms have a note: the transforms, the operator, the user's line."""

import copy
import pickle
import threading
import traceback

import pytest
import torch

import functorch_ext
from functorch_ext import functionalize, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from test.oracle import rand


def note_of(function, *args, kind=Exception):
    with pytest.raises(kind) as caught:
        function(*args)
    notes = getattr(caught.value, "__notes__", [])
    assert len(notes) <= 1
    return notes[0] if notes else None


def bad_product(x):
    return (x @ torch.ones(7, dtype=x.dtype)).sum()


def fails(x):
    raise ValueError("mine")


def test_the_note_says_it_all():
    note = note_of(vmap(grad(bad_product)), rand(8, 3), kind=RuntimeError)
    head, place = note.split("\n")
    assert head.startswith("functorch_ext: raised inside vmap(level 1, 8 samples) > grad")
    assert "aten::" in head
    assert place.startswith("  at ") and "test_notes.py:" in place
    assert place.endswith(", in bad_product: x @ torch.ones(7, dtype=x.dtype)")


def test_the_exception_is_the_same():
    error = ValueError("mine")

    def f(x):
        raise error

    with pytest.raises(ValueError) as caught:
        vmap(vmap(grad(f)))(rand(2, 3))
    assert caught.value is error and str(error) == "mine"
    text = "".join(traceback.format_exception(error))
    assert text.count("raised inside") == 1
    assert "vmap(level 1, 2 samples) > vmap(level 2, 3 samples) > grad" in text


STACKS = [
    (vmap(fails), "vmap(level 1, 3 samples)"),
    (vmap(fails, chunk_size=2), "vmap(level 1, 2 samples)"),
    (grad(fails), "grad"),
    (functorch_ext.grad_and_value(fails), "grad_and_value"),
    (jacrev(fails), "jacrev"),
    (jacfwd(fails), "jacfwd(level 1, 3 vectors)"),
    (hessian(fails), "hessian(level 1, 3 vectors)"),
    (functionalize(fails), "functionalize(level 1)"),
    (lambda x: vjp(fails, x), "vjp"),
    (lambda x: jvp(fails, (x,), (x,)), "jvp"),
    (lambda x: functorch_ext.linearize(fails, x), "linearize"),
    (lambda x: functorch_ext.hvp(fails)(x, x), "hvp"),
    (vmap(functionalize(grad(fails))), "vmap(level 1, 3 samples) > functionalize(level 2) > grad"),
    (
        vmap(lambda x: jvp(lambda y: jvp(fails, (y,), (y,)), (x,), (x,))),
        "vmap(level 1, 3 samples) > jvp > jvp(level 2)",
    ),
    (torch.func.grad(vmap(fails)), "torch.func.grad > vmap(level 1, 3 samples)"),
    (vmap(torch.func.grad(fails)), "vmap(level 1, 3 samples) > torch.func.grad"),
]


@pytest.mark.parametrize("function, stack", STACKS, ids=[stack for _, stack in STACKS])
def test_each_transform_is_named(function, stack):
    note = note_of(function, rand(3), kind=ValueError)
    assert note.split("\n")[0] == f"functorch_ext: raised inside {stack}"


def test_errors_of_the_transform_itself_outside_of_others_have_none():
    assert note_of(vmap(torch.sin, in_dims=5), rand(3)) is None


def test_errors_in_a_backward_pass():
    class Bad(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            raise ValueError("in backward")

    note = note_of(vmap(grad(lambda x: Bad.apply(x).sum())), rand(8, 3))
    assert "vmap(level 1, 8 samples) > grad" in note
    assert 'raise ValueError("in backward")' in note
    _, pullback = vjp(lambda x: Bad.apply(x), rand(3))
    assert "vjp's pullback" in note_of(pullback, rand(3))


def test_wrong_outputs_are_noted():
    assert "vmap(level 1, 3 samples)" in note_of(vmap(lambda x: 3), rand(3))
    assert "raised inside grad" in note_of(grad(lambda x: x), rand(3))


def test_our_own_errors_are_noted():
    note = note_of(vmap(lambda x: float(x)), rand(3))
    transforms, place, page = note.split("\n")
    assert "in test_our_own_errors_are_noted" not in transforms
    assert place.endswith("float(x)")
    assert page.endswith("#data-dependent-control-flow")


def test_the_note_survives_pickling():
    with pytest.raises(ValueError) as caught:
        vmap(fails)(rand(3))
    revived = pickle.loads(pickle.dumps(caught.value))
    assert revived.__notes__ == caught.value.__notes__
    assert copy.copy(caught.value).__notes__ == caught.value.__notes__


def test_errors_of_linear_algebra():
    note = note_of(vmap(torch.linalg.cholesky), -torch.eye(2).expand(3, 2, 2))
    assert note.startswith("functorch_ext: raised inside vmap(level 1, 3 samples)")


def test_interrupts_have_none():
    def interrupted(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        vmap(interrupted)(rand(3))
    assert not hasattr(caught.value, "__notes__")


def test_an_error_that_is_caught_inside_does_no_harm():
    def f(x):
        try:
            grad(fails)(x)
        except ValueError as error:
            assert "grad" in error.__notes__[0]
        return x.sin()

    assert vmap(f)(rand(3)).shape == (3,)


def test_a_level_in_another_thread():
    found = []

    def f(x):
        def work():
            try:
                grad(fails)(x)
            except ValueError as error:
                found.extend(error.__notes__)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return x

    vmap(f)(rand(8, 3))
    assert found[0].startswith("functorch_ext: raised inside grad")


def test_no_notes_while_dynamo_traces():
    @torch.compile(backend="eager", fullgraph=True)
    def f(x):
        return vmap(torch.sin)(x)

    assert f(rand(3)).shape == (3,)


def test_a_recursion_without_end_is_its_own_error():
    def endless(x):
        return endless(x)

    with pytest.raises(RecursionError):
        vmap(grad(endless))(rand(3))
    assert vmap(torch.sin)(rand(3)).shape == (3,)


def test_what_goes_wrong_in_the_note_hides_nothing(monkeypatch):
    from functorch_ext._inspect import notes

    monkeypatch.setattr(notes, "running_transforms", fails)
    assert note_of(vmap(fails), rand(3), kind=ValueError) is None
