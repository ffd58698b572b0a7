"""What TorchDynamo, the front end of ``torch.compile`` and ``torch.export``, is told about us.

Importing it takes longer than importing the rest of PyTorch, so it is told when somebody else
imports it.
"""

from types import ModuleType

from functorch_ext._patches.after_import import when_imported


def install() -> None:
    """Teaches Dynamo at once if it has been imported, else as soon as it is."""
    when_imported("torch._dynamo", _teach)


def _teach(_: ModuleType) -> None:
    from functorch_ext._dynamo import frames, substitutes, suspension, variables

    for part in (suspension, frames, variables, substitutes):
        part.install()
