"""Forward mode in several threads, which share PyTorch's one dual level."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import torch

from functorch_ext import _C, jvp
from test.oracle import assert_close

X = torch.tensor([0.3, -1.2], dtype=torch.float64)

# The level's end frees the tangent that a tensor from inside has, which runs Python code, which lets
# another thread run. That must be able to join and to leave the level.
END_OF_THE_LEVEL = """
import threading, weakref, torch
import torch.autograd.forward_ad as forward_ad
from functorch_ext import jvp

x = torch.ones(2)
kept, freed, joined = [], threading.Event(), threading.Event()


def when_freed():
    freed.set()
    print(joined.wait(60), flush=True)


def func(x):
    kept.append(x.sin())
    weakref.finalize(forward_ad.unpack_dual(kept[0], level=0).tangent, when_freed)
    return x * 2


def other():
    freed.wait()
    jvp(torch.sin, (x,), (x,))
    joined.set()


threading.Thread(target=other, daemon=True).start()
jvp(func, (x,), (x,))
"""


def test_no_deadlock_at_the_end_of_the_level():
    # In a process of its own: threads that wait for each other couldn't be ended.
    command = [sys.executable, "-c", END_OF_THE_LEVEL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "True", done.stderr[-2000:]


def in_thread(function):
    """What the function returns in a thread of its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def levels_inside(levels):
    def func(x):
        levels.append(_C.live_levels())
        return x.sin()

    return func


def test_another_thread_makes_no_level():
    before, levels = _C.live_levels(), []
    _, tangent = in_thread(lambda: jvp(levels_inside(levels), (X,), (X,)))
    assert_close(tangent, X * X.cos())
    assert levels == [before]


def test_nor_does_one_after_the_other():
    before, levels = _C.live_levels(), []
    for _ in range(2):
        in_thread(lambda: jvp(levels_inside(levels), (X,), (X,)))
        jvp(levels_inside(levels), (X,), (X,))
    assert levels == [before] * 4


def test_at_the_same_time():
    both = threading.Barrier(2)

    def run(factor):
        def func(x):
            both.wait(60)
            y = factor * x.sin()
            both.wait(60)
            return y

        return jvp(func, (X,), (X,))[1]

    with ThreadPoolExecutor(2) as pool:
        for factor, tangent in zip((2, 3), pool.map(run, (2, 3))):
            assert_close(tangent, factor * X * X.cos())


def test_what_another_thread_differentiates_is_a_constant():
    """A function that closes over a tensor of another thread's jvp: each has tangents of its own."""
    direction = torch.ones_like(X)

    def outer(x):
        inner = lambda y: x.sin() * y * y
        value, tangent = in_thread(lambda: jvp(inner, (x,), (direction,)))
        return tangent  # 2 x sin(x), differentiated by x too

    value, tangent = jvp(outer, (X,), (direction,))
    assert_close(value, 2 * X * X.sin())
    assert_close(tangent, 2 * X.sin() + 2 * X * X.cos())
