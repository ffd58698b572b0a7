"""What the package replaces in PyTorch's own Python code: listed, and reversible.

Operators need no patch, since the dispatcher is the way to give them kernels. But some of PyTorch's
Python code looks below the dispatcher: at storages, at graphs, at C functions that make tensors.
It is told about transforms by replacing the function in question. One module per topic does that,
through the registry; so do `_custom_functions`, `_containers` and `_dynamo`.
"""

from functorch_ext._patches.registry import IN_C, Patch, Patches, add, patches, replace

__all__ = ["IN_C", "Patch", "Patches", "add", "install", "patches", "replace"]


def install() -> None:
    """Puts all patches on."""
    from functorch_ext._patches import (
        checkpoint,
        distributions,
        forward_formulas,
        makers,
        module_hooks,
        recording,
        recurrent_weights,
        sharded_modules,
        sharded_tensors,
        tensor_methods,
        torch_func,
        user_autograd,
    )

    for topic in (
        makers,
        tensor_methods,
        torch_func,
        forward_formulas,
        user_autograd,
        checkpoint,
        distributions,
        module_hooks,
        recurrent_weights,
        sharded_modules,
        sharded_tensors,
        recording,
    ):
        topic.install()
