"""The functions behind ``torch.autograd.forward_ad``, which open and close a dual level."""

from types import ModuleType

import torch

from functorch_ext._releases import since

OWNER: ModuleType
if since((2, 13)):
    from torch._functorch import predispatch

    OWNER, ENTER, EXIT = predispatch, "_enter_dual_level_impl", "_exit_dual_level_impl"
else:
    OWNER, ENTER, EXIT = torch._C, "_enter_dual_level", "_exit_dual_level"
