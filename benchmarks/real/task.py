"""A network, a batch for it, and a loss: what the uses in :mod:`benchmarks.real.uses` work on."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss


def classify(output: Tensor, labels: Tensor) -> Tensor:
    """The sum of the samples' cross entropies; of a sequence, the mean of its tokens'."""
    if output.dim() == 3:  # (samples, tokens, classes)
        losses = cross_entropy(output.transpose(1, 2), labels, reduction="none")
        return losses.mean(1).sum()
    return cross_entropy(output, labels, reduction="sum")


def squares(output: Tensor, goal: Tensor) -> Tensor:
    """The sum of the samples' mean squared errors."""
    return mse_loss(output, goal, reduction="sum") * len(goal) / goal.numel()


@dataclass(frozen=True)
class Task:
    """One thing to train.

    Attributes:
        model: takes batches.
        inputs: its arguments, samples along dimension 0.
        goal: what its output is compared with, samples along dimension 0.
        loss: of the output and the goal, summed over the samples.
        head: the name of a small layer at the model's end, whose parameters have a Jacobian.
    """

    model: nn.Module
    inputs: tuple[Tensor, ...]
    goal: Tensor
    loss: Callable[[Tensor, Tensor], Tensor]
    head: str = "head"

    def batch(self, size: int) -> "Task":
        """The same with the first samples alone."""
        inputs = tuple(x[:size] for x in self.inputs)
        return Task(self.model, inputs, self.goal[:size], self.loss, self.head)


@dataclass(frozen=True)
class Entry:
    """A row of the benchmark.

    Attributes:
        name: the network and its sizes.
        build: makes a task of so many samples.
        samples: how many for a processor's core, and ``on_gpu`` for a graphics processor.
    """

    name: str
    build: Callable[[int], Task]
    samples: int
    on_gpu: int
