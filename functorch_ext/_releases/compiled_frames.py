"""How Dynamo counts the frames of what is compiled with ``fullgraph=True``."""

import torch._C._dynamo.eval_frame as eval_frame

from functorch_ext._releases import since

if since((2, 12)):
    _set_count = eval_frame.set_fullgraph_compiled_frame_count

    def expect_no_compiled_frame() -> None:
        """Dynamo counts frames, and raises if there were none: not this time."""
        _set_count(-1)

else:

    def expect_no_compiled_frame() -> None:
        """Dynamo doesn't count frames."""
