"""Methods of the nodes of custom ``torch.autograd.Function``."""

from functorch_ext._releases import since

# Whether a backward may get its cotangents as one list, from which it takes them.
HAS_BOXED_BACKWARD = since((2, 13))
