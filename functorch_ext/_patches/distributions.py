"""Draws by rejection inside vmap: they go on until the last sample has its numbers."""

import math

import torch
from torch import Tensor
from torch.distributions import von_mises

from functorch_ext import _C, _patches


def _rejection_sample(loc: Tensor, concentration: Tensor, proposal_r: Tensor, x: Tensor) -> Tensor:
    """Draws of von Mises distributions, by Best and Fisher's method.

    What a sample has when all its numbers are drawn stays, as in a loop over the samples.
    """
    done = torch.zeros(x.shape, dtype=torch.bool, device=loc.device)
    while _C.below_all_levels(running := ~done.all()).any():
        uniform = torch.rand((3, *x.shape), dtype=loc.dtype, device=loc.device)
        for_cosine, for_choice, for_sign = uniform.unbind()
        z = torch.cos(math.pi * for_cosine)
        cosine = (1 + proposal_r * z) / (proposal_r + z)
        c = concentration * (proposal_r - cosine)
        accepted = (c * (2 - c) > for_choice) | ((c / for_choice).log() + 1 - c >= 0)
        accepted = accepted & running
        x = torch.where(accepted, (for_sign - 0.5).sign() * cosine.acos(), x)
        done = done | accepted
    return (x + math.pi + loc) % (2 * math.pi) - math.pi


def install() -> None:
    """Draws until all samples are done, where PyTorch's loop reads whether the sample is."""
    why = "a loop that some samples leave earlier than others"
    _patches.replace(von_mises, "_rejection_sample", _rejection_sample, why)
