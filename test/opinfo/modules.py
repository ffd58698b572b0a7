"""PyTorch's own table of modules, run under vmap with functional_call.

Three uses of a module: on a batch of inputs with shared parameters, the gradients of the parameters
for each sample, and an ensemble, whose members have parameters and inputs of their own. The oracle
is a loop over samples in plain PyTorch.
"""

import collections
import itertools
import random
import warnings

import torch
from torch.testing._internal.common_modules import module_db
from torch.utils import _pytree as pytree

import functorch_ext
from test.device import device
from test.opinfo.samples import describe, tensors_in
from test.opinfo.sweep import EXACT, PLAIN_RAISES, Outcome
from test.oracle import assert_close

BATCH = 3
MODULES = {info.name: info for info in module_db}
MODES = ("vmap", "gradients", "ensemble")
DRAWS_DIFFER = "the draws of its arguments differ in their shapes"
NO_FLOAT64 = "it does not take float64"
NO_PARAMETERS = "it has no parameters"


def inputs_of(info, seed, training):
    random.seed(0)
    torch.default_generator.manual_seed(seed)
    return info.module_inputs_func(
        info, device=device(), dtype=torch.float64, requires_grad=False, training=training
    )


def without_dropout(module):
    for part in module.modules():
        if isinstance(part, torch.nn.modules.dropout._DropoutNd):
            part.p = 0.0
        if isinstance(getattr(part, "dropout", None), float):
            part.dropout = 0.0
    return module


def build(info, sample, training):
    """The module after one call, which makes the parameters of lazy ones."""
    torch.default_generator.manual_seed(0)
    arguments = sample.constructor_input
    module = info.module_cls(*arguments.args, **arguments.kwargs).to(torch.float64)
    module.train(training)
    forward = sample.forward_input
    without_dropout(module)(*forward.args, **forward.kwargs)
    return module


def loss_of(outputs):
    """A number that depends on every output, by a different weight each."""
    total = 0
    for x in tensors_in(outputs):
        if x.is_floating_point():
            weights = torch.arange(x.numel(), dtype=x.dtype).cos().reshape(x.shape)
            total = total + (x * weights).sum()
    return total


class Use:
    """A module with draws of its inputs and of its parameters and buffers."""

    def __init__(self, module, draws, spec, leaves):
        self.module, self.spec, self.leaves = module, spec, leaves
        self.inputs = [tensors_in(draw) for draw in draws]
        self.buffers = dict(module.named_buffers())
        parameters = {name: p.detach() for name, p in module.named_parameters()}
        self.parameters = [
            {name: p * (1 + i / 8) for name, p in parameters.items()} for i in range(BATCH)
        ]

    def call(self, functional_call, parameters, buffers, *values):
        values = iter(values)
        full = [next(values) if isinstance(leaf, torch.Tensor) else leaf for leaf in self.leaves]
        args, kwargs = pytree.tree_unflatten(full, self.spec)
        return functional_call(self.module, (parameters, buffers), tuple(args), kwargs)

    def copied_buffers(self):
        return {name: b.clone() for name, b in self.buffers.items()}

    def plain(self, mode):
        """The outputs of each sample, one list per output."""
        found = []
        for i in range(BATCH):
            parameters = self.parameters[i if mode == "ensemble" else 0]
            parameters = {name: p.clone().requires_grad_() for name, p in parameters.items()}
            values = [x.clone() for x in self.inputs[i]]
            buffers = self.copied_buffers()
            outputs = self.call(torch.func.functional_call, parameters, buffers, *values)
            if mode == "gradients":
                gradients = torch.autograd.grad(
                    loss_of(outputs), parameters.values(), materialize_grads=True
                )
                found.append(list(gradients))
            else:
                found.append([x.detach() for x in tensors_in(outputs)])
        return [torch.stack(column) for column in zip(*found, strict=True)]

    def ours(self, mode):
        def outputs(parameters, buffers, *values):
            return self.call(functorch_ext.functional_call, parameters, buffers, *values)

        stacked = [torch.stack(column) for column in zip(*self.inputs, strict=True)]
        parameters, dim, function = self.parameters[0], None, outputs
        buffers = self.copied_buffers()
        if mode == "gradients":
            function = functorch_ext.grad(lambda *args: loss_of(outputs(*args)))
        if mode == "ensemble":
            dim = 0
            parameters = {
                name: torch.stack([p[name] for p in self.parameters]) for name in parameters
            }
            buffers = {name: torch.stack([b] * BATCH) for name, b in buffers.items()}
        in_dims = (dim, dim, *[0] * len(stacked))
        return tensors_in(functorch_ext.vmap(function, in_dims)(parameters, buffers, *stacked))


def uses(info, training):
    """All uses of a module that the table has, and why others are none (a Counter)."""
    runs = [inputs_of(info, seed, training) for seed in range(BATCH)]
    found, reasons = [], collections.Counter()
    for group in zip(*runs, strict=True):
        flat = [
            pytree.tree_flatten((list(sample.forward_input.args), sample.forward_input.kwargs))
            for sample in group
        ]
        draws = [leaves for leaves, _ in flat]
        differ = any(spec != flat[0][1] for _, spec in flat) or any(
            describe(a) != describe(b)
            for draw in draws
            for a, b in zip(draws[0], draw, strict=True)
        )
        if differ:
            reasons[Outcome("n/a", DRAWS_DIFFER)] += 1
            continue
        try:
            module = build(info, group[0], training)
        except Exception:
            reasons[Outcome("n/a", PLAIN_RAISES)] += 1
            continue
        found.append(Use(module, draws, flat[0][1], draws[0]))
    return found, reasons


def outcome(use, mode):
    if mode != "vmap" and not use.parameters[0]:
        return Outcome("n/a", NO_PARAMETERS)
    try:
        expected = use.plain(mode)
    except Exception:
        return Outcome("n/a", PLAIN_RAISES)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            actual = use.ours(mode)
        except Exception as error:
            return Outcome("error", f"{type(error).__name__}: {error}".partition("\n")[0])
    try:
        assert_close(list(actual), expected, EXACT)
    except AssertionError as error:
        return Outcome("WRONG", str(error))
    looped = [w for w in caught if issubclass(w.category, functorch_ext.FallbackWarning)]
    return Outcome("loop", str(looped[0].message).partition("\n")[0]) if looped else Outcome("rule")


def sweep_module(name, training):
    """For every mode, the Outcomes of a module's uses and how often each was met."""
    info = MODULES[name]
    if torch.float64 not in info.dtypes:
        return {mode: collections.Counter([Outcome("n/a", NO_FLOAT64)]) for mode in MODES}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found, reasons = uses(info, training)
        return {
            mode: collections.Counter(outcome(use, mode) for use in itertools.islice(found, 12))
            + reasons
            for mode in MODES
        }
