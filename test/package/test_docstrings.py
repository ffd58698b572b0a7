"""The examples in the docstrings of public functions run and print what they say."""

import doctest
import operator

import pytest
import torch

import functorch_ext

PUBLIC = [name for name in functorch_ext.__all__ if name != "FallbackWarning"]
DEBUG = [f"debug.{name}" for name in functorch_ext.debug.__all__]


@pytest.mark.parametrize("name", PUBLIC + DEBUG)
def test_the_example_prints_what_it_says(name):
    names = {"torch": torch, "functorch_ext": functorch_ext}
    names |= {each: getattr(functorch_ext, each) for each in PUBLIC}
    (example,) = doctest.DocTestFinder(recurse=False).find(
        operator.attrgetter(name)(functorch_ext), name, globs=names
    )
    assert example.examples, f"{name} has no example"
    torch.manual_seed(0)
    report: list[str] = []
    doctest.DocTestRunner(verbose=False).run(example, out=report.append)
    assert not report, "".join(report)
