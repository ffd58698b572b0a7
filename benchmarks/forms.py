"""The forms of a convolution's per-sample gradients side by side, and which of them vmap takes.

python -m benchmarks.forms

One thread, 3x3 kernels. The table is sorted by what decides, how many places the weight's gradient
is summed over for each channel of the output: vmap takes patches up to `most_places_per_channel` of
csrc/batching/convolution_forms.cpp, which should be where groups become the faster form.
"""

import torch
from torch import Tensor

from benchmarks.run import use_threads
from benchmarks.timing import Contenders, assert_equal_results, measure
from functorch_ext import _C, explain, vmap

# Channels in, channels out, size.
SHAPES = (
    (16, 16, 16),
    (32, 32, 16),
    (64, 64, 16),
    (64, 96, 16),
    (128, 128, 16),
    (128, 256, 16),
    (256, 256, 16),
    (256, 256, 8),
    (512, 512, 8),
)
SAMPLES = 4
ROUNDS = 15


def weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, groups: int = 1) -> Tensor:
    """The gradient of a convolution's weight, summed over its batch."""
    ones, mask = (1, 1), (False, True, False)
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, ones, ones, ones, False, (0, 0), groups, mask
    )[1]


def forms(channels: int, outputs: int, size: int) -> Contenders:
    """The gradient of each sample, by vmap and by each of the forms that it has."""
    x, grad = torch.randn(SAMPLES, channels, size, size), torch.randn(SAMPLES, outputs, size, size)
    weight = torch.randn(outputs, channels, 3, 3)
    of_each = vmap(lambda grad, x: weight_gradient(grad.unsqueeze(0), x.unsqueeze(0), weight))
    joined = grad.flatten(0, 1).unsqueeze(0), x.flatten(0, 1).unsqueeze(0)
    stacked = weight.repeat(SAMPLES, 1, 1, 1)
    ones = [1, 1]
    return {
        "vmap": lambda: of_each(grad, x),
        "patches": lambda: _C.weight_gradient_of_patches(
            grad.unsqueeze(1), x.unsqueeze(1), [3, 3], ones, ones, ones
        ),
        "groups": lambda: weight_gradient(*joined, stacked, SAMPLES).unflatten(0, (SAMPLES, -1)),
        "in turn": lambda: torch.stack(
            [weight_gradient(grad[i : i + 1], x[i : i + 1], weight) for i in range(SAMPLES)]
        ),
    }


def taken(contenders: Contenders) -> str:
    """Which form vmap takes: by how many convolutions are below its call."""
    kernels = [call for call in explain(contenders["vmap"])().walk() if call.plane == 0]
    convolutions = sum(call.count for call in kernels if "convolution" in call.operator)
    return {0: "patches", 1: "groups"}.get(convolutions, "in turn")


def main() -> None:
    """Prints the table."""
    use_threads(1)
    torch.manual_seed(0)
    print(f"{torch.backends.cpu.get_cpu_capability()}, {SAMPLES} samples, ms")
    titles = ("vmap", "patches", "groups", "in turn")
    print(f"{'shape':>14} places/channel", *(f"{title:>8}" for title in titles), "fastest, taken")
    for channels, outputs, size in sorted(SHAPES, key=lambda shape: -(shape[2] ** 2) / shape[1]):
        contenders = forms(channels, outputs, size)
        assert_equal_results(contenders, "in turn", atol=1e-3)
        timings = measure(contenders, "vmap", ROUNDS)
        fastest = min(titles[1:], key=lambda title: timings[title].ratio)
        print(
            f"{channels:>3}->{outputs:<3} {size:>2}x{size:<2} {size**2 / outputs:>14.2f}",
            *(f"{1e3 * timings[title].seconds:>8.2f}" for title in titles),
            f"{fastest}, {taken(contenders)}",
        )


if __name__ == "__main__":
    main()
