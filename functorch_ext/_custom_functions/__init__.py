"""Custom ``torch.autograd.Function`` on the tensors of transforms."""


def install() -> None:
    """Teaches PyTorch's custom functions about the engine's planes."""
    from functorch_ext._custom_functions import apply, loop

    apply.install()
    loop.install()
