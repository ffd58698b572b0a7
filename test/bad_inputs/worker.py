"""Judges cases in a process of its own, so that a crash is seen: python -m test.bad_inputs.worker

Reads cases from stdin, a JSON list [name, number] a line, and answers each with a line: the Verdict
as a JSON list. Before that comes the name of the transform. With --plain, plain PyTorch alone runs.
The first line of all says that it is ready.
"""

import json
import os
import resource
import sys

import torch

from test.bad_inputs.judge import Case, judge, run_plain

MEMORY = 12 << 30  # a wrong size must not take the machine's


def main():
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    torch.set_num_threads(1)
    # Operators may print; nothing but answers goes to the parent.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    print("ready", file=answers)
    for line in sys.stdin:
        case = Case(*json.loads(line))
        if "--plain" in sys.argv:
            found = run_plain(case)
        else:
            found = judge(case, lambda transform: print(transform, file=answers))
        print(json.dumps(found), file=answers)


if __name__ == "__main__":
    main()
