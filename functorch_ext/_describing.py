"""How messages speak of values: what kind they are, where in a container, how that is made."""

from typing import Any

import optree

from functorch_ext._pytree import Tree, flatten, name_of_leaf, unflatten


def kind_of(value: Any) -> str:
    """ "an int", "a dict", "None"."""
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIO' else 'a'} {name}"


def returned_leaf(outputs: Tree, index: int) -> str:
    """What a function returned, of which one leaf is wrong: "an int as output[1]"."""
    leaf = flatten(outputs)[0][index]
    where = "" if leaf is outputs else f" as {name_of_leaf('output', outputs, index)}"
    return kind_of(leaf) + where


class _AnyLeaf:
    def __repr__(self) -> str:
        return "*"


def structure_of(structure: optree.PyTreeSpec) -> str:
    """A structure as a container with * for each leaf."""
    if structure.is_leaf():
        return "* (no container)"
    try:
        return repr(unflatten(structure, [_AnyLeaf()] * structure.num_leaves))
    except Exception:  # a class of the user's that takes nothing but its own leaves
        return str(structure)
