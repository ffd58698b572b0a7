"""Differentially private training: per-sample gradients, clipped, summed and noised (DP-SGD).

A step draws each sample of the training set with the same probability, clips the gradient of each
to a norm of at most C, sums, and adds Gaussian noise of standard deviation `noise * C`. What the
network learns from any one sample is bounded, and the accountant says by how much: it is
(epsilon, delta)-differentially private. Source: M. Abadi et al., "Deep Learning with Differential
Privacy", 2016, arXiv:1607.00133.

    python -m tutorials.train_dp_sgd                      # scikit-learn's digits, on the CPU
    python -m tutorials.train_dp_sgd --device cuda --amp --jit
    python -m tutorials.train_dp_sgd --data folder        # of images, in one folder per class
    python -m tutorials.train_dp_sgd --resume             # goes on where the last run stopped
    torchrun --nproc-per-node 2 -m tutorials.train_dp_sgd # each process with a part of the data

Writes metrics.csv, metrics.png and checkpoint.pt into --output. For epsilon: pip install opacus.
"""

import argparse
import csv
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from functorch_ext import functional_call, grad_and_value, jit, vmap

Gradients = dict[str, Tensor]
COLUMNS = ("epoch", "steps", "loss", "clipped", "accuracy", "epsilon", "seconds")


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="train_dp_sgd", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="a folder of images (digits unless given)")
    parser.add_argument("--size", type=int, default=32, help="of those images, in pixels")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=256, help="samples of a step, on average")
    parser.add_argument("--chunk-size", type=int, default=64, help="gradients held at a time")
    parser.add_argument("--learning-rate", type=float, default=0.5)
    parser.add_argument("--max-norm", type=float, default=1.0, help="of a sample's gradient: C")
    parser.add_argument("--noise", type=float, default=1.0, help="standard deviation / C")
    parser.add_argument("--delta", type=float, help="1 / samples unless given")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--amp", action="store_true", help="compute in bfloat16")
    parser.add_argument("--jit", action="store_true", help="compile the step")
    parser.add_argument("--resume", action="store_true", help="from the checkpoint in --output")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("build/dp_sgd"))
    return parser.parse_args(arguments)


