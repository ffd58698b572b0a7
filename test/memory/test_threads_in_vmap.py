"""Threads that write to one tensor made inside vmap."""

import threading

import pytest
import torch

from functorch_ext import vmap
from test.oracle import assert_close, rand


def run(count, work):
    errors = []

    def guarded(index):
        try:
            work(index)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def rows(out, x):
    run(16, lambda index: out[index].copy_(x * index))


def rows_by_item(out, x):
    def write(index):
        out[index] = x * index

    run(16, write)


def through_kept_views(out, x):
    views = out.unbind()
    run(16, lambda index: views[index].add_(x * index))


def constants_too(out, x):
    def write(index):
        if index % 2:
            out[index] = x * index
        else:
            out[index].fill_(float(index))
            out[index].sub_(float(index))
            out[index].add_(x * index)

    run(16, write)


def reading_others(out, x):
    done = torch.zeros(3, dtype=x.dtype)

    def write(index):
        out[index] = x * index + done * 2
        _ = out[index - 1] + out.shape[0]

    run(16, write)


@pytest.mark.parametrize(
    "write", [rows, rows_by_item, through_kept_views, constants_too, reading_others]
)
@pytest.mark.parametrize("nested", [False, True])
def test_rows(write, nested):
    def function(x):
        out = torch.zeros(16, 3, dtype=x.dtype)
        write(out, x)
        return out

    x = rand(2, 4, 3) if nested else rand(4, 3)
    expected = x.unsqueeze(-2) * torch.arange(16, dtype=x.dtype).unsqueeze(1)
    for _ in range(20):
        transform = vmap(vmap(function)) if nested else vmap(function)
        assert_close(transform(x), expected)


def test_python_code_inside_an_operator():
    """An operator in Python needs the interpreter while it works on memory made inside."""

    @torch.library.custom_op("functorch_ext_test_threads::twice", mutates_args=())
    def twice(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    def function(x):
        out = torch.ones(16, 3, dtype=x.dtype)

        def write(index):
            for _ in range(5):
                out[index] = x + twice(out[index])

        run(16, write)
        return out

    x = rand(4, 3)
    expected = torch.ones_like(x)
    for _ in range(5):
        expected = x + 2 * expected
    assert_close(vmap(function)(x), expected.unsqueeze(1).expand(4, 16, 3))
