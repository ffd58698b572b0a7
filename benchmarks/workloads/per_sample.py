"""Per-sample gradients: the gradient of each sample's loss by all parameters of a network."""

import copy
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from benchmarks.models import (
    CLASSES,
    convnet,
    convnet_in_jax,
    mlp,
    mlp_in_jax,
    transformer_layer,
    transformer_layer_in_jax,
)
from benchmarks.peers import BY_HAND, LOOP, Peers, parameters_of
from benchmarks.timing import Contenders
from benchmarks.workload import workload

Loss = Callable[[Tensor, Tensor], Tensor]


def _per_sample(peers: Peers, model: nn.Module, loss: Loss, x: Tensor, goal: Tensor) -> Contenders:
    """The ways that fit every network. ``loss`` takes one sample's output and its goal."""
    parameters = parameters_of(model)

    def make(library: ModuleType) -> Callable[[], Any]:
        def loss_of(parameters: dict[str, Tensor], sample: Tensor, goal: Tensor) -> Tensor:
            return loss(library.functional_call(model, parameters, (sample,)), goal)

        gradients = library.vmap(library.grad(loss_of), in_dims=(None, 0, 0))
        return lambda: gradients(parameters, x, goal)

    def loop() -> dict[str, Tensor]:
        leaves = dict(model.named_parameters())
        rows = [
            torch.autograd.grad(loss(model(sample), sample_goal), list(leaves.values()))
            for sample, sample_goal in zip(x, goal)
        ]
        return {name: torch.stack(column) for name, column in zip(leaves, zip(*rows))}

    return {**peers.both(make), LOOP: loop}


def _with_opacus(
    model: nn.Module,
    batch_loss: Loss,
    x: Tensor,
    goal: Tensor,
    replace: Callable[[ModuleType, nn.Module], nn.Module] = lambda opacus, model: model,
    rename: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda gradients: gradients,
    batch_first: bool = True,
) -> Any:
    """Opacus keeps what the layers' hooks compute in ``grad_sample`` of each parameter.

    Args:
        model: the network.
        batch_loss: the sum of the samples' losses.
        x: the inputs, and ``goal`` what they are compared with.
        replace: puts layers that Opacus knows in place of those that it doesn't.
        rename: puts the gradients under the names that they have in ``model``.
        batch_first: False if the samples lie along dimension 1 of ``x``.
    """

    def make(opacus: ModuleType) -> Callable[[], dict[str, Tensor]]:
        known = replace(opacus, copy.deepcopy(model))
        hooked = opacus.GradSampleModule(known, batch_first=batch_first, loss_reduction="sum")
        parameters = dict(known.named_parameters())

        def gradients() -> dict[str, Tensor]:
            for parameter in parameters.values():
                parameter.grad = parameter.grad_sample = None
            batch_loss(hooked(x), goal).backward()
            return rename({name: leaf.grad_sample for name, leaf in parameters.items()})

        return gradients

    return make


def _with_known_attention(opacus: ModuleType, layer: nn.Module) -> nn.Module:
    """The layer with Opacus's attention, which keeps queries, keys and values apart.

    Its tokens come first: Opacus 1.6.0 mixes up heads and tokens where samples come first.
    """
    ours = layer.self_attn
    theirs = opacus.layers.DPMultiheadAttention(ours.embed_dim, ours.num_heads)
    with torch.no_grad():
        for kind in ("weight", "bias"):
            parts = getattr(ours, f"in_proj_{kind}").chunk(3)
            for linear, part in zip((theirs.qlinear, theirs.klinear, theirs.vlinear), parts):
                getattr(linear, kind).copy_(part)
            getattr(theirs.out_proj, kind).copy_(getattr(ours.out_proj, kind))
    layer.self_attn = theirs
    return layer


