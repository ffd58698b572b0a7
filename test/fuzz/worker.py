"""Judges programs in worker processes, so that a crash costs one program and is known by its seed."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator

from test.fuzz.judge import CRASH, Verdict

COMMAND = [sys.executable, "-W", "ignore", "-m", "test.fuzz"]
LONGEST = 600  # seconds without a verdict; a busy machine may take minutes to start a worker


def serve(first: int, count: int, step: int) -> None:
    """In a worker: a line per program that is begun, and one with its verdict."""
    import torch

    from test.fuzz.generate import generate
    from test.fuzz.judge import judge

    torch.set_num_threads(1)
    for seed in range(first, first + count, step):
        print(json.dumps([seed]), flush=True)
        verdict = judge(generate(seed))
        print(json.dumps([seed, verdict.kind, verdict.message]), flush=True)


def start(first: int, count: int, step: int) -> subprocess.Popen:
    command = [*COMMAND, "--serve", str(first), str(count), str(step)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


def verdicts(seed: int, count: int, jobs: int = 1) -> Iterator[tuple[int, Verdict]]:
    """The verdict on each of the seeds from `seed` on, in no order."""
    workers = [Worker(seed + i, seed + count, jobs) for i in range(min(jobs, count))]
    try:
        while workers:
            readable, _, _ = select.select(workers, [], [], LONGEST)
            for worker in readable or workers:
                found = worker.read(hangs=not readable)
                if found:
                    yield found
                elif worker.finished:
                    workers.remove(worker)
    finally:
        for worker in workers:
            worker.process.kill()


class Worker:
    """Every `step`-th seed up to `end`; started again behind a program that it died of."""

    def __init__(self, first: int, end: int, step: int) -> None:
        self.end, self.step = end, step
        self.finished = False
        self.restart(first)

    def restart(self, first: int) -> None:
        self.running: int | None = None
        self.process = start(first, self.end - first, self.step)

    def fileno(self) -> int:
        return self.process.stdout.fileno()

    def read(self, hangs: bool) -> tuple[int, Verdict] | None:
        if hangs:
            self.process.kill()
        line = self.process.stdout.readline()
        if line.endswith(b"\n"):
            if not line.startswith(b"["):  # something that the program prints
                return None
            seed, *verdict = json.loads(line)
            self.running = None if verdict else seed
            return (seed, Verdict(*verdict)) if verdict else None
        status = self.process.wait()
        died_of = self.running
        if died_of is None:
            if status:
                raise RuntimeError(f"a worker failed with exit status {status}")
            self.finished = True
            return None
        if died_of + self.step < self.end:
            self.restart(died_of + self.step)
        else:
            self.finished = True
        reason = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        return died_of, Verdict(CRASH, "no verdict in time" if hangs else reason)
