"""The quickstart: per-sample gradients, an ensemble, Jacobians and a Hessian on real data.

Trains a small convolutional network on scikit-learn's handwritten digits with plain PyTorch, then
asks it questions that are tedious to ask with plain autograd. Each answer is compared, in float64,
with the loop that one would write otherwise; the table at the end shows both and their times.

    python -m tutorials.quickstart [--output build/quickstart.png]
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # Draws into a file; no display is needed.

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from functorch_ext import (
    functional_call,
    grad,
    hessian,
    jacfwd,
    jacrev,
    stack_module_state,
    vmap,
)

TOLERANCE = 1e-10
REQUIRED_ACCURACY = 0.95
ENSEMBLE_SIZE = 20
BATCH_SIZE = 64
ENSEMBLE_BATCH = 16


def load_data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The 1797 digits as 1x8x8 images in [0, 1], shuffled: train images, labels, test ones."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(digits.target)
    order = torch.randperm(len(images))
    images, labels = images[order], labels[order]
    return images[:1440], labels[:1440], images[1440:], labels[1440:]


def make_network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def make_member() -> nn.Sequential:
    """One of an ensemble: small, as members are that disagree where they are unsure."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))


def train(network: nn.Module, images: Tensor, labels: Tensor, epochs: int = 10) -> None:
    """Plain PyTorch."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(BATCH_SIZE):
            optimizer.zero_grad()
            cross_entropy(network(images[batch]), labels[batch]).backward()
            optimizer.step()


@dataclass
class Question:
    """Something to compute: with the transforms, and with a plain loop for comparison."""

    what: str
    ours: Callable[[], Tensor]
    loop: Callable[[], Tensor]


def per_sample_gradients(network: nn.Module, images: Tensor, labels: Tensor) -> Question:
    """The gradient of every sample's own loss in all parameters."""
    parameters = {name: p.detach() for name, p in network.named_parameters()}

    def loss(parameters, image, label):
        logits = functional_call(network, parameters, (image.unsqueeze(0),))
        return cross_entropy(logits, label.unsqueeze(0))

    def ours():
        gradients = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, images, labels)
        return torch.cat([gradient.flatten(1) for gradient in gradients.values()], dim=1)

    def loop():
        rows = []
        for image, label in zip(images, labels):
            loss = cross_entropy(network(image.unsqueeze(0)), label.unsqueeze(0))
            gradients = torch.autograd.grad(loss, list(network.parameters()))
            rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
        return torch.stack(rows)

    return Question("per-sample gradients: vmap(grad(loss))", ours, loop)


def ensemble(networks: list[nn.Sequential], images: Tensor) -> Question:
    """The logits of several networks for the same images."""
    parameters, buffers = stack_module_state(networks)

    def logits(parameters, buffers, images):
        return functional_call(networks[0], (parameters, buffers), (images,))

    def ours():
        with torch.no_grad():
            return vmap(logits, in_dims=(0, 0, None))(parameters, buffers, images)

    def loop():
        with torch.no_grad():
            return torch.stack([network(images) for network in networks])

    return Question(f"ensemble of {len(networks)}: vmap(functional_call)", ours, loop)


def jacobians(network: nn.Module, images: Tensor) -> list[Question]:
    """The Jacobian of the ten logits in the pixels, for every image."""

    def logits(image):
        return network(image.unsqueeze(0)).squeeze(0)

    def loop():
        rows = []
        for image in images:
            image = image.clone().requires_grad_()
            rows += [
                torch.autograd.grad(logit, image, retain_graph=True)[0] for logit in logits(image)
            ]
        return torch.stack(rows).unflatten(0, (len(images), 10))

    return [
        Question(
            "Jacobians, reverse: vmap(jacrev(logits))", lambda: vmap(jacrev(logits))(images), loop
        ),
        Question(
            "Jacobians, forward: vmap(jacfwd(logits))", lambda: vmap(jacfwd(logits))(images), loop
        ),
    ]


def last_layer_hessian(network: nn.Sequential, images: Tensor, labels: Tensor) -> Question:
    """The Hessian of the batch's loss in the weights of the last layer."""
    name, weight = f"{len(network) - 1}.weight", network[-1].weight.detach()

    def loss(weight):
        return cross_entropy(functional_call(network, {name: weight}, (images,)), labels)

    def ours():
        return hessian(loss)(weight)

    def loop():
        own = network[-1].weight
        value = cross_entropy(network(images), labels)
        (gradient,) = torch.autograd.grad(value, own, create_graph=True)
        rows = [
            torch.autograd.grad(entry, own, retain_graph=True)[0] for entry in gradient.flatten()
        ]
        return torch.stack(rows).unflatten(0, own.shape)

    return Question("last layer's Hessian: hessian(loss)", ours, loop)


