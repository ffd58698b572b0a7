"""Runs one entry of PyTorch's operator database under one mode and says what came of it.

The oracle is a Python loop over plain PyTorch. The samples of a batch are different draws: the
database is asked with one seed each, and the samples that agree in all but the numbers are stacked.
"""

import itertools
import warnings
from typing import NamedTuple

import torch
import torch.autograd.forward_ad as forward_ad
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils import _pytree as pytree

from functorch_ext import FallbackWarning, jvp, vjp, vmap
from test.opinfo import known
from test.oracle import assert_close, loop

BATCH = 3
SAMPLES = 4
MODES = ("vmap", "vjp", "jvp", "vmap(vjp)", "vmap(jvp)")


def name_of(op):
    return f"{op.name}.{op.variant_test_name}" if op.variant_test_name else op.name


OPERATORS = {name_of(op): op for op in op_db}


class Outcome(NamedTuple):
    """`status` is rule, loop, error, WRONG, or n/a where plain PyTorch has nothing to compare."""

    status: str
    detail: str = ""


class Problem(NamedTuple):
    """A function of tensors: the samples to stack, and which of them to differentiate by."""

    function: object  # to all output tensors
    processed: object  # the same, made to be differentiated (say, without the signs of svd)
    draws: tuple  # BATCH lists of tensors
    differentiable: tuple  # positions


def dtype_of(op):
    supported = op.supported_dtypes("cpu")
    for dtype in (torch.float64, torch.float32, torch.complex128, torch.int64, torch.bool):
        if dtype in supported:
            return dtype
    return next(iter(supported), None)


def is_inexact(x):
    return x.is_floating_point() or x.is_complex()


def raw_samples(op, seed):
    dtype = dtype_of(op)
    if dtype is None:
        return []
    wants_grad = op.supports_autograd and (dtype.is_floating_point or dtype.is_complex)
    torch.manual_seed(seed)
    found = op.sample_inputs("cpu", dtype, requires_grad=wants_grad)
    return list(itertools.islice(found, 3 * SAMPLES))


def describe(leaf):
    """What has to agree between the samples of one batch."""
    if not isinstance(leaf, torch.Tensor):
        return leaf
    return leaf.shape, leaf.dtype, leaf.stride(), leaf.requires_grad


