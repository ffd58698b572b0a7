"""What ours and torch.func answer to the same programs, for the tables of pages."""

import importlib
import json
import subprocess
import sys


def answers_of(script, name):
    """The answers of the package with a name: from a process that imports no other."""
    command = [sys.executable, "-W", "ignore", script, name]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def filled(page, start, rows, end):
    """The text of the page with these rows between two marks."""
    before, rest = page.read_text().split(start)
    return before + start + "".join(rows) + end + rest.split(end)[1]


def main(script_page, answers, page):
    """Prints the answers of the package that the command line names, or writes the page."""
    if len(sys.argv) > 1:
        print(json.dumps(answers(importlib.import_module(sys.argv[1]))))
    else:
        script_page.write_text(page())