def digits() -> tuple[Tensor, Tensor]:
    """scikit-learn's 1797 handwritten digits, as 1x8x8 images in [0, 1]."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return torch.tensor(data.images, dtype=torch.float32)[:, None] / 16, torch.tensor(data.target)


def folder_of_images(folder: Path, size: int) -> tuple[Tensor, Tensor]:
    """Images in one folder per class, as gray images in [0, 1]."""
    from matplotlib.image import imread

    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    images, labels = [], []
    for label, path in enumerate(classes):
        for file in sorted(path.iterdir()):
            pixels = torch.tensor(imread(file), dtype=torch.float32)
            if pixels.max() > 1:
                pixels = pixels / 255
            gray = pixels[..., :3].mean(-1) if pixels.dim() == 3 else pixels
            images.append(nn.functional.interpolate(gray[None, None], (size, size))[0])
            labels.append(label)
    if not images:
        raise SystemExit(f"train_dp_sgd: no images in {folder}, which needs one folder per class")
    return torch.stack(images), torch.tensor(labels)


def make_network(images: Tensor, classes: int) -> nn.Sequential:
    """A small convolutional network. (Batch norm would mix the samples: group norm doesn't.)"""
    return nn.Sequential(
        nn.Conv2d(images.shape[1], 16, 3, padding=1),
        nn.GroupNorm(4, 16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.GroupNorm(4, 32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(128, classes),
    )


def make_clipped_sum(
    network: nn.Module, max_norm: float, device: str, amp: bool
) -> Callable[[Gradients, Tensor, Tensor, Tensor], tuple[Gradients, Tensor, Tensor]]:
    """Of a chunk: the sum of the clipped gradients, of the losses, and of how many were clipped."""

    def loss(parameters: Gradients, image: Tensor, label: Tensor) -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=amp):
            output = functional_call(network, parameters, (image[None],))
        return cross_entropy(output.float(), label[None])

    of_samples = vmap(grad_and_value(loss), in_dims=(None, 0, 0))

    def clipped_sum(
        parameters: Gradients, images: Tensor, labels: Tensor, weights: Tensor
    ) -> tuple[Gradients, Tensor, Tensor]:
        gradients, losses = of_samples(parameters, images, labels)
        squares = [part.flatten(1).square().sum(1) for part in gradients.values()]
        norms = torch.stack(squares).sum(0).sqrt()
        scales = weights * (max_norm / norms).clamp(max=1)
        summed = {
            name: torch.einsum("i,i...->...", scales, part) for name, part in gradients.items()
        }
        return summed, (weights * losses).sum(), (weights * (norms > max_norm)).sum()

    return clipped_sum


def chunks(indices: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Pieces of one size, and the weights of their samples: 0 where the last one is filled up."""
    for start in range(0, len(indices), size):
        piece = indices[start : start + size]
        filled = torch.zeros(size, dtype=torch.long, device=indices.device)
        filled[: len(piece)] = piece
        yield filled, (torch.arange(size, device=indices.device) < len(piece)).float()


class Processes:
    """The processes that torchrun has started, or this one alone."""

    def __init__(self, device: str) -> None:
        self.count = int(os.environ.get("WORLD_SIZE", 1))
        self.rank = int(os.environ.get("RANK", 0))
        self.device = device
        if device == "cuda" and self.count > 1:
            self.device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
            torch.cuda.set_device(self.device)
        if self.count > 1 and not distributed.is_initialized():
            distributed.init_process_group("nccl" if device == "cuda" else "gloo")

    def part(self, tensor: Tensor) -> Tensor:
        return tensor[self.rank :: self.count]

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Over all processes, in place."""
        if self.count > 1:
            for tensor in tensors:
                distributed.all_reduce(tensor)


class Accountant:
    """What the training has revealed; by Opacus, if it is installed."""

    def __init__(self, noise: float, rate: float, delta: float) -> None:
        self.noise, self.rate, self.delta, self.steps = noise, rate, delta, 0
        try:
            from opacus.accountants import RDPAccountant
        except ImportError:
            self._make: Any = None
        else:
            self._make = RDPAccountant

    def epsilon(self) -> float | None:
        if self._make is None:
            return None
        if self.noise == 0:
            return float("inf")
        accountant = self._make()
        accountant.history = [(self.noise, self.rate, self.steps)]
        return float(accountant.get_epsilon(self.delta))


class Training:
    """The state of a run: the network, its optimizer, the random numbers and the metrics."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.processes = Processes(options.device)
        self.device = self.processes.device
        if options.data:
            images, labels = folder_of_images(options.data, options.size)
        else:
            images, labels = digits()
        torch.manual_seed(options.seed)
        order = torch.randperm(len(images))
        images, labels = images[order].to(self.device), labels[order].to(self.device)
        held_out = len(images) // 5
        self.test = images[:held_out], labels[:held_out]
        self.count = len(images) - held_out
        self.train = tuple(self.processes.part(each[held_out:]) for each in (images, labels))
        self.network = make_network(images, int(labels.max()) + 1).to(self.device)
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), lr=options.learning_rate, momentum=0.5
        )
        self.rate = min(1.0, options.batch_size / self.count)
        self.accountant = Accountant(options.noise, self.rate, options.delta or 1 / self.count)
        self.rows: list[dict[str, Any]] = []
        clipped_sum = make_clipped_sum(
            self.network, options.max_norm, self.device.split(":")[0], options.amp
        )
        self.clipped_sum = jit(clipped_sum) if options.jit else clipped_sum
        # Each process draws its own samples and its own share of the noise.
        self.generator = torch.Generator(self.device)
        self.generator.manual_seed(options.seed * 1000 + 1 + self.processes.rank)

    def step(self) -> tuple[Tensor, Tensor, Tensor]:
        """One step of the optimizer; the sums of losses, of clipped and of drawn samples."""
        images, labels = self.train
        drawn = torch.rand(len(images), generator=self.generator, device=self.device) < self.rate
        indices = drawn.nonzero()[:, 0]
        parameters = dict(self.network.named_parameters())
        total = {name: torch.zeros_like(each) for name, each in parameters.items()}
        losses, clipped = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        constants = {name: each.detach() for name, each in parameters.items()}
        for piece, weights in chunks(indices, self.options.chunk_size):
            found = self.clipped_sum(constants, images[piece], labels[piece], weights)
            for name, part in found[0].items():
                total[name] += part
            losses, clipped = losses + found[1], clipped + found[2]

        # Noise of variance 1/n from each of n processes sums to noise of variance 1.
        deviation = self.options.noise * self.options.max_norm / self.processes.count**0.5
        for part in total.values():
            noise = torch.empty_like(part).normal_(generator=self.generator)
            part += deviation * noise
        number = drawn.sum().float()
        self.processes.sum_([*total.values(), losses, clipped, number])
        for name, parameter in parameters.items():
            parameter.grad = total[name] / (self.rate * self.count)
        self.optimizer.step()
        self.accountant.steps += 1
        return losses, clipped, number

    @torch.no_grad()
    def accuracy(self) -> float:
        images, labels = self.test
        return (self.network(images).argmax(1) == labels).float().mean().item()

    def epoch(self) -> dict[str, Any]:
        """Goes once through the data, on average."""
        start = time.perf_counter()
        steps = max(1, round(1 / self.rate))
        quiet = self.processes.rank > 0 or not sys.stderr.isatty()
        title = f"epoch {len(self.rows) + 1}/{self.options.epochs}"
        sums = [self.step() for _ in tqdm(range(steps), title, leave=False, disable=quiet)]
        losses, clipped, number = (sum(float(each[i]) for each in sums) for i in range(3))
        epsilon = self.accountant.epsilon()
        row = (
            len(self.rows) + 1, self.accountant.steps, losses / max(number, 1),
            clipped / max(number, 1), self.accuracy(), epsilon, time.perf_counter() - start,
        )  # fmt: skip
        return dict(zip(COLUMNS, row, strict=True))

    def run(self) -> list[dict[str, Any]]:
        """Trains, and writes metrics and a checkpoint after each epoch."""
        if self.options.resume:
            self.load()
        while len(self.rows) < self.options.epochs:
            self.rows.append(self.epoch())
            self.save()
            if self.processes.rank == 0:
                print("  ".join(f"{name} {told(value)}" for name, value in self.rows[-1].items()))
        if self.processes.rank == 0:
            draw(self.rows, self.options.output / "metrics.png")
        return self.rows

    def _checkpoint(self) -> Path:
        return self.options.output / f"checkpoint{self.processes.rank or ''}.pt"

    def save(self) -> None:
        self.options.output.mkdir(parents=True, exist_ok=True)
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "steps": self.accountant.steps,
            "rows": self.rows,
        }
        # In one move: a run that is cut off here leaves the last checkpoint as it was.
        written = self._checkpoint().with_suffix(".new")
        torch.save(state, written)
        written.replace(self._checkpoint())
        if self.processes.rank == 0:
            with (self.options.output / "metrics.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS)
                writer.writeheader()
                writer.writerows(self.rows)

    def load(self) -> None:
        if not self._checkpoint().exists():
            raise SystemExit(f"train_dp_sgd: there is no {self._checkpoint()} to resume from")
        state = torch.load(self._checkpoint(), map_location=self.device)
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"].cpu())
        self.accountant.steps, self.rows = state["steps"], state["rows"]


def told(value: Any) -> str:
    if value is None:
        return "unknown"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Accuracy and, where it is known, epsilon by epoch."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, left = plt.subplots(figsize=(6, 4), layout="constrained")
    epochs = [row["epoch"] for row in rows]
    left.plot(epochs, [row["accuracy"] for row in rows], "o-", color="C0")
    left.set(xlabel="epoch", ylabel="test accuracy", ylim=(0, 1))
    left.yaxis.label.set_color("C0")
    if rows and rows[0]["epsilon"] is not None:
        right = left.twinx()
        right.plot(epochs, [row["epsilon"] for row in rows], "s--", color="C1")
        right.set_ylabel("epsilon")
        right.yaxis.label.set_color("C1")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    return Training(parsed(arguments)).run()


if __name__ == "__main__":
    main()
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