def _with_joint_projection(gradients: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gradients by queries', keys' and values' projections as those by the one of all three."""
    for kind in ("weight", "bias"):
        parts = [gradients.pop(f"self_attn.{part}linear.{kind}") for part in "qkv"]
        gradients[f"self_attn.in_proj_{kind}"] = torch.cat(parts, 1)
    return gradients


def _with_jax(forward: Callable[..., Any], loss: Callable[..., Any]) -> Any:
    """``loss`` gets the module ``jax``, one sample's output and its goal."""

    def make(jax: ModuleType) -> Callable[..., Any]:
        def loss_of(parameters: dict[str, Any], sample: Any, goal: Any) -> Any:
            return loss(jax, forward(jax, parameters, sample), goal)

        return jax.vmap(jax.grad(loss_of), (None, 0, 0))

    return make


def _squares_in_jax(jax: ModuleType, output: Any, goal: Any) -> Any:
    return ((output - goal) ** 2).mean()


def _cross_entropy_in_jax(jax: ModuleType, output: Any, label: Any) -> Any:
    return -jax.nn.log_softmax(output)[label]


@workload("per-sample gradients, MLP 8-16-1, B=64", faster_than_torch_func=4)
def of_mlp(peers: Peers) -> Contenders:
    """By hand: the backward pass written down, its outer products by einsum."""
    model = mlp(8, 16, 1)
    weights = parameters_of(model)
    x, goal = torch.randn(64, 8), torch.randn(64, 1)

    def by_hand() -> dict[str, Tensor]:
        hidden = (x @ weights["0.weight"].T + weights["0.bias"]).tanh()
        error = 2 * (hidden @ weights["2.weight"].T + weights["2.bias"] - goal)
        inner = error @ weights["2.weight"] * (1 - hidden * hidden)
        return {
            "0.weight": torch.einsum("bo,bi->boi", inner, x),
            "0.bias": inner,
            "2.weight": torch.einsum("bo,bi->boi", error, hidden),
            "2.bias": error,
        }

    def batch_loss(output: Tensor, goal: Tensor) -> Tensor:
        return mse_loss(output, goal, reduction="sum")

    return {
        **_per_sample(peers, model, mse_loss, x, goal),
        BY_HAND: by_hand,
        **peers.opacus(_with_opacus(model, batch_loss, x, goal)),
        **peers.jax(_with_jax(mlp_in_jax, _squares_in_jax), weights, x, goal),
    }


@workload("per-sample gradients, ConvNet 28x28, B=32", faster_than_torch_func=2)
def of_convnet(peers: Peers) -> Contenders:
    """Each sample has a gradient of its own by the convolutions' weights."""
    model = convnet()
    x, labels = torch.randn(32, 1, 28, 28), torch.randint(CLASSES, (32,))

    def batch_loss(output: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(output, labels, reduction="sum")

    in_jax = _with_jax(convnet_in_jax, _cross_entropy_in_jax)
    return {
        **_per_sample(peers, model, cross_entropy, x, labels),
        **peers.opacus(_with_opacus(model, batch_loss, x, labels)),
        **peers.jax(in_jax, parameters_of(model), x, labels),
    }


@workload("per-sample gradients, transformer layer, B=16 T=32", faster_than_torch_func=2)
def of_transformer(peers: Peers) -> Contenders:
    """Attention, layer norms and linear layers that are applied to each token."""
    model = transformer_layer(width=64)
    x, goal = torch.randn(16, 32, 64), torch.randn(16, 32, 64)
    in_jax = _with_jax(transformer_layer_in_jax, _squares_in_jax)

    def batch_loss(output: Tensor, goal: Tensor) -> Tensor:
        return mse_loss(output, goal, reduction="sum") / goal[:, 0].numel()

    in_opacus = _with_opacus(
        model,
        batch_loss,
        x.transpose(0, 1).contiguous(),
        goal.transpose(0, 1).contiguous(),
        _with_known_attention,
        _with_joint_projection,
        batch_first=False,
    )
    return {
        **_per_sample(peers, model, mse_loss, x, goal),
        **peers.opacus(in_opacus),
        **peers.jax(in_jax, parameters_of(model), x, goal),
    }


WORKLOADS = [of_mlp, of_convnet, of_transformer]