def median_seconds(function: Callable[[], object], runs: int) -> float:
    """The median time of several runs. The caller has run it before: it is warm."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def answer(questions: list[Question]) -> bool:
    """Prints the table; returns whether every answer agrees with its loop."""
    heads = ("what", "shape", "max error", "time", "loop", "ratio")
    row = "{:42}  {:>15}  {:>9}  {:>10}  {:>10}  {:>6}"
    print(row.format(*heads))
    agree = True
    for question in questions:
        result, expected = question.ours().detach(), question.loop().detach()
        same_kind = result.shape == expected.shape and result.dtype == expected.dtype
        error = (result - expected).abs().max().item() if same_kind else float("inf")
        # Written so that a NaN counts as a disagreement.
        wrong = not error <= TOLERANCE
        agree = agree and not wrong
        ours, loop = median_seconds(question.ours, 7), median_seconds(question.loop, 3)
        shape = "x".join(map(str, result.shape))
        numbers = (
            f"{error:.1e}",
            f"{ours * 1e3:.2f} ms",
            f"{loop * 1e3:.2f} ms",
            f"{loop / ours:.1f}x",
        )
        print(row.format(question.what, shape, *numbers) + ("  WRONG" if wrong else ""))
    return agree


def draw(path: Path, images: Tensor, labels: Tensor, gradients: Tensor, jacobian: Tensor) -> None:
    """The eight samples with the largest gradients, above the pixels that their logit hangs on."""
    norms = gradients.norm(dim=1)
    chosen = norms.argsort(descending=True)[:8]
    figure, axes = plt.subplots(2, len(chosen), figsize=(12, 3.6), layout="constrained")
    for (top, bottom), i in zip(axes.T, chosen.tolist()):
        label = labels[i].item()
        top.imshow(images[i, 0], cmap="gray_r")
        top.set_title(f"a {label}\n|gradient| = {norms[i]:.2g}", fontsize=9)
        slopes = jacobian[i, label, 0]
        bound = slopes.abs().max()
        bottom.imshow(slopes, cmap="RdBu", vmin=-bound, vmax=bound)
        bottom.set_title(f"slope of logit {label}", fontsize=9)
        top.axis("off")
        bottom.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main() -> int:
    parser = argparse.ArgumentParser(description="The quickstart of functorch_ext")
    parser.add_argument("--output", type=Path, default=Path("build/quickstart.png"))
    output = parser.parse_args().output

    torch.set_num_threads(1)  # Networks this small gain nothing from threads; times vary less.
    torch.manual_seed(0)
    train_images, train_labels, test_images, test_labels = load_data()
    network = make_network()
    members = [make_member() for _ in range(ENSEMBLE_SIZE)]
    for each in [network, *members]:
        train(each, train_images, train_labels)
    with torch.no_grad():
        logits = torch.stack([member(test_images) for member in members])
        accuracy = (network(test_images).argmax(1) == test_labels).double().mean()
    accuracies = (logits.argmax(2) == test_labels).double().mean(1)
    together = (logits.softmax(2).mean(0).argmax(1) == test_labels).double().mean()
    print(
        f"Trained on {len(train_images)} digits; accuracy on {len(test_images)} others: "
        f"{accuracy:.1%} of a convolutional network, {accuracies.min():.1%} to "
        f"{accuracies.max():.1%} of {ENSEMBLE_SIZE} small ones, {together:.1%} of these together\n"
    )

    # Rounding would hide mistakes: from here on everything is float64.
    network, members = network.double(), [member.double() for member in members]
    images, labels = test_images[:BATCH_SIZE].double(), test_labels[:BATCH_SIZE]
    gradients = per_sample_gradients(network, images, labels)
    slopes = jacobians(network, images)
    agree = answer(
        [
            gradients,
            ensemble(members, images[:ENSEMBLE_BATCH]),
            *slopes,
            last_layer_hessian(network, images, labels),
        ]
    )
    draw(output, images, labels, gradients.ours().detach(), slopes[0].ours().detach())
    print(f"\npicture: {output}")

    if not agree:
        print(f"an answer differs from its loop by more than {TOLERANCE:g}", file=sys.stderr)
    trained = min(accuracy, together) >= REQUIRED_ACCURACY
    if not trained:
        print(f"a network stays below {REQUIRED_ACCURACY:.0%} accuracy", file=sys.stderr)
    return 0 if agree and trained else 1


if __name__ == "__main__":
    sys.exit(main())
