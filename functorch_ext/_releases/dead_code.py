"""Operators that a graph needs though nobody uses what they return."""

import torch
from torch.fx.node import has_side_effect

from functorch_ext._releases import since

if not since((2, 13)):
    # Earlier releases drop it, and a singular matrix no longer raises.
    has_side_effect(torch.ops.aten._linalg_check_errors.default)
