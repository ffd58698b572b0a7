"""Forward mode in several threads, which share PyTorch's one dual level."""

import subprocess
import sys

THREADS = """
import sys, threading, torch
from functorch_ext import hessian, jvp, grad

sys.setswitchinterval(1e-5)
energy = lambda x: x.tanh().square().sum()
right = hessian(energy)(torch.ones(4))


def job():
    x = torch.ones(4)
    for _ in range(400):
        assert torch.allclose(hessian(energy)(x), right)
        jvp(grad(energy), (x,), (x,))


threads = [threading.Thread(target=job, daemon=True) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(100)
print(sum(thread.is_alive() for thread in threads), flush=True)
"""


def test_no_deadlock():
    # In a process of its own: threads that wait for each other couldn't be ended.
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True)
    assert done.stdout.strip() == "0", done.stderr[-2000:]
