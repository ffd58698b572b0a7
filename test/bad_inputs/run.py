"""Runs cases in worker processes and collects the verdicts."""

import concurrent.futures
import json
import os
import subprocess
import sys
import threading

from test.bad_inputs.judge import CRASH, HANG, PLAIN_CRASH, Case, Verdict
from test.opinfo.samples import OPERATORS

PATIENCE = 120  # seconds for a case
# Kernels that write beyond their memory crash later, and elsewhere, unless the heap is checked.
CHECKED_HEAP = {"LD_PRELOAD": "libc_malloc_debug.so.0", "MALLOC_CHECK_": "3"}


class Worker:
    """A process that judges one case after the other."""

    def __init__(self, *options, environment=None):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "test.bad_inputs.worker", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
            env={**os.environ, **(environment or {})},
        )

        self.process.stdout.readline()  # it is ready: importing takes long on a busy machine

    def stop(self):
        self.process.kill()
        self.process.communicate()

    def judge(self, case):
        """The verdict, or how the process ended."""
        hung = threading.Event()

        def give_up():
            hung.set()
            self.process.kill()

        timer = threading.Timer(PATIENCE, give_up)
        timer.start()
        transform = ""
        try:
            self.process.stdin.write(json.dumps(case) + "\n")
            for line in self.process.stdout:
                if line.startswith("["):
                    return Verdict(*json.loads(line))
                transform = line.strip()
        except BrokenPipeError:
            pass
        finally:
            timer.cancel()
        outcome = HANG if hung.is_set() else CRASH
        return Verdict(outcome, str(case), transform, ours=f"exit status {self.process.wait()}")


def crashes_plain(case):
    """Does plain PyTorch crash, too, or corrupt the heap?"""
    worker = Worker("--plain", environment=CHECKED_HEAP)
    try:
        return worker.judge(case).outcome == CRASH
    finally:
        worker.stop()


def judge_all(cases):
    worker = Worker()
    found = []
    for case in cases:
        verdict = worker.judge(case)
        if verdict.outcome in (CRASH, HANG):
            worker.stop()
            worker = Worker()
            if verdict.outcome == CRASH and crashes_plain(case):
                verdict = verdict._replace(outcome=PLAIN_CRASH)
        found.append(verdict)
    worker.stop()
    return found


def spread(count, first=0, part=""):
    """`count` cases, spread evenly over the operators."""
    names = [name for name in OPERATORS if part in name]
    return [Case(name, first + i) for i in range(-(-count // len(names))) for name in names][:count]


def sweep(cases, jobs=1):
    """The verdicts. Cases of one operator go to one worker, which then draws its samples once."""
    shares = [[] for _ in range(jobs)]
    positions = {name: i for i, name in enumerate(OPERATORS)}
    for case in sorted(cases, key=lambda case: positions[case.name]):
        shares[positions[case.name] % jobs].append(case)
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        return [verdict for found in pool.map(judge_all, shares) for verdict in found]
