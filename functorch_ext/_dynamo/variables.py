"""How Dynamo traces ``transform_call``: the function into a graph of its own, then the node."""

from typing import Any

import torch
from torch import Tensor
from torch._dynamo import graph_break_hints
from torch._dynamo.exc import TorchRuntimeError, unimplemented
from torch._dynamo.utils import get_fake_value, set_example_value
from torch._dynamo.variables import higher_order_ops
from torch._dynamo.variables.base import VariableTracker
from torch._dynamo.variables.builder import SourcelessBuilder, wrap_fx_proxy
from torch._dynamo.variables.constant import ConstantVariable
from torch._dynamo.variables.higher_order_ops import (
    TorchHigherOrderOperatorVariable,
    _make_inlined,
    make_attr,
    speculate_subgraph,
)
from torch._dynamo.variables.lists import ListVariable, TupleVariable
from torch._dynamo.variables.misc import CellVariable
from torch._dynamo.variables.tensor import SymNodeVariable
from torch._functorch.autograd_function import autograd_function_apply
from torch.utils import _pytree as pytree

from functorch_ext._dynamo import polyfills
from functorch_ext._dynamo.custom_function import custom_function, outside_no_grad
from functorch_ext._dynamo.graph_call import SAMPLES, call_linear
from functorch_ext._sample_gradients import REDUCTIONS

_KEYWORDS = ("non_differentiable_idx", "saved_for_backward_idx")  # of a custom function's node
_ATTRIBUTES = ("store_attr_mutations", "attr_mutation_kinds")  # of Dynamo's SideEffects
_IN_REVERSE = ("grad", "jacrev", "hessian", "vjp", "linearize", *REDUCTIONS)


def _refuse(explanation: str) -> None:
    unimplemented(
        gb_type="functorch_ext transform",
        context="",
        explanation=explanation,
        hints=[*graph_break_hints.USER_ERROR],
    )


def _constant(variable: VariableTracker) -> Any:
    """Its value; a number that Dynamo takes for one that may vary is fixed by a guard."""
    if isinstance(variable, SymNodeVariable):
        return variable.evaluate_expr()
    return variable.as_python_constant()


def _setting(name: VariableTracker, value: VariableTracker) -> tuple[str, Any]:
    key = name.as_python_constant()
    # The number of samples may vary from call to call.
    if key == "axis_size" and isinstance(value, SymNodeVariable):
        return key, value.as_proxy()
    return key, _constant(value)


class _Body(VariableTracker):
    """The function, as called in its own graph with inputs made there."""

    def __init__(self, transform: str, function: Any, leaves: Any, roles: Any, **kwargs: Any):
        super().__init__(**kwargs)
        self.transform, self.function = transform, function
        self.leaves, self.roles = leaves, roles
        self.structure: VariableTracker  # of what it returned
        self.attributes: Any  # of objects that it made
        self.inputs: dict[Any, tuple[Any, int]] = {}  # by placeholder: what to give, and its role

    def call_function(self, tx: Any, args: Any, kwargs: Any) -> VariableTracker:
        inner = [
            leaf if role is None else self._input(tx, leaf, role)
            for leaf, role in zip(self.leaves, self.roles, strict=True)
        ]
        leaves = ListVariable(inner, mutation_type=_fresh())
        output = self.function.call_function(tx, [leaves], {})
        # Dynamo forgets the attributes of objects that a subgraph makes, containers among them: so
        # they are taken apart in here.
        flat = _make_inlined(tx, pytree.tree_flatten)(output)
        returned, self.structure = flat.unpack_var_sequence(tx)
        self.attributes = [getattr(tx.output.side_effects, name, {}) for name in _ATTRIBUTES]
        return returned

    def keep_structure(self, tx: Any) -> None:
        """Has Dynamo know the structure of the output after the subgraph has ended."""
        for name, made in zip(_ATTRIBUTES, self.attributes, strict=True):
            known = getattr(tx.output.side_effects, name, {})
            for variable, attributes in made.items():
                # A cell of a closure has no type before PyTorch 2.13.
                is_cell = isinstance(variable, CellVariable)
                if not is_cell and issubclass(variable.python_type(), pytree.TreeSpec):
                    known.setdefault(variable, attributes)

    def _input(self, tx: Any, leaf: Any, role: Any) -> VariableTracker:
        if not leaf.is_tensor():
            _refuse("It maps, or differentiates by, what isn't a tensor.")
        outer = leaf.as_proxy()
        example = self._example(outer.node.meta["example_value"], role)
        tracer = tx.output.current_tracer
        proxy = tracer.create_graph_input(f"input_{len(self.inputs)}", type(example), example)
        self.inputs[proxy.node] = (outer, role)
        return wrap_fx_proxy(tx, proxy, example_value=example)

    def _example(self, value: Tensor, role: Any) -> Tensor:
        requires_grad = value.requires_grad
        if self.transform == "vmap" or role == SAMPLES:
            dim = 0 if role == SAMPLES else role
            if not -value.dim() <= dim < value.dim():
                _refuse("A dimension in in_dims is out of range.")
            value = value.select(dim, 0)
        else:
            requires_grad = value.is_floating_point() or value.is_complex()
        # As the function sees it. A custom function is traced with its backward only if something
        # requires grad.
        return value.detach().requires_grad_(requires_grad)


