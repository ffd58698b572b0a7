"""Unit matrices whose rows are gathered, as the tangents of ``x[index]`` are.

Inductor would compute each number where it is read, by a comparison of row and column, and take
longer for that than for all else. Read from memory it costs next to nothing.
"""

from typing import Any

import torch
from torch import fx

_aten = torch.ops.aten
_VIEWS = (_aten.view.default, _aten._unsafe_view.default, _aten.unsqueeze.default)
_GATHERS = (_aten.index.Tensor, _aten.index_select.default, _aten.gather.default)


def keep_gathered(graph: fx.Graph) -> None:
    """Has Inductor keep such matrices in memory."""
    from torch._inductor import inductor_prims

    for node in list(graph.nodes):
        if node.target is _aten.eye.default and _is_gathered(node):
            strides = node.meta["val"].stride()
            with graph.inserting_after(node):
                kept = graph.call_function(inductor_prims.force_stride_order, (node, strides))
            kept.meta.update(node.meta)
            node.replace_all_uses_with(kept, lambda user, kept=kept: user is not kept)


def _is_gathered(node: Any) -> bool:
    return any(
        user.target in _GATHERS or (user.target in _VIEWS and _is_gathered(user))
        for user in node.users
    )
