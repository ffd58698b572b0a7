"""The operator database as problems: functions of tensors, with several draws of their arguments.

The samples of a batch are different draws. The database is asked with one seed each. Python numbers
come from the first draw; where the others differ in shapes, too, or not at all, it is scaled.
"""

import collections
import itertools
import random
from typing import NamedTuple

import numpy
import torch
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils import _pytree as pytree

from test.device import device
from test.device import seed as seed_device

DRAWS = 4
FEW = 4
LARGE = 20_000  # elements: samples with more are left out if there are others

NOT_ON_CPU = "it does not run on cpu"
DTYPE = "it does not take the dtype"
NOT_STRIDED = "its arguments are not strided"
NO_SAMPLES = "the database has no sample of it"


def name_of(op):
    return f"{op.name}.{op.variant_test_name}" if op.variant_test_name else op.name


OPERATORS = {name_of(op): op for op in op_db}


class Problem(NamedTuple):
    """A function of tensors, the draws to stack, and which arguments to differentiate by."""

    function: object  # to all output tensors
    processed: object  # the same, made to be differentiated: say, of the symmetric part, which is
    # all that cholesky reads; without the signs of svd
    draws: tuple  # DRAWS lists of tensors
    differentiable: tuple  # positions


def is_inexact(x):
    return x.is_floating_point() or x.is_complex()


def default_dtype(op):
    supported = op.supported_dtypes(device())
    for dtype in (torch.float64, torch.float32, torch.complex128, torch.int64, torch.bool):
        if dtype in supported:
            return dtype
    return next(iter(supported), None)


def raw_samples(op, dtype, seed, limit):
    wants_grad = op.supports_autograd and (dtype.is_floating_point or dtype.is_complex)
    random.seed(0)
    numpy.random.seed(0)
    seed_device(seed)
    # Not op.sample_inputs: it sets one and the same seed before every sample.
    found = op.sample_inputs_func(op, device(), dtype, wants_grad)
    # Of those without elements, which some generators start with, a few are enough.
    empty = itertools.count()
    return list(itertools.islice((x for x in found if has_elements(x) or next(empty) < FEW), limit))


def has_elements(sample):
    tensors = tensors_in((sample.input, sample.args, sample.kwargs))
    return all(tensor.numel() for tensor in tensors)


def tensors_in(tree):
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def describe(leaf):
    """What has to agree between the draws."""
    if isinstance(leaf, torch.Tensor):
        return leaf.shape, leaf.dtype, leaf.stride(), leaf.requires_grad
    return None


def scaled(x, i):
    return x.detach() * (1 - i / 16) if is_inexact(x) else x


def is_equal(first, others):
    return all(torch.equal(x, y) for x, y in zip(first, others, strict=True))


def draws_of(flat):
    """Lists of tensors that differ in their numbers alone, from samples flattened by pytree."""
    leaves, spec = flat[0]
    first = tensors_in(leaves)
    described = [describe(leaf) for leaf in leaves]
    draws = [[tensor.detach() for tensor in first]]
    for i, (others, other_spec) in enumerate(flat[1:], 1):
        tensors = tensors_in(others)
        fits = other_spec == spec and [describe(leaf) for leaf in others] == described
        if not fits or is_equal(first, tensors):
            tensors = [scaled(x, i) for x in first]
        draws.append([tensor.detach() for tensor in tensors])
    return tuple(draws)


def make_problem(op, group, flat):
    leaves, spec = flat[0]
    tensors = tensors_in(leaves)

    def arguments(values):
        values = iter(values)
        full = [next(values) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        first, args, kwargs = pytree.tree_unflatten(full, spec)
        return (first, *args), kwargs

    def function(*values):
        args, kwargs = arguments(values)
        return tensors_in(op.op(*args, **kwargs))

    def processed(*values):
        args, kwargs = arguments(values)
        outputs = op.gradcheck_wrapper(op.op, *args, **kwargs)
        found = tensors_in(group[0].output_process_fn_grad(outputs))
        return [leaf for leaf in found if is_inexact(leaf)]

    if not tensors:  # a factory, of an argument that it ignores
        draws = tuple([torch.tensor(float(i))] for i in range(len(flat)))
        return Problem(lambda ignored: function(), lambda ignored: processed(), draws, ())
    positions = tuple(i for i, tensor in enumerate(tensors) if tensor.requires_grad)
    return Problem(function, processed, draws_of(flat), positions)


def shape_of_call(flat):
    """Samples that differ in this are worth more than those that differ in sizes and numbers."""
    leaves, spec = flat[0]
    kinds = [leaf.dim() if isinstance(leaf, torch.Tensor) else repr(type(leaf)) for leaf in leaves]
    return repr((str(spec), kinds))


def select(candidates, count):
    """`count` of these (flat, group) pairs: of different calls first, then spread over all."""
    if len(candidates) <= count:
        return candidates
    firsts = {}
    for position, (flat, _) in enumerate(candidates):
        firsts.setdefault(shape_of_call(flat), position)
    firsts = list(firsts.values())
    chosen = {firsts[len(firsts) * i // count] for i in range(count)}
    for i in range(count):
        if len(chosen) < count:
            chosen.add(len(candidates) * i // count)
    return [candidates[i] for i in sorted(chosen)]


def groups(op, dtype, count, limit=40):
    """`count` groups chosen from the first `limit` samples, as pairs: the draws flattened by pytree,
    and the draws. And why others are none (a Counter)."""
    if dtype is None:
        return [], collections.Counter([NOT_ON_CPU])
    if dtype not in op.supported_dtypes(device()):
        return [], collections.Counter([DTYPE])
    runs = [raw_samples(op, dtype, seed, limit) for seed in range(DRAWS)]
    found, reasons = [], collections.Counter()
    for group in zip(*runs, strict=False):
        flat = [pytree.tree_flatten((sample.input, sample.args, sample.kwargs)) for sample in group]
        if all(tensor.layout == torch.strided for tensor in tensors_in(flat[0][0])):
            found.append((flat, group))
        else:
            reasons[NOT_STRIDED] += 1
    if not runs[0]:
        reasons[NO_SAMPLES] += 1
    elements = [sum(x.numel() for x in tensors_in(flat[0][0])) for flat, _ in found]
    small = [pair for pair, n in zip(found, elements, strict=True) if n <= LARGE] or found
    return select(small, count), reasons


def problems(op, dtype, count, limit=40):
    """`count` problems, and why other samples are none (a Counter)."""
    chosen, reasons = groups(op, dtype, count, limit)
    return [make_problem(op, group, flat) for flat, group in chosen], reasons
