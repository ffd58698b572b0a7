"""Measures what the choice between the forms of a convolution's per-sample gradients rests on.

python -m benchmarks.forms

Nanoseconds, to go into csrc/batching/convolution_forms.cpp: a number of a patch that is copied for
a product, and a weight of a group beyond its arithmetic. One thread; the rest of the machine idle.
"""

import statistics
from collections.abc import Callable

import torch
from torch import Tensor

import functorch_ext
from benchmarks.run import use_threads
from benchmarks.timing import measure

# Channels in, channels out, size: of so few places for their channels that patches are taken.
SHAPES = ((128, 128, 16), (128, 256, 16), (256, 256, 8), (256, 256, 16), (512, 512, 8))
SAMPLES = 4


def costs(channels: int, outputs: int, size: int) -> tuple[float, float]:
    """Of a number of a patch, and of a weight of a group, in nanoseconds."""
    x, grad = torch.randn(SAMPLES, channels, size, size), torch.randn(SAMPLES, outputs, size, size)
    weight = torch.randn(outputs, channels, 3, 3)
    patches = torch.randn(SAMPLES, channels * 9, size * size)
    product = torch.empty(SAMPLES, outputs, channels * 9)

    def gradient(grad: Tensor, x: Tensor, weight: Tensor, groups: int = 1) -> Tensor:
        ones, mask = (1, 1), (False, True, False)
        return torch.ops.aten.convolution_backward(
            grad, x, weight, None, ones, ones, ones, False, (0, 0), groups, mask
        )[1]

    each = functorch_ext.vmap(lambda grad, x: gradient(grad.unsqueeze(0), x.unsqueeze(0), weight))
    joined = grad.flatten(0, 1).unsqueeze(0), x.flatten(0, 1).unsqueeze(0)
    stacked = weight.repeat(SAMPLES, 1, 1, 1)
    ways: dict[str, Callable[[], Tensor]] = {
        "patches": lambda: each(grad, x),
        "groups": lambda: gradient(*joined, stacked, SAMPLES),
        "product": lambda: torch.bmm(grad.flatten(2), patches.mT, out=product),
    }
    seconds = {name: timing.seconds for name, timing in measure(ways, "product", 20).items()}
    beyond = {name: 1e9 * (seconds[name] - seconds["product"]) for name in ("patches", "groups")}
    return beyond["patches"] / patches.numel(), beyond["groups"] / product.numel()


def main() -> None:
    """Prints the medians over the shapes."""
    use_threads(1)
    measured = [costs(*shape) for shape in SHAPES]
    print(torch.backends.cpu.get_cpu_capability())
    for name, values in zip(("patch_number", "group_weight"), zip(*measured)):
        print(f"{name}: {statistics.median(values):.2f} ns")


if __name__ == "__main__":
    main()
