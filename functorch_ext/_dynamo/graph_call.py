"""A transform as one node of a graph: what the node computes.

The transformed function is a graph of its own. It takes tensors, those that it closes over among
them, and returns a tuple of tensors.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch._ops import HigherOrderOperator

import functorch_ext
from functorch_ext import _sample_gradients

Tensors = Sequence[Any]
SAMPLES = "samples"
Body = Callable[..., tuple[Any, ...]]


class Call(NamedTuple):
    """How a node calls its transform."""

    transform: str
    options: dict[str, Any]
    # Of each input: the dimension that vmap maps, or 0 where it is differentiated; None of others.
    # Of reduced gradients: 0 for what is differentiated, SAMPLES for what dimension 0 maps.
    roles: tuple[int | str | None, ...]
    # vmap: where the samples go in each output. Else: how many outputs are differentiated; the rest
    # is aux.
    outputs: Any
    extra: int = 0  # the number of inputs in front that aren't the function's: tangents


class TransformCall(HigherOrderOperator):
    """``transform_call(body, call, *inputs)`` returns a tuple of tensors.

    Whoever traces operators (AOTAutograd, ``torch.export``, ``make_fx``) traces those of the
    transform.
    """

    def __init__(self) -> None:
        super().__init__("functorch_ext_transform")

    def __call__(self, body: Body, call: tuple[Any, ...], *inputs: Any) -> Any:
        call = Call(*call)
        return _RUN[call.transform](body, call, inputs)


def _vmap(body: Body, call: Call, inputs: Tensors) -> tuple[Any, ...]:
    mapped = functorch_ext.vmap(
        lambda *args: tuple(body(*args)), call.roles, tuple(call.outputs), **call.options
    )
    return mapped(*inputs)


def _of_differentiated(body: Body, call: Call, inputs: Tensors) -> tuple[Any, list[Any]]:
    """The function of the differentiated inputs alone, returning (outputs, aux), and those."""

    def function(*differentiated: Any) -> tuple[Any, Any]:
        given = iter(differentiated)
        outputs = body(*(x if role is None else next(given) for x, role in zip(inputs, call.roles)))
        return tuple(outputs[: call.outputs]), tuple(outputs[call.outputs :])

    return function, [x for x, role in zip(inputs, call.roles) if role is not None]


def _grad(body: Body, call: Call, inputs: Tensors) -> tuple[Any, ...]:
    function, differentiated = _of_differentiated(body, call, inputs)

    def number(*args: Any) -> tuple[Any, Any]:
        (output,), aux = function(*args)
        return output, aux

    argnums = tuple(range(len(differentiated)))
    gradients, (value, aux) = functorch_ext.grad_and_value(number, argnums, has_aux=True)(
        *differentiated
    )
    return (*gradients, value, *aux)


def _jacobian(body: Body, call: Call, inputs: Tensors) -> tuple[Any, ...]:
    function, differentiated = _of_differentiated(body, call, inputs)
    argnums = tuple(range(len(differentiated)))
    transform = getattr(functorch_ext, call.transform)
    blocks, aux = transform(function, argnums, has_aux=True, **call.options)(*differentiated)
    if call.transform == "hessian":
        blocks = [row for rows in blocks for row in rows]
    return (*(block for row in blocks for block in row), *aux)


def _jvp(body: Body, call: Call, inputs: Tensors) -> tuple[Any, ...]:
    tangents, inputs = inputs[: call.extra], inputs[call.extra :]
    function, primals = _of_differentiated(body, call, inputs)
    outputs, pushed, aux = functorch_ext.jvp(
        function, tuple(primals), tuple(tangents), has_aux=True, **call.options
    )
    return (*pushed, *outputs, *aux)


def _vjp(body: Body, call: Call, inputs: Tensors) -> tuple[Any, ...]:
    function, primals = _of_differentiated(body, call, inputs)
    outputs, pullback, aux = functorch_ext.vjp(function, *primals, has_aux=True)
    return (lambda *cotangents: pullback(cotangents), *outputs, *aux)


def _linearize(body: Body, call: Call, inputs: Tensors) -> tuple[Any, ...]:
    function, primals = _of_differentiated(body, call, inputs)
    outputs, push_forward = functorch_ext.linearize(lambda *args: function(*args)[0], *primals)
    return (push_forward, *outputs)


def _inputs_of_nodes(body: Body, count: int) -> set[int]:
    """Which inputs of a graph go to operators that hide them from watchers."""
    graph = getattr(body, "graph", None)
    if graph is None:
        return set(range(count))
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    of_module = lambda target: str(getattr(target, "__module__", None))
    hides = lambda node: (
        isinstance(node.target, HigherOrderOperator)
        or of_module(node.target).startswith("functorch_ext")
    )
    return {i for i, node in enumerate(inputs) if any(map(hides, node.users))}


def _reduced_gradients(body: Body, call: Call, inputs: Tensors) -> tuple[Any, ...]:
    trained = {str(i): x for i, (x, role) in enumerate(zip(inputs, call.roles)) if role == 0}
    samples = [x for x, role in zip(inputs, call.roles) if role == SAMPLES]

    def loss(trained: dict[str, Any], sample: Tensors, _: Any) -> Any:
        given = {0: iter(trained.values()), SAMPLES: iter(sample)}
        return body(*(next(given[r]) if r in given else x for x, r in zip(inputs, call.roles)))[0]

    reduce = _sample_gradients.REDUCTIONS[call.transform]
    elsewhere = _inputs_of_nodes(body, len(inputs))
    order = [i for i, role in enumerate(call.roles) if role == 0]
    explicit = {n for n, i in zip(trained, order, strict=True) if i in elsewhere}
    result = reduce(loss, call.options["option"], None, explicit)(trained, samples, ())
    return tuple(result.values()) if isinstance(result, dict) else (result,)


def call_linear(function: Callable[..., Any], *tensors: Any) -> tuple[Any, ...]:
    """A node of its own: calls a pullback, or its counterpart, that another node returned."""
    return tuple(function(*tensors))


_RUN: dict[str, Callable[[Body, Call, Tensors], tuple[Any, ...]]] = {
    "vmap": _vmap,
    "grad": _grad,
    "jacrev": _jacobian,
    "jacfwd": _jacobian,
    "hessian": _jacobian,
    "jvp": _jvp,
    "vjp": _vjp,
    "linearize": _linearize,
    **dict.fromkeys(_sample_gradients.REDUCTIONS, _reduced_gradients),
}

transform_call = TransformCall()
