"""Which files Dynamo traces where a compiled frame calls them, though it doesn't compile them."""

from torch._dynamo import trace_rules

from functorch_ext._releases import since

if since((2, 13)):
    inlined_folders: set[str] = trace_rules.BUILTIN_INLINE_WHEN_CALLED
else:
    inlined_folders = trace_rules.get_mod_inlinelist()  # cached, so that what is added stays
