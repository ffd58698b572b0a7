"""The device that the tests run on: ``pytest --device cuda``."""

import warnings

import torch

_name = "cpu"


def device() -> str:
    """What tests make tensors on, those that name no device too."""
    return _name


def use(name: str) -> None:
    """Chooses the device, before tests are imported: modules of tests make tensors."""
    global _name
    _name = name
    if name == "cpu":
        return
    # Not set_default_device: it is a mode, and would stand between the tests and what they test.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.set_default_tensor_type(getattr(torch, name).FloatTensor)
    # Products are compared with those of other shapes.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def seed(number: int) -> None:
    """Seeds the device's generator alone: ``torch.manual_seed`` asks every device, slowly."""
    torch.default_generator.manual_seed(number)
    if _name != "cpu":
        getattr(torch, _name).manual_seed(number)
