"""What lies below a time: the work that is left when a transform costs nothing.

Some targets ask for less time than that. Here stand, beside such workloads, computations that do
less than they do.

python -m benchmarks.bounds
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear, mse_loss

import functorch_ext
from benchmarks.models import CLASSES, convnet, mlp, transformer_layer
from benchmarks.part import run_part
from benchmarks.peers import BY_HAND, OURS, TORCH_FUNC, Peers
from benchmarks.report import microseconds, table
from benchmarks.timing import measure
from benchmarks.workload import Workload
from benchmarks.workloads.ensembles import ensemble
from benchmarks.workloads.meta_learning import maml
from benchmarks.workloads.per_sample import of_convnet, of_transformer

ROUNDS = 40
OF_THE_BATCH = "plain autograd's gradient of the whole batch"


def gradient_of_images() -> Callable[[], Any]:
    """Plain autograd's one gradient of all samples' loss: not a gradient for each sample."""
    model = convnet()
    x, labels = torch.randn(32, 1, 28, 28), torch.randint(CLASSES, (32,))
    leaves = list(model.parameters())
    return lambda: torch.autograd.grad(cross_entropy(model(x), labels), leaves)


def gradient_of_sequences() -> Callable[[], Any]:
    """The same, of the transformer layer."""
    model = transformer_layer(width=64)
    x, goal = torch.randn(16, 32, 64), torch.randn(16, 32, 64)
    leaves = list(model.parameters())
    return lambda: torch.autograd.grad(mse_loss(model(x), goal), leaves)


def ensemble_of_functions() -> Callable[[], Any]:
    """vmap of the layers' operators, without calls of modules."""
    models = [mlp(16, 32, 16).requires_grad_(False) for _ in range(10)]
    parameters, _ = functorch_ext.stack_module_state(models)
    x = torch.randn(32, 16)

    def call(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        hidden = linear(x, weights["0.weight"], weights["0.bias"]).tanh()
        return linear(hidden, weights["2.weight"], weights["2.bias"])

    stacked = {name: value.detach() for name, value in parameters.items()}
    mapped = functorch_ext.vmap(call, in_dims=(0, None))
    return lambda: mapped(stacked, x)


Others = dict[str, Callable[[], Callable[[], Any]]]
BOUNDS: list[tuple[Workload, Others]] = [
    (of_convnet, {OF_THE_BATCH: gradient_of_images}),
    (of_transformer, {OF_THE_BATCH: gradient_of_sequences}),
    (ensemble, {"ours, without calls of modules": ensemble_of_functions}),
    (maml, {}),
]


def measure_all() -> dict[str, Any]:
    """Times relative to ours.

    Returns:
        By workload: ``seconds`` that ours takes, and ``ratios`` of the others' times to it.
    """
    torch.set_num_threads(1)
    results = {}
    for workload, others in BOUNDS:
        peers = Peers([OURS, TORCH_FUNC, BY_HAND])
        contenders = {k: v for k, v in workload.build(peers).items() if k in peers.names}
        contenders |= {name: make() for name, make in others.items()}
        timings = measure(contenders, OURS, ROUNDS)
        ratios = {name: timing.ratio for name, timing in timings.items() if name != OURS}
        results[workload.name] = {"seconds": timings[OURS].seconds, "ratios": ratios}
    return results


def tables(results: dict[str, Any]) -> str:
    """A row for each comparison."""
    rows = [
        [name if index == 0 else "", other, f"{ratio:.2f}", microseconds(ratio * each["seconds"])]
        for name, each in results.items()
        for index, (other, ratio) in enumerate({OURS: 1.0, **each["ratios"]}.items())
    ]
    return table(["Workload", "What is computed", "× our time", "µs"], rows)


if __name__ == "__main__":
    run_part("bounds", __doc__, measure_all, tables)
