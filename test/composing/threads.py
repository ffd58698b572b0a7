"""Threads and processes that run transforms at the same time."""

import concurrent.futures
import multiprocessing
import os
import threading

import torch
from torch.utils.data import DataLoader, Dataset

from test.composing.outcome import transforms
from test.composing.rows import row, sample, total

FEATURE = "Threads and processes"
XS = sample(4, 3)


def body(x):
    return (x.sin() * x).exp().cumsum(-1) @ x


TRANSFORMS = (
    lambda F: F.vmap(body)(XS),
    lambda F: F.grad(body)(XS[0]),
    lambda F: F.vmap(F.grad(body))(XS),
    lambda F: F.grad(total(F.vmap(body)))(XS),
    lambda F: F.jvp(body, (XS[0],), (XS[1],)),
    lambda F: F.vmap(lambda x: F.jvp(body, (x,), (XS[1],)))(XS),
    lambda F: F.hessian(body)(XS[0]),
    lambda F: F.vmap(F.jacfwd(lambda x: x.sin() * x.sum()))(XS),
)


def at_once(threads, rounds):
    """Every thread runs another transform, all start together, and each repeats its own."""

    def compute(F):
        start = threading.Barrier(threads)

        def work(i):
            start.wait()
            results = [TRANSFORMS[i % len(TRANSFORMS)](F) for _ in range(rounds)]
            return results[0], all(torch.allclose(real(r), real(results[0])) for r in results)

        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            return list(pool.map(work, range(threads)))

    def real(result):
        return torch.cat([x.flatten() for x in result]) if isinstance(result, tuple) else result

    return compute


def with_two_kernel_threads(F):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        big = sample(64, 4096)
        return at_once(8, 2)(F), F.vmap(F.grad(lambda x: (x.sin() * x).sum()))(big)
    finally:
        torch.set_num_threads(before)


def thread_inside(F):
    """A thread that is started inside a vmap sees plain tensors as plain, and transforms its own."""

    def func(x):
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            other = pool.submit(lambda: F.vmap(F.grad(body))(XS).sum()).result()
        return x * other

    return F.vmap(func)(XS)


def pullback_elsewhere(F):
    """A pullback is called by another thread than the one that made it."""
    output, pullback = F.vjp(lambda x: x.sin() * x, XS[0])
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return output, pool.submit(pullback, XS[1]).result()


def backward_elsewhere(F):
    w = sample(3, seed=3).requires_grad_()
    loss = F.vmap(F.grad(lambda x: (x * w).sin().sum()))(XS).square().sum()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(loss.backward).result()
    return w.grad


class Gradients(Dataset):
    """Computes with transforms in the workers of a DataLoader."""

    def __init__(self, side):
        self.side = side

    def __len__(self):
        return 4

    def __getitem__(self, i):
        F = transforms(self.side)
        return F.vmap(F.grad(body))(XS + i)


def side_of(F):
    return F.__name__


def loader(context):
    def compute(F):
        batches = DataLoader(
            Gradients(side_of(F)), batch_size=2, num_workers=2, multiprocessing_context=context
        )
        return torch.cat(list(batches))

    return compute


def loader_by_hand():
    data = Gradients("test.composing.reference")
    return torch.stack([data[i] for i in range(4)])


def in_a_fork(F):
    """A fork of a process that has used transforms, and forks inside of one."""
    F.vmap(F.grad(body))(XS)
    reader, writer = multiprocessing.Pipe(duplex=False)

    def child():
        writer.send(F.vmap(F.grad(body))(XS).tolist())
        writer.close()
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    result = torch.tensor(reader.recv(), dtype=torch.float64) if reader.poll(60) else None
    process.join(60)
    return result


ROWS = [
    row(FEATURE, "8 threads, each another transform", "", at_once(8, 4)),
    row(FEATURE, "8 threads, and 2 threads in each operator", "", with_two_kernel_threads),
    row(FEATURE, "a thread started inside vmap", "", thread_inside),
    row(FEATURE, "a pullback called in another thread", "", pullback_elsewhere),
    row(FEATURE, "backward() in another thread", "", backward_elsewhere),
    row(FEATURE, "fork", "", in_a_fork),
    row(FEATURE, "DataLoader workers, fork", "", loader("fork"), loader_by_hand),
    row(FEATURE, "DataLoader workers, spawn", "", loader("spawn"), loader_by_hand, slow=True),
]
