"""Writes docs/distributions.md: torch.distributions inside vmap, beside torch.func::

PYTHONPATH=. python docs/list_distributions.py
"""

import warnings
from pathlib import Path

import torch
import torch.func

import functorch_ext
from test.vmap.distribution_checks import CHECKS, applies
from test.vmap.distributions import CASES

PAGE = Path(__file__).parent / "distributions.md"

HEADER = """# Distributions

`torch.distributions` inside `vmap`, with functorch_ext and with torch.func ({version}): made of the
parameters of a sample, or shared. Written by `python docs/list_distributions.py`, which compares
with loops over samples; `test/vmap/test_distributions.py` holds functorch_ext to them.

- *Draws, "different"*: `sample` gives each sample draws of its own.
- *Draws, "same"*: `sample` gives what a loop gives that starts from one state of the generator each
  time, though the parameters differ.
- *Gradients of draws*: `vmap(grad)` and `grad(vmap)` through `rsample`.
- *Functions*: `log_prob`, `entropy`, `cdf`, `icdf`, `mean`, `variance`, `mode`, `support`,
  `enumerate_support`, `expand`, `kl_divergence`, and their gradients, as far as PyTorch has them.

**right**, or *in a loop*: right, but an operator ran sample by sample. Under `"error"`, the
default, each draw raises. `mode` of beta and Dirichlet distributions and `variance` of Student's t
select by masks: they raise where samples differ in how many numbers those select. Where an operator
draws after another (`LKJCholesky`, `NegativeBinomial`, `Wishart`) each starts from one state under
`"same"`.

| | functorch_ext | torch.func |
| --- | ---: | ---: |
"""

PACKAGES = {"functorch_ext": functorch_ext, "torch.func": torch.func}


def outcome(check, name, package):
    if not applies(check, name):
        return ""
    torch.manual_seed(0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            check(name, package.vmap, package.grad)
        except AssertionError:
            return "**wrong**"
        except (RuntimeError, ValueError, NotImplementedError):
            return "raises"
    in_loop = any(
        issubclass(each.category, functorch_ext.FallbackWarning)
        or "performance drop" in str(each.message)
        for each in caught
    )
    return "*in a loop*" if in_loop else "right"


def page():
    found = {
        (name, title, package): outcome(check, name, module)
        for name in CASES
        for title, check in CHECKS.items()
        for package, module in PACKAGES.items()
    }
    lines = [HEADER.format(version=torch.__version__.partition("+")[0]).rstrip()]
    for title in CHECKS:
        counts = []
        for package in PACKAGES:
            cells = [found[name, title, package] for name in CASES if found[name, title, package]]
            right = sum(cell in ("right", "*in a loop*") for cell in cells)
            counts.append(f"{right} of {len(cells)}")
        lines.append(f"| {title} | {' | '.join(counts)} |")
    for package in PACKAGES:
        lines += ["", f"## {package}", ""]
        lines += [f"| | {' | '.join(CHECKS)} |", "| --- |" + " --- |" * len(CHECKS)]
        for name in CASES:
            cells = " | ".join(found[name, title, package] for title in CHECKS)
            lines.append(f"| {name} | {cells} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
