"""Networks on graphs, sets, trajectories and rays: GCN, DeepSet, neural ODE, NeRF."""

import torch
from torch import Tensor, nn

from benchmarks.real.task import Entry, Task, classify, squares


class GCN(nn.Module):
    """Messages along edges, summed by scatter: Kipf and Welling (2017)."""

    def __init__(self, inputs: int = 16, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Linear(*sizes) for sizes in ((inputs, width), (width, width))
        )
        self.head = nn.Linear(width, 10)

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        source, target = edges.unbind(1)  # (graphs, edges) each
        for layer in self.layers:
            x = layer(nodes)
            there = source.unsqueeze(-1).expand(-1, -1, x.size(-1))
            here = target.unsqueeze(-1).expand(-1, -1, x.size(-1))
            nodes = (x + torch.zeros_like(x).scatter_add(1, here, x.gather(1, there))).relu()
        return self.head(nodes.mean(1))


class DeepSet(nn.Module):
    """Elements one by one, their sum, and a layer on that: Zaheer et al. (2017)."""

    def __init__(self, inputs: int = 16, width: int = 128) -> None:
        super().__init__()
        self.each = nn.Sequential(
            nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
        )
        self.head = nn.Linear(width, 10)

    def forward(self, sets: Tensor) -> Tensor:
        return self.head(self.each(sets).mean(1))


class NeuralODE(nn.Module):
    """Ten Runge-Kutta steps of a vector field: Chen et al. (2018)."""

    def __init__(self, width: int = 16, hidden: int = 64, steps: int = 10) -> None:
        super().__init__()
        self.field = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, width))
        self.head, self.steps = nn.Linear(width, 10), steps

    def forward(self, x: Tensor) -> Tensor:
        h = 1 / self.steps
        for _ in range(self.steps):
            k1 = self.field(x)
            k2 = self.field(x + h / 2 * k1)
            k3 = self.field(x + h / 2 * k2)
            k4 = self.field(x + h * k3)
            x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return self.head(x)


class NeRF(nn.Module):
    """Colour along rays: encoded places, a perceptron, alpha compositing (Mildenhall 2020)."""

    def __init__(self, width: int = 128, frequencies: int = 6) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2.0 ** torch.arange(frequencies))
        self.field = nn.Sequential(
            nn.Linear(6 * frequencies, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
        )
        self.head = nn.Linear(width, 4)
        nn.init.ones_(self.head.bias)  # Rays through no density at all have gradients of zero.

    def forward(self, points: Tensor) -> Tensor:  # (rays, places along the ray, 3)
        phases = (points.unsqueeze(-1) * self.frequencies).flatten(-2)
        field = self.head(self.field(torch.cat([phases.sin(), phases.cos()], -1)))
        density, colour = field[..., 3].relu(), field[..., :3].sigmoid()
        passed = (-density / points.size(1)).cumsum(1).exp()
        return ((passed * density / points.size(1)).unsqueeze(-1) * colour).sum(1)


def _graphs(samples: int) -> Task:
    nodes, edges = torch.randn(samples, 32, 16), torch.randint(32, (samples, 2, 128))
    return Task(GCN(), (nodes, edges), torch.randint(10, (samples,)), classify)


def _classified(model: nn.Module, x: Tensor) -> Task:
    return Task(model, (x,), torch.randint(10, (len(x),)), classify)


def _rays(samples: int) -> Task:
    return Task(NeRF(), (torch.rand(samples, 32, 3),), torch.rand(samples, 3), squares)


ENTRIES = [
    Entry("GCN, 32 nodes, 128 edges", _graphs, 32, 1024),
    Entry(
        "DeepSet, 50 elements", lambda n: _classified(DeepSet(), torch.randn(n, 50, 16)), 32, 512
    ),
    Entry(
        "neural ODE, 10 RK4 steps", lambda n: _classified(NeuralODE(), torch.randn(n, 16)), 32, 512
    ),
    Entry("NeRF, 32 places a ray", _rays, 16, 512),
]