def problem(op, group):
    """The Problem for samples that differ in their numbers alone, or None if they do not."""
    flat = [pytree.tree_flatten((sample.input, sample.args, sample.kwargs)) for sample in group]
    leaves, spec = flat[0]
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    if not tensors or any(leaf.layout != torch.strided for leaf in tensors):
        return None
    for others, other_spec in flat[1:]:
        if other_spec != spec:
            return None
        if any(describe(a) != describe(b) for a, b in zip(leaves, others, strict=True)):
            return None

    def call(*values):
        values = iter(values)
        full = [next(values) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        first, args, kwargs = pytree.tree_unflatten(full, spec)
        return op.op(first, *args, **kwargs)

    def function(*values):
        found = pytree.tree_leaves(call(*values))
        return [leaf for leaf in found if isinstance(leaf, torch.Tensor)]

    def processed(*values):
        found = pytree.tree_leaves(group[0].output_process_fn_grad(call(*values)))
        return [leaf for leaf in found if isinstance(leaf, torch.Tensor) and is_inexact(leaf)]

    draws = tuple(
        [leaf.detach() for leaf in sample if isinstance(leaf, torch.Tensor)] for sample, _ in flat
    )
    positions = tuple(i for i, leaf in enumerate(tensors) if leaf.requires_grad)
    return Problem(function, processed, draws, positions)


def problems(op):
    runs = [raw_samples(op, seed) for seed in range(BATCH)]
    found = [problem(op, group) for group in zip(*runs, strict=False)]
    found = [p for p in found if p is not None]
    spread = {len(found) * i // SAMPLES for i in range(SAMPLES)} if found else ()
    return [found[i] for i in sorted(spread)]


def variants(p, mode):
    """0: all arguments are batched; 1: the first alone, at its end; 2: all but the first."""
    return range(1 if "vmap" not in mode else 2 if len(p.draws[0]) == 1 else 3)


def stack(draws, variant, end):
    """Arguments and in_dims."""
    args, in_dims = [], []
    for position, column in enumerate(zip(*draws, strict=True)):
        unbatched = len(draws[0]) > 1 and ((variant == 1) != (position == 0)) and variant > 0
        dim = None if unbatched else end if variant == 1 else 0
        args.append(column[0] if dim is None else torch.stack(column, dim))
        in_dims.append(dim)
    return args, tuple(in_dims)


def of_differentiable(p, values):
    def function(*inputs):
        full = list(values)
        for position, value in zip(p.differentiable, inputs, strict=True):
            full[position] = value
        return p.processed(*full)

    return function, tuple(values[i] for i in p.differentiable)


def plain_vjp(p):
    def pulled_back(*values):
        function, inputs = of_differentiable(p, values)
        inputs = [x.detach().clone().requires_grad_() for x in inputs]
        outputs = [output for output in function(*inputs) if output.requires_grad]
        if not outputs:
            raise NotImplementedError("no output is differentiable")
        cotangents = [output.detach().cos() for output in outputs]
        found = torch.autograd.grad(outputs, inputs, cotangents, allow_unused=True)
        return [torch.zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True)]

    return pulled_back


def our_vjp(p):
    def pulled_back(*values):
        function, inputs = of_differentiable(p, values)
        outputs, pullback = vjp(function, *inputs)
        return list(pullback([output.cos() for output in outputs]))

    return pulled_back


def plain_jvp(p):
    def pushed(*values):
        function, inputs = of_differentiable(p, values)
        with forward_ad.dual_level():
            outputs = function(*(forward_ad.make_dual(x.clone(), x.cos()) for x in inputs))
            pairs = [forward_ad.unpack_dual(output) for output in outputs]
            return [torch.zeros_like(p.primal) if p.tangent is None else p.tangent for p in pairs]

    return pushed


def our_jvp(p):
    def pushed(*values):
        function, inputs = of_differentiable(p, values)
        return jvp(function, inputs, tuple(x.cos() for x in inputs))[1]

    return pushed


PLAIN = {"vmap": lambda p: p.function, "vjp": plain_vjp, "jvp": plain_jvp}
OURS = {"vmap": lambda p: p.function, "vjp": our_vjp, "jvp": our_jvp}


def exact(outputs):
    """Numbers of 4 and 8 bits as float32, which compares them without knowing their format."""
    small = [is_inexact(x) and x.element_size() == 1 for x in outputs]
    return [x.float() if low else x for x, low in zip(outputs, small, strict=True)]


def run(p, mode, variant, name):
    inner = mode.removeprefix("vmap(").removesuffix(")")
    plain, ours = PLAIN[inner](p), OURS[inner](p)
    args, in_dims = p.draws[0], None
    if "vmap" in mode:
        args, in_dims = stack(p.draws, variant, 0 if name in known.READS_STRIDES else -1)
        plain, ours = loop(plain, in_dims), vmap(ours, in_dims)
    try:
        expected = exact(plain(*[x.clone() for x in args]))
    except Exception as error:
        return Outcome("n/a", f"plain PyTorch: {error}")
    if not expected:
        return Outcome("n/a", "no tensor in the output")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            actual = exact(ours(*[x.clone() for x in args]))
        except Exception as error:
            return Outcome("error", f"{type(error).__name__}: {error}")
    try:
        precise = all(
            x.dtype in (torch.float64, torch.complex128) or not is_inexact(x) for x in args
        )
        assert_close(actual, expected, known.TOLERANCE.get(name, 1e-9 if precise else 1e-4))
    except AssertionError as error:
        return Outcome("WRONG", f"in_dims={in_dims}: {error}")
    looped = any(issubclass(w.category, FallbackWarning) for w in caught)
    return Outcome("loop" if looped else "rule")


SEVERITY = ("n/a", "rule", "loop", "error", "WRONG")


def sweep(name):
    """The Outcome of every mode for one operator: of all its samples, the worst one."""
    if name in known.SKIPPED:
        return dict.fromkeys(MODES, Outcome("n/a", known.SKIPPED[name]))
    op = OPERATORS[name]
    outcomes = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = problems(op)
        for mode in MODES:
            applies = "vjp" not in mode or op.supports_autograd
            applies = applies and ("jvp" not in mode or op.supports_forward_ad)
            several = [
                run(p, mode, variant, name)
                for p in found
                if applies and (mode == "vmap" or p.differentiable)
                for variant in variants(p, mode)
            ]
            nothing = Outcome("n/a", "no comparable samples, or not differentiable")
            outcomes[mode] = max(several, key=lambda o: SEVERITY.index(o.status), default=nothing)
    return outcomes