def _fresh() -> Any:
    from torch._dynamo.variables.base import ValueMutationNew

    return ValueMutationNew()


class TransformCallVariable(TorchHigherOrderOperatorVariable):
    """``transform_call(transform, settings, function, leaves, roles, extra, out_dims)``."""

    _HOP_NAME = "functorch_ext's transforms"

    def _call_function(self, tx: Any, args: Any, kwargs: Any) -> VariableTracker:
        name, settings, function, leaves, roles, extra, out_dims = args
        transform = name.as_python_constant()
        body = _Body(
            transform,
            function,
            leaves.unpack_var_sequence(tx),
            [_constant(role) for role in roles.unpack_var_sequence(tx)],
        )
        enable_grad = True if transform in _IN_REVERSE else None
        (_, spec), graph, lifted = speculate_subgraph(
            tx,
            body,
            [],
            {},
            "a transform of functorch_ext",
            source_target=self.value,
            enable_grad=enable_grad,
            should_flatten_outputs=True,
            supports_input_mutation=True,
            supports_aliasing=True,
        )
        body.keep_structure(tx)
        for node in graph.nodes:
            if node.target is autograd_function_apply:
                if any(name not in _KEYWORDS for name, value in node.kwargs.items() if value):
                    _refuse("A custom autograd.Function marks tensors as dirty.")
                if not outside_no_grad(tx.output.nn_modules[node.args[1].target]):
                    _refuse("The backward of a custom autograd.Function changes grad mode.")
                node.target = custom_function
                node.kwargs = {name: node.kwargs[name] for name in _KEYWORDS}
        constant = list(spec.masks_to_filter_const_values or ())
        inputs = [body.inputs.get(node) for node in graph.find_nodes(op="placeholder")]
        outer_of = {inner.node: outer for outer, inner in lifted.items()}
        given, roles = [], []
        for node, found in zip(graph.find_nodes(op="placeholder"), inputs, strict=True):
            given.append(found[0] if found else outer_of[node])
            roles.append(found[1] if found else None)

        if transform == "vmap":
            outputs = self._dims_of_outputs(tx, out_dims, body.structure, constant)
            differentiated = 0
        else:
            counted = _make_inlined(tx, _leaves_of_first)(body.structure)
            differentiated = counted.as_python_constant()
            if differentiated == 0 or any(constant[:differentiated]):
                _refuse("What it differentiates must be made of tensors.")
            outputs = differentiated
        extra_proxies = [leaf.as_proxy() for leaf in extra.unpack_var_sequence(tx)]
        call = (
            transform,
            dict(
                _setting(*pair.unpack_var_sequence(tx)) for pair in settings.unpack_var_sequence(tx)
            ),
            tuple(roles),
            outputs,
            len(extra_proxies),
        )
        module = torch.fx.GraphModule(tx.output.nn_modules, graph)
        attribute = make_attr(tx, tx.output.install_subgraph("transformed", module))
        proxy = tx.output.create_proxy(
            "call_function", self.value, (attribute, call, *extra_proxies, *given), {}
        )
        results = _results(tx, proxy)
        if transform in REDUCTIONS:  # the losses aren't returned
            return ListVariable(results, mutation_type=_fresh())
        own = len(constant) - sum(constant)
        if transform in ("jacrev", "jacfwd", "hessian"):
            aux = results[len(results) - (own - differentiated) :]
            leading = results[: len(results) - len(aux)]
            numbers = [ConstantVariable.create(number) for number in range(differentiated)]
            leaves = [*numbers, *aux]
        else:
            leading, leaves = results[: len(results) - own], results[len(results) - own :]
        return self._put_together(tx, leading, leaves, body.structure, spec.const_values, constant)

    def _dims_of_outputs(
        self, tx: Any, out_dims: Any, structure: VariableTracker, constant: list[bool]
    ) -> Any:
        dims = _make_inlined(tx, polyfills.dims_of_outputs)(out_dims, structure)
        found = [_constant(dim) for dim in dims.unpack_var_sequence(tx)]
        for dim, is_constant in zip(found, constant, strict=True):
            if is_constant and dim is not None:
                _refuse("What it stacks must be tensors.")
        return tuple(dim for dim, is_constant in zip(found, constant) if not is_constant)

    def _put_together(
        self,
        tx: Any,
        leading: Any,
        tensors: Any,
        structure: VariableTracker,
        constants: Any,
        constant: list[bool],
    ) -> VariableTracker:
        remaining = iter(tensors)
        leaves = [
            SourcelessBuilder.create(tx, value) if is_constant else next(remaining)
            for value, is_constant in zip(constants, constant, strict=True)
        ]
        listed = ListVariable(leaves, mutation_type=_fresh())
        tree = _make_inlined(tx, pytree.tree_unflatten)(listed, structure)
        return TupleVariable([ListVariable(list(leading), mutation_type=_fresh()), tree])


