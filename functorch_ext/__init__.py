"""Function transforms for PyTorch: ``vmap``, ``grad``, ``jvp`` and friends, out of tree.

A drop-in for the public functions of PyTorch's own function transforms, on an engine of its own:
each ``vmap`` is a plane of wrapper tensors, and every plane has PyTorch's native autograd.
"""

from functorch_ext._build_info import PYTHON_VERSION as _PYTHON_VERSION
from functorch_ext._build_info import TORCH_VERSION as _TORCH_VERSION
from functorch_ext._version import __version__ as __version__
from functorch_ext._version_check import check_versions as _check_versions

_check_versions(_TORCH_VERSION, _PYTHON_VERSION)

from functorch_ext import (  # noqa: E402
    _containers,
    _control_flow,
    _custom_functions,
    _dynamo,
    _patches,
    _taylor,
)
from functorch_ext import debug as debug  # noqa: E402
from functorch_ext._patches import patches  # noqa: E402
from functorch_ext._releases import check_release as _check_release  # noqa: E402
from functorch_ext._warnings import FallbackWarning  # noqa: E402
from functorch_ext.batching_rules import register_batching_rule  # noqa: E402
from functorch_ext.checkpoint import checkpoint  # noqa: E402
from functorch_ext.collectives import (  # noqa: E402
    all_gather,
    axis_index,
    axis_size,
    pmax,
    pmean,
    pmin,
    ppermute,
    psum,
)
from functorch_ext.curvature import fisher_vp, ggnvp, hvp, vhp  # noqa: E402
from functorch_ext.custom_jvp import custom_jvp, stop_gradient  # noqa: E402
from functorch_ext.custom_vjp import custom_vjp  # noqa: E402
from functorch_ext.custom_vmap import custom_vmap  # noqa: E402
from functorch_ext.debugging import debug_unwrap  # noqa: E402
from functorch_ext.diagonals import hessian_diag, trace_estimate  # noqa: E402
from functorch_ext.divergence import divergence  # noqa: E402
from functorch_ext.explain import explain  # noqa: E402
from functorch_ext.forward import jvp, linearize  # noqa: E402
from functorch_ext.functionalize import functionalize  # noqa: E402
from functorch_ext.implicit import fixed_point, implicit_root  # noqa: E402
from functorch_ext.jacobian import hessian, jacfwd, jacrev  # noqa: E402
from functorch_ext.jit import jit  # noqa: E402
from functorch_ext.laplacian import laplacian  # noqa: E402
from functorch_ext.nn import (  # noqa: E402
    functional_call,
    replace_all_batch_norm_modules_,
    stack_module_state,
)
from functorch_ext.per_sample import (  # noqa: E402
    clipped_grad_sum,
    per_sample_grad_norms,
    per_sample_grads,
)
from functorch_ext.reverse import grad, grad_and_value, vjp  # noqa: E402
from functorch_ext.sparse import sparse_hessian, sparse_jacobian  # noqa: E402
from functorch_ext.taylor import jet  # noqa: E402
from functorch_ext.value_and import value_and_jacfwd, value_and_jacrev  # noqa: E402
from functorch_ext.vmap import vmap  # noqa: E402

_check_release()
_containers.install()
_patches.install()
_custom_functions.install()
_control_flow.install()
_dynamo.install()
_taylor.install()

__all__ = [
    "FallbackWarning",
    "all_gather",
    "axis_index",
    "axis_size",
    "checkpoint",
    "clipped_grad_sum",
    "custom_jvp",
    "custom_vjp",
    "custom_vmap",
    "debug_unwrap",
    "divergence",
    "explain",
    "fisher_vp",
    "fixed_point",
    "functional_call",
    "functionalize",
    "ggnvp",
    "grad",
    "grad_and_value",
    "hessian",
    "hessian_diag",
    "hvp",
    "implicit_root",
    "jacfwd",
    "jacrev",
    "jet",
    "jit",
    "jvp",
    "laplacian",
    "linearize",
    "patches",
    "per_sample_grad_norms",
    "per_sample_grads",
    "pmax",
    "pmean",
    "pmin",
    "ppermute",
    "psum",
    "register_batching_rule",
    "replace_all_batch_norm_modules_",
    "sparse_hessian",
    "sparse_jacobian",
    "stack_module_state",
    "stop_gradient",
    "trace_estimate",
    "value_and_jacfwd",
    "value_and_jacrev",
    "vhp",
    "vjp",
    "vmap",
]
