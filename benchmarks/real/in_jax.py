"""Some of the networks as JAX functions of one sample, which compute what the modules do.

They take the module's own weights by their names, and from the module what isn't a weight: the
number of steps, the kind of layer. Those that JAX's users would write with a loop inside of the
compiled program are written so.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

from torch import nn

from benchmarks.real.geometry import GCN, DeepSet, NeRF, NeuralODE
from benchmarks.real.language import Recurrent
from benchmarks.real.task import Task, classify, squares

Weights = dict[str, Any]  # Arrays of JAX.


def loss_of_sample(task: Task) -> Callable[..., Any] | None:
    """The loss of one sample, of ``(jax, weights, goal, *sample)``; None if it isn't written."""
    network, loss = NETWORKS.get(type(task.model)), LOSSES.get(task.loss)
    if network is None or loss is None:
        return None

    def of_sample(jax: ModuleType, weights: Weights, goal: Any, *sample: Any) -> Any:
        return loss(jax, network(jax, task.model, weights, *sample), goal)

    return of_sample


def _linear(weights: Weights, name: str, x: Any) -> Any:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _gcn(jax: ModuleType, model: GCN, weights: Weights, nodes: Any, edges: Any) -> Any:
    source, target = edges
    for layer in range(len(model.layers)):
        x = _linear(weights, f"layers.{layer}", nodes)
        nodes = jax.nn.relu(x + jax.ops.segment_sum(x[source], target, len(x)))
    return _linear(weights, "head", nodes.mean(0))


def _deep_set(jax: ModuleType, model: DeepSet, weights: Weights, elements: Any) -> Any:
    hidden = jax.nn.relu(_linear(weights, "each.0", elements))
    hidden = jax.nn.relu(_linear(weights, "each.2", hidden))
    return _linear(weights, "head", hidden.mean(0))


def _neural_ode(jax: ModuleType, model: NeuralODE, weights: Weights, x: Any) -> Any:
    h = 1 / model.steps

    def field(x: Any) -> Any:
        return _linear(weights, "field.2", jax.numpy.tanh(_linear(weights, "field.0", x)))

    def step(x: Any, _: None) -> tuple[Any, None]:
        k1 = field(x)
        k2 = field(x + h / 2 * k1)
        k3 = field(x + h / 2 * k2)
        k4 = field(x + h * k3)
        return x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), None

    return _linear(weights, "head", jax.lax.scan(step, x, length=model.steps)[0])


def _nerf(jax: ModuleType, model: NeRF, weights: Weights, points: Any) -> Any:
    numpy, places = jax.numpy, len(points)
    frequencies = 2.0 ** numpy.arange(len(model.frequencies))
    phases = (points[..., None] * frequencies).reshape(places, -1)
    hidden = numpy.concatenate([numpy.sin(phases), numpy.cos(phases)], -1)
    for layer in (0, 2, 4):
        hidden = jax.nn.relu(_linear(weights, f"field.{layer}", hidden))
    field = _linear(weights, "head", hidden)
    density, colour = jax.nn.relu(field[:, 3]), jax.nn.sigmoid(field[:, :3])
    passed = numpy.exp(numpy.cumsum(-density / places))
    return ((passed * density / places)[:, None] * colour).sum(0)


def _recurrent(jax: ModuleType, model: Recurrent, weights: Weights, x: Any) -> Any:
    step, states = (_lstm_step, 2) if isinstance(model.layer, nn.LSTM) else (_gru_step, 1)
    weight, bias = weights["layer.weight_hh_l0"], weights["layer.bias_hh_l0"]
    of_inputs = x @ weights["layer.weight_ih_l0"].T + weights["layer.bias_ih_l0"]

    def scanned(state: tuple[Any, ...], of_input: Any) -> tuple[tuple[Any, ...], None]:
        return step(jax, state, of_input, state[0] @ weight.T + bias), None

    start = (jax.numpy.zeros(weight.shape[1]),) * states
    return _linear(weights, "head", jax.lax.scan(scanned, start, of_inputs)[0][0])


def _lstm_step(jax: ModuleType, state: tuple[Any, Any], of_input: Any, of_state: Any) -> Any:
    i, f, g, o = jax.numpy.split(of_input + of_state, 4)
    cell = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jax.numpy.tanh(g)
    return jax.nn.sigmoid(o) * jax.numpy.tanh(cell), cell


def _gru_step(jax: ModuleType, state: tuple[Any], of_input: Any, of_state: Any) -> Any:
    (r, z, n), (r_h, z_h, n_h) = jax.numpy.split(of_input, 3), jax.numpy.split(of_state, 3)
    new = jax.numpy.tanh(n + jax.nn.sigmoid(r + r_h) * n_h)
    kept = jax.nn.sigmoid(z + z_h)
    return ((1 - kept) * new + kept * state[0],)


def _cross_entropy(jax: ModuleType, output: Any, label: Any) -> Any:
    return -jax.nn.log_softmax(output)[label]


def _mean_square(jax: ModuleType, output: Any, goal: Any) -> Any:
    return ((output - goal) ** 2).mean()


NETWORKS: dict[type[nn.Module], Callable[..., Any]] = {
    GCN: _gcn,
    DeepSet: _deep_set,
    NeuralODE: _neural_ode,
    NeRF: _nerf,
    Recurrent: _recurrent,
}
# What the task's loss is of a single sample.
LOSSES: dict[Callable[..., Any], Callable[..., Any]] = {
    classify: _cross_entropy,
    squares: _mean_square,
}