def _results(tx: Any, proxy: Any) -> list[VariableTracker]:
    try:
        example = get_fake_value(proxy.node, tx)
    except TorchRuntimeError as error:
        tx.output.remove_node(proxy.node)
        _refuse(f"It raises: {error}")
    set_example_value(proxy.node, example)
    return [_wrapped(tx, proxy[i], part) for i, part in enumerate(example)]


def _wrapped(tx: Any, proxy: Any, example: Any) -> VariableTracker:
    if isinstance(example, Tensor):
        return wrap_fx_proxy(tx, proxy, example_value=example)
    set_example_value(proxy.node, example)
    return LinearVariable(proxy)


class LinearVariable(VariableTracker):
    """A pullback, or its counterpart in forward mode: a value of the graph like any other.

    It can't leave the graph: Python could do nothing with it.
    """

    def __init__(self, proxy: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.proxy = proxy

    def as_proxy(self) -> Any:
        return self.proxy

    def call_function(self, tx: Any, args: Any, kwargs: Any) -> VariableTracker:
        inputs = (self.proxy, *(arg.as_proxy() for arg in args))
        proxy = tx.output.create_proxy("call_function", call_linear, inputs, {})
        return TupleVariable(_results(tx, proxy))

    def reconstruct(self, codegen: Any) -> None:
        _refuse("A pullback that was made in a graph can't leave it.")


def _leaves_of_first(structure: Any) -> int:
    return structure.child(0).num_leaves


def install() -> None:
    """Registers the variable."""
    table = higher_order_ops._hop_name_to_variable_class
    table["functorch_ext_transform"] = TransformCallVariable
