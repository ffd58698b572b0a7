"""The decompositions of ``make_fx``: the mode's that records, or of the process."""

from contextlib import AbstractContextManager
from typing import Any

from torch.fx.experimental import proxy_tensor

from functorch_ext._releases import since

if since((2, 13)):

    def undecomposed(mode: Any) -> AbstractContextManager[Any]:
        """While it is entered, the mode records operators as they are."""
        return mode.enable_decompositions(None)

    def decompositions_of(mode: Any) -> dict[str, Any]:
        """What gives another mode the same, as options."""
        return {"decomposition_table": mode.decomposition_table}

else:

    def undecomposed(mode: Any) -> AbstractContextManager[Any]:
        """While it is entered, the mode records operators as they are."""
        return proxy_tensor.decompose(None)

    def decompositions_of(mode: Any) -> dict[str, Any]:
        """What gives another mode the same, as options."""
        return {}
