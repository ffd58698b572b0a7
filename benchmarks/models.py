"""The networks of the workloads: as PyTorch modules, and as JAX functions of their parameters.

The JAX functions take the parameters under the names that the module gives them, so both sides
compute from the same numbers and return results of the same structure.
"""

from types import ModuleType
from typing import Any

from torch import nn

CLASSES = 10
HEADS = 4


def mlp(*sizes: int) -> nn.Sequential:
    """A perceptron with tanh between its layers; ``mlp(8, 16, 1)`` has 16 hidden units."""
    layers: list[nn.Module] = []
    for inputs, outputs in zip(sizes, sizes[1:]):
        layers += [nn.Linear(inputs, outputs), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def mlp_in_jax(jax: ModuleType, parameters: dict[str, Any], x: Any) -> Any:
    """What :func:`mlp` computes."""
    last = len(parameters) - 2  # A weight and a bias for each layer, whose numbers are 0, 2, 4, ...
    for layer in range(0, last, 2):
        x = jax.numpy.tanh(_linear(parameters, f"{layer}.", x))
    return _linear(parameters, f"{last}.", x)


def convnet() -> nn.Sequential:
    """Two convolutions and two linear layers, for images of 28x28: 26 thousand parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 8, stride=2, padding=3),
        nn.ReLU(),
        nn.MaxPool2d(2, 1),
        nn.Conv2d(16, 32, 4, stride=2),
        nn.ReLU(),
        nn.MaxPool2d(2, 1),
        nn.Flatten(-3),
        nn.Linear(32 * 4 * 4, 32),
        nn.ReLU(),
        nn.Linear(32, CLASSES),
    )


def convnet_in_jax(jax: ModuleType, parameters: dict[str, Any], image: Any) -> Any:
    """What :func:`convnet` computes of one image."""
    relu = jax.nn.relu

    def convolution(name: str, x: Any, padding: int) -> Any:
        y = jax.lax.conv_general_dilated(
            x, parameters[name + "weight"], (2, 2), [(padding, padding)] * 2
        )
        return y + parameters[name + "bias"][:, None, None]

    def pool(x: Any) -> Any:
        window = (1, 1, 2, 2)
        return jax.lax.reduce_window(x, -jax.numpy.inf, jax.lax.max, window, (1,) * 4, "VALID")

    x = pool(relu(convolution("0.", image[None], 3)))
    x = pool(relu(convolution("3.", x, 0)))
    return _linear(parameters, "9.", relu(_linear(parameters, "7.", x.reshape(-1))))


def transformer_layer(width: int = 64) -> nn.TransformerEncoderLayer:
    """Self-attention and a feed-forward part, without dropout."""
    return nn.TransformerEncoderLayer(width, HEADS, 2 * width, dropout=0.0, batch_first=True)


def transformer_layer_in_jax(jax: ModuleType, parameters: dict[str, Any], x: Any) -> Any:
    """What :func:`transformer_layer` computes of one sequence, of shape (tokens, width)."""
    tokens, width = x.shape
    qkv = x @ parameters["self_attn.in_proj_weight"].T + parameters["self_attn.in_proj_bias"]
    heads = qkv.reshape(tokens, 3, HEADS, width // HEADS).transpose(1, 2, 0, 3)
    q, k, v = heads[0], heads[1], heads[2]
    scores = q @ k.swapaxes(-1, -2) / (width // HEADS) ** 0.5
    mixed = (jax.nn.softmax(scores, axis=-1) @ v).swapaxes(0, 1).reshape(tokens, width)
    x = _layer_norm(
        jax, parameters, "norm1.", x + _linear(parameters, "self_attn.out_proj.", mixed)
    )
    hidden = jax.nn.relu(_linear(parameters, "linear1.", x))
    return _layer_norm(jax, parameters, "norm2.", x + _linear(parameters, "linear2.", hidden))


def _linear(parameters: dict[str, Any], name: str, x: Any) -> Any:
    return x @ parameters[name + "weight"].T + parameters[name + "bias"]


def _layer_norm(jax: ModuleType, parameters: dict[str, Any], name: str, x: Any) -> Any:
    x = x - x.mean(-1, keepdims=True)
    x = x / jax.numpy.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)
    return x * parameters[name + "weight"] + parameters[name + "bias"]
