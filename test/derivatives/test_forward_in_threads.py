"""Forward mode in several threads, which share PyTorch's one dual level."""

import subprocess
import sys

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
