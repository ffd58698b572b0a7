"""What to do about a loop over samples."""

# Operators of PyTorch's that loop, and what computes the same for all samples at once.
_INSTEAD = {
    "_masked_softmax": "torch.softmax(x.masked_fill(mask, -torch.inf), dim)",
    "_grouped_mm": "torch.bmm, or torch.matmul of each group",
    "_addmm_activation": "torch.addmm and the activation",
    "embedding_renorm": "torch.renorm of the table, outside of vmap",
    "_foreach_addcdiv": "torch.addcdiv of each tensor",
    "_foreach_addcmul": "torch.addcmul of each tensor",
    "_foreach_mm": "torch.mm of each pair",
    "_foreach_clone": "torch.clone of each tensor",
}


def advice_on(operator: str, message: str) -> str:
    """What to write instead of an operator that looped, or how to give it a rule."""
    if not operator or operator not in message:
        # Of a loop that Python's code made: it says what to do.
        return message.removeprefix("functorch_ext.vmap: ")
    namespace, _, rest = operator.partition("::")
    name = rest.partition(".")[0]
    if instead := _INSTEAD.get(name.removesuffix("_"), _INSTEAD.get(name)):
        return f"write {instead}, which runs once for all samples"
    rule = f'functorch_ext.register_batching_rule("{operator}", rule)'
    if namespace != "aten":
        return f"give {operator} a batching rule, {rule}, which computes it for all samples at once"
    return (
        f"{name} has no batching rule: compute it from operators that have one "
        f"(docs/operators.md), call it outside of vmap, or give it one, {rule}"
    )
