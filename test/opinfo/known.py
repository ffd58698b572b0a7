"""What the sweep over the operator database knows in advance, each with the reason."""

RANDOM = "random: its draws cannot be compared with those of a loop; see test_random"
UNINITIALISED = "the numbers in its output are whatever was in memory"

SKIPPED = {
    **dict.fromkeys(
        """bernoulli cauchy exponential geometric log_normal multinomial normal normal.in_place
        normal.number_mean uniform rand_like randint randint_like randn randn_like
        nn.functional.alpha_dropout nn.functional.dropout nn.functional.dropout2d
        nn.functional.dropout3d nn.functional.feature_alpha_dropout.with_train
        nn.functional.feature_alpha_dropout.without_train nn.functional.fractional_max_pool2d
        nn.functional.fractional_max_pool3d nn.functional.multi_head_attention_forward
        nn.functional.rrelu nn.functional.scaled_dot_product_attention pca_lowrank svd_lowrank
        torch.ops.aten._efficient_attention_forward
        torch.ops.aten._flash_attention_forward""".split(),
        RANDOM,
    ),
    **dict.fromkeys(
        """empty empty_like empty_permuted empty_strided new_empty new_empty_strided""".split(),
        UNINITIALISED,
    ),
}

DATA_DEPENDENT_SHAPE = "the shape of its output depends on the data"
DATA_DEPENDENT_VALUE = "it reads a number out of a tensor"

ERRORS = {
    **dict.fromkeys(
        """argwhere masked_select nonzero unique unique_consecutive combinations
        repeat_interleave bincount histc""".split(),
        DATA_DEPENDENT_SHAPE,
    ),
    **dict.fromkeys("allclose equal item is_nonzero".split(), DATA_DEPENDENT_VALUE),
}
"""Operators that may raise a clear error instead of giving an answer, and why."""

TOLERANCE = {}
"""Operators whose numbers are less exact than 1e-9 in float64."""
