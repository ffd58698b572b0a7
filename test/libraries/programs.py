"""What users of libraries do with transforms: programs of any package, and their right answers.

A program takes the package (ours, or torch.func) and returns what it computes. It imports its
library itself. The right answers come from loops of plain autograd.
"""

import functools
from typing import NamedTuple

import torch
from torch.autograd import functional

from test.libraries.models import bert, gpt2, made, marginal_likelihood, t5, vit


class Program(NamedTuple):
    run: object  # package -> what the transform gives
    plain: object  # () -> what it has to give


PROGRAMS = {}
TOLERANCE = 1e-4


def add(library, use, plain):
    """Lists a program under a library and a use."""

    def decorate(run):
        PROGRAMS[library, use] = Program(run, plain)
        return run

    return decorate


def stacked(function, *batches):
    """What `function` gives for each sample."""
    return torch.stack([function(*sample) for sample in zip(*batches, strict=True)])


def jacobians(function, xs):
    return stacked(lambda x: functional.jacobian(function, x), xs)


# transformers


def tokens():
    return torch.arange(18).view(3, 6) * 7 % 50


LABELS = torch.tensor([0, 1, 1])
MASKS = (torch.arange(6) < torch.tensor([[6], [4], [2]])).long()
WIDE_MASKS = MASKS.bool()[:, None, None, :].expand(3, 1, 6, 6)
MODELS = {
    "GPT-2": (gpt2, lambda call, row: call(row[None], labels=row[None]).loss, (tokens(),)),
    "BERT": (
        bert,
        lambda call, row, label: call(row[None], labels=label[None]).loss,
        (tokens(), LABELS),
    ),
    "ViT": (
        vit,
        lambda call, image, label: call(image[None], labels=label[None]).loss,
        (torch.linspace(-1, 1, 576).view(3, 3, 8, 8), LABELS),
    ),
    "T5": (
        t5,
        lambda call, row, target: call(input_ids=row[None], labels=target[None]).loss,
        (tokens(), tokens().flip(1)),
    ),
    "BERT, padding that differs between samples": (
        bert,
        lambda call, row, mask, label: (
            call(row[None], attention_mask=mask[None], labels=label[None]).loss
        ),
        (tokens(), MASKS, LABELS),
    ),
    "BERT, the same as a mask of four dimensions": (
        bert,
        lambda call, row, mask, label: (
            call(row[None], attention_mask=mask, labels=label[None]).loss
        ),
        (tokens(), WIDE_MASKS[:, None], LABELS),
    ),
}


def per_sample(package, model, loss, batch):
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def of_sample(parameters, *sample):
        call = lambda *args, **kwargs: package.functional_call(model, parameters, args, kwargs)
        return loss(call, *sample)

    dims = (None,) + (0,) * len(batch)
    return package.vmap(package.grad(of_sample), dims)(parameters, *batch)


def per_sample_by_loop(model, loss, batch):
    rows = []
    for sample in zip(*batch, strict=True):
        model.zero_grad()
        loss(model, *sample).backward()
        rows.append({n: torch.zeros_like(p) if p.grad is None else p.grad.clone()
                     for n, p in model.named_parameters()})  # fmt: skip
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


for name, (make, loss, batch) in MODELS.items():
    add(
        "transformers",
        f"per-sample gradients: {name}",
        lambda make=make, loss=loss, batch=batch: per_sample_by_loop(made(make), loss, batch),
    )(lambda ft, make=make, loss=loss, batch=batch: per_sample(ft, made(make), loss, batch))


@add(
    "transformers",
    "a `ModelOutput` out of `vmap`, `use_cache=False`",
    lambda: made(gpt2)(tokens(), use_cache=False).logits[:, None],
)
def model_output(ft):
    model = made(gpt2)
    return ft.vmap(lambda row: model(row[None], use_cache=False))(tokens()).logits


# tensordict


@add("tensordict", "a `TensorDict` in and out of `vmap`", lambda: DATA * 2)
def tensordict_in_vmap(ft):
    from tensordict import TensorDict

    data = TensorDict({"a": DATA}, [3])
    return ft.vmap(lambda d: d.apply(lambda x: x * 2))(data)["a"]


DATA = torch.arange(12.0).view(3, 4)


@add("tensordict", "a `TensorDict` of parameters in `vmap(grad)`", lambda: DATA)
def tensordict_in_grad(ft):
    from tensordict import TensorDict

    parameters = TensorDict({"w": torch.ones(4)}, [])
    loss = lambda p, x: (p["w"] * x).sum()
    return ft.vmap(ft.grad(loss), (None, 0))(parameters, DATA)["w"]


def linear_layers():
    torch.manual_seed(0)
    return [torch.nn.Linear(4, 2) for _ in range(3)]


@add(
    "tensordict",
    "parameters of modules, `to_module` inside `vmap`",
    lambda: torch.stack([each(DATA[1]) for each in linear_layers()]),
)
def tensordict_of_modules(ft):
    from tensordict import TensorDict

    stacked, module = TensorDict.from_modules(*linear_layers(), as_module=False), linear_layers()[0]

    def call(parameters, x):
        with parameters.to_module(module):
            return module(x)

    return ft.vmap(call, (0, None))(stacked, DATA[1])


# gpytorch


@functools.cache
def likelihood():
    """The loss of a Gaussian process, as a function of three parameters; and their values."""
    module = marginal_likelihood()
    names = [name for name, _ in module.named_parameters()]
    values = tuple(p.detach() for p in module.parameters())

    def loss_of(functional_call):
        return lambda *values: functional_call(module, dict(zip(names, values, strict=True)), ())

    return loss_of, values


def likelihood_by(derivative):
    loss_of, values = likelihood()
    return derivative(loss_of(torch.func.functional_call), values)


def of_first(derivative):
    """By the first parameter."""
    return lambda loss, values: derivative(lambda value: loss(value, *values[1:]), values[0])


def noises():
    value = likelihood()[1][0]
    return torch.stack([value, value + 0.1, value - 0.2])


def of_noise(ft):
    loss_of, values = likelihood()
    return lambda value: loss_of(ft.functional_call)(value, *values[1:]), values[0]


@add(
    "gpytorch",
    "gradient of a marginal likelihood",
    lambda: likelihood_by(of_first(functional.jacobian)),
)
def gradient_of_likelihood(ft):
    loss, value = of_noise(ft)
    return ft.grad(loss)(value)


@add("gpytorch", "its hessian", lambda: likelihood_by(of_first(functional.hessian)))
def hessian_of_likelihood(ft):
    loss, value = of_noise(ft)
    return ft.hessian(loss)(value)


@add(
    "gpytorch",
    "`vmap(grad)` of it",
    lambda: likelihood_by(of_first(lambda loss, _: jacobians(loss, noises()))),
)
def gradients_of_likelihoods(ft):
    return ft.vmap(ft.grad(of_noise(ft)[0]))(noises())
