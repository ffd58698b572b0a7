"""A row of the comparison: one feature, used inside transforms in one way.

Nothing here imports functorch_ext, so that torch.func can run the rows in a process of its own.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy
import torch
from torch.utils import _pytree as pytree

from test.composing import reference


class Row(NamedTuple):
    """One piece of code, run with the transforms of each side."""

    feature: str  # the section of the table
    name: str  # the line of the table
    way: str  # how transforms are used: "vmap(grad)"
    compute: Callable[[Any], Any]  # of a module with the interface of torch.func
    expected: Callable[[], Any]
    tolerance: float = 1e-9
    slow: bool = False

    @property
    def id(self) -> str:
        return f"{self.feature} | {self.name} | {self.way}"


def row(feature, name, way, compute, expected=None, tolerance=1e-9, slow=False):
    """A row; by default the reference runs the same code to know what is right."""
    return Row(
        feature, name, way, compute, expected or (lambda: compute(reference)), tolerance, slow
    )


def sample(*shape, dtype=torch.float64, seed=0):
    """Normal numbers, the same ones in each call; not by torch, so that vmap allows it inside."""
    numbers = numpy.random.default_rng(seed).standard_normal(shape)
    return torch.as_tensor(numbers).to(dtype)


def differentiable(x):
    return x.is_floating_point() or x.is_complex()


def real(x):
    return torch.view_as_real(x) if x.is_complex() else x


def total(func):
    """A number made of all that func returns, nonlinear so that the cotangents differ."""

    def number(*args):
        leaves = [x for x in pytree.tree_leaves(func(*args)) if differentiable(x)]
        return sum(real(x).sin().sum() for x in leaves)

    return number


def direction(args):
    """Tangents or cotangents for the tensors in args; not random, so that vmap allows them."""

    def of_one(x):
        numbers = torch.arange(1.0, x.numel() + 1, dtype=torch.float64).cos()
        return numbers.reshape(x.shape).to(x.dtype)

    return pytree.tree_map(of_one, args)


def _by_chosen(func, args, argnums):
    """func as a function of the arguments at argnums alone, and these arguments."""

    def of_chosen(*chosen):
        now = list(args)
        for i, value in zip(argnums, chosen):
            now[i] = value
        return func(*now)

    return of_chosen, tuple(args[i] for i in argnums)


def _vjp(F, func, args, argnums):
    of_chosen, primals = _by_chosen(func, args, argnums)
    output, pullback = F.vjp(of_chosen, *primals)
    return output, pullback(direction(output))


def _jvp(F, func, args, argnums):
    of_chosen, primals = _by_chosen(func, args, argnums)
    return F.jvp(of_chosen, primals, direction(primals))


def _penalty(F, func, argnums):
    """A number made of a gradient."""
    return total(F.grad(total(func), argnums))


# How a function is used: of the transforms, the function, its arguments as one sample and as a
# batch, the in_dims of the batch, and which arguments are differentiated.
WAYS = {
    "grad": lambda F, f, one, many, dims, nums: F.grad(total(f), nums)(*one),
    "vjp": lambda F, f, one, many, dims, nums: _vjp(F, f, one, nums),
    "jvp": lambda F, f, one, many, dims, nums: _jvp(F, f, one, nums),
    "jacrev": lambda F, f, one, many, dims, nums: F.jacrev(f, nums)(*one),
    "jacfwd": lambda F, f, one, many, dims, nums: F.jacfwd(f, nums)(*one),
    "grad(grad)": lambda F, f, one, many, dims, nums: F.grad(_penalty(F, f, nums), nums)(*one),
    "jvp(grad)": lambda F, f, one, many, dims, nums: _jvp(F, F.grad(total(f), nums), one, nums),
    "vmap": lambda F, f, one, many, dims, nums: F.vmap(f, dims)(*many),
    "vmap(grad)": lambda F, f, one, many, dims, nums: F.vmap(F.grad(total(f), nums), dims)(*many),
    "grad(vmap)": lambda F, f, one, many, dims, nums: F.grad(total(F.vmap(f, dims)), nums)(*many),
    "jvp(vmap)": lambda F, f, one, many, dims, nums: _jvp(F, F.vmap(f, dims), many, nums),
    "vmap(jvp)": lambda F, f, one, many, dims, nums: F.vmap(
        lambda *args: _jvp(F, f, args, nums), dims
    )(*many),
    "grad(vmap(grad))": lambda F, f, one, many, dims, nums: F.grad(
        total(F.vmap(F.grad(total(f), nums), dims)), nums
    )(*many),
    "vmap(jacrev)": lambda F, f, one, many, dims, nums: F.vmap(F.jacrev(f, nums), dims)(*many),
}
REVERSE = ("grad", "vjp", "jacrev", "vmap", "vmap(grad)", "grad(vmap)")
TWICE = (*REVERSE, "grad(grad)", "grad(vmap(grad))")
BOTH = (*REVERSE, "jvp", "jvp(vmap)", "vmap(jvp)")
ALL = tuple(WAYS)


def uses(
    feature, name, func, batch, ways=REVERSE, in_dims=None, plain=None, tolerance=1e-9, **options
):
    """Rows for a function of tensors, used in several ways.

    Args:
        func: Takes tensors; differentiated by those with a floating-point or complex dtype.
        batch: Its arguments: a tuple of tensors, or a function that returns one.
        in_dims: Which dimension of each runs over the samples; all have it in front by default.
        plain: What the reference runs in place of func, for what plain autograd can't do.
    """
    make = batch if callable(batch) else lambda: batch

    def run(way, F, func):
        many = make()
        dims = in_dims or (0,) * len(many)
        one = [x if dim is None else x.select(dim, 0).clone() for x, dim in zip(many, dims)]
        nums = tuple(i for i, x in enumerate(many) if differentiable(x))
        return WAYS[way](F, func, one, many, dims, nums)

    return [
        row(
            feature, name, way,
            lambda F, way=way: run(way, F, func),
            lambda way=way: run(way, reference, plain or func),
            tolerance, **options,
        )
        for way in ways
    ]  # fmt: skip
