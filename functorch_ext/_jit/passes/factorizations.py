"""One factorization for all that is solved with a matrix, and for its determinant."""

import operator
from typing import Any

import torch
from torch import fx

_aten = torch.ops.aten


def share_factorizations(graph: fx.Graph) -> None:
    """Replaces solutions and determinants of one matrix by those from one LU factorization."""
    by_matrix: dict[Any, list[fx.Node]] = {}
    for node in graph.nodes:
        if node.target in (_aten._linalg_slogdet.default, _aten._linalg_solve_ex.default):
            by_matrix.setdefault(node.args[0], []).append(node)
    for matrix, nodes in by_matrix.items():
        value = matrix.meta["val"]
        is_fixed = all(type(size) is int for size in value.shape)
        if len(nodes) > 1 and is_fixed and not value.is_complex() and all(map(_is_plain, nodes)):
            _share(graph, matrix, nodes)


def _is_plain(node: fx.Node) -> bool:
    """Does it solve from the left, and are all of its results taken one by one?"""
    from_left = len(node.args) < 3 and not node.kwargs
    return from_left and all(user.target is operator.getitem for user in node.users)


def _share(graph: fx.Graph, matrix: fx.Node, nodes: list[fx.Node]) -> None:
    make = _Maker(graph, nodes[0])
    whole = make(_aten.linalg_lu_factor_ex.default, matrix)
    lu, pivots, info = (make(operator.getitem, whole, i) for i in range(3))
    for node in nodes:
        make.before = node
        if node.target is _aten._linalg_slogdet.default:
            replacements = [*_determinant(make, lu, pivots), lu, pivots]
        else:
            replacements = [_solution(make, lu, pivots, matrix, node.args[1]), lu, pivots, info]
        for user in list(node.users):
            position: Any = user.args[1]
            user.replace_all_uses_with(replacements[position])
            graph.erase_node(user)
        graph.erase_node(node)


def _determinant(make: Any, lu: fx.Node, pivots: fx.Node) -> tuple[fx.Node, fx.Node]:
    """Its sign, to which each exchange of rows adds another, and the logarithm of its size."""
    diagonal = make(_aten.diagonal.default, lu, 0, -2, -1)
    size = make(
        _aten.sum.dim_IntList, make(_aten.log.default, make(_aten.abs.default, diagonal)), [-1]
    )
    value = pivots.meta["val"]
    rows = make(_aten.arange.start, 1, value.shape[-1] + 1, dtype=value.dtype, device=value.device)
    exchanges = make(_aten.sum.dim_IntList, make(_aten.ne.Tensor, pivots, rows), [-1])
    parity = make(
        _aten.sub.Tensor, 1, make(_aten.mul.Tensor, make(_aten.remainder.Scalar, exchanges, 2), 2)
    )
    sign = make(_aten.prod.dim_int, make(_aten.sign.default, diagonal), -1)
    return make(_aten.mul.Tensor, sign, parity), size


def _solution(make: Any, lu: fx.Node, pivots: fx.Node, matrix: fx.Node, right: Any) -> fx.Node:
    shape = matrix.meta["val"].shape
    vector = right.meta["val"].shape == shape[:-1]
    columns = make(_aten.unsqueeze.default, right, -1) if vector else right
    solution = make(_aten.linalg_lu_solve.default, lu, pivots, columns)
    return make(_aten.squeeze.dim, solution, -1) if vector else solution


class _Maker:
    """Adds calls of operators to a graph, ahead of a node, with the values they would have."""

    def __init__(self, graph: fx.Graph, before: fx.Node) -> None:
        self.graph, self.before = graph, before
        self.mode = before.all_input_nodes[0].meta["val"].fake_mode

    def __call__(self, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        with self.graph.inserting_before(self.before):
            node = self.graph.call_function(target, args, kwargs)
        values = fx.map_arg((args, kwargs), lambda given: given.meta["val"])
        with self.mode:
            node.meta["val"] = target(*values[0], **values[1])
        return node
