"""What the sweep over dtypes knows in advance, beyond what is known of the operator in any dtype."""

from test.opinfo.known import Reason

# (operator, kind): a tolerance of its own. Sums in half precision depend on their order.
TOLERANCE = {
    **dict.fromkeys(
        [
            ("addbmm", "float16"),
            ("nn.functional.conv_transpose2d", "float16"),
            ("nn.functional.conv_transpose3d", "float16"),
            ("nn.functional.scaled_dot_product_attention", "float16"),
        ],
        0.1,
    ),
    ("nn.functional.bilinear", "float16"): 0.01,
    # Against float64 it is PyTorch's own sums that are inexact, those of cancelling terms most.
    ("nn.functional.group_norm", "float16"): 0.03,
    ("nn.functional.group_norm", "bfloat16"): 2.5,
    **dict.fromkeys(
        [
            ("addbmm", "bfloat16"),
            ("nn.functional.conv_transpose2d", "bfloat16"),
            ("nn.functional.conv_transpose3d", "bfloat16"),
            ("nn.functional.scaled_dot_product_attention", "bfloat16"),
        ],
        0.4,
    ),
    ("linalg.householder_product", "complex64"): 1e-3,  # of ill-conditioned draws
    # Of singular values that lie close together.
    ("svd_lowrank", "complex64"): 0.05,
    ("pca_lowrank", "complex64"): 0.05,
}


# (operator, kind and mode): why
ERRORS = {
    ("view_as_real", f"conjugated {mode}"): Reason(
        "PyTorch refuses a conjugated view, and so of a sample",
        "view_as_real doesn't work on unresolved conjugated tensors",
    )
    for mode in ("vmap", "vmap(vjp)")
}
LOOPS = {}
WRONG = {}
