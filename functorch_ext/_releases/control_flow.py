"""What ``torch.cond`` and its kind call to have a function compiled in eager mode."""

from functorch_ext._releases import since

# Earlier releases compile in each operator by itself, and there is no one function to replace.
COMPILE_AND_CALL = "_hop_compile_and_call" if since((2, 13)) else None
