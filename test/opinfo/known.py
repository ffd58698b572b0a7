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
    "as_strided.partial_views": "it reads memory beyond its argument",
}

DATA_DEPENDENT_SHAPE = "the shape of its output depends on the data"
TAGGED = "PyTorch tags the shape of its output as dependent on the data, though here it isn't"
DATA_DEPENDENT_VALUE = "it reads a number out of a tensor"
WRITES = "it writes a sample's values into an argument that all samples share"
BUFFER = "its derivative writes a sample's values into a buffer made for all samples"
RESIZES = "a batched tensor's memory holds all samples"
NO_RULE = "it has no rule yet"
LAYOUT = "its output is not strided"

EVERY = ("vmap", "vmap(vjp)", "vmap(jvp)")


def rows(reason, modes, *names):
    return {(name, mode): reason for name in names for mode in modes}


# what raises a clear error instead of giving an answer: (operator, mode), and why
ERRORS = {
    **rows(
        DATA_DEPENDENT_SHAPE,
        ["vmap"],
        "argwhere",
        "bincount",
        "nonzero",
        "unique",
        "unique_consecutive",
    ),
    **rows(
        DATA_DEPENDENT_SHAPE,
        EVERY,
        "masked_select",
        "repeat_interleave",
    ),
    # their derivatives drop repeated indices, or index by a mask
    **rows(
        DATA_DEPENDENT_SHAPE,
        ["vmap(vjp)"],
        "index_fill",
        "index_put",
    ),
    # combinations selects by a mask that is the same for all samples
    **rows(
        TAGGED,
        EVERY,
        "combinations",
    ),
    **rows(
        DATA_DEPENDENT_VALUE,
        EVERY,
        "cov",
        "istft",
        "narrow",
        "tensor_split",
        "nn.functional.gaussian_nll_loss",
    ),
    **rows(
        DATA_DEPENDENT_VALUE,
        ["vmap"],
        "nn.functional.one_hot",
    ),
    **rows(
        WRITES,
        EVERY,
        "nn.functional.batch_norm",
        "nn.functional.instance_norm",
        "native_batch_norm",
        "_native_batch_norm_legit",
        "_batch_norm_with_update",
    ),
    **rows(
        BUFFER,
        ["vmap(vjp)"],
        "nn.functional.linear_cross_entropy.chunked_none",
    ),
    **rows(
        RESIZES,
        ["vmap"],
        "resize_",
    ),
    **rows(
        LAYOUT,
        ["vmap", "vmap(vjp)"],
        "to_sparse",
    ),
}

# what runs sample by sample: (operator, mode), and why
LOOPS = {
    **rows(
        NO_RULE,
        ["vmap"],
        "_chunk_cat",
        "histogram",
        "histogramdd",
        "linspace.tensor_overload",
        "logspace.tensor_overload",
        "nn.functional.linear_cross_entropy.chunked_none",
        "nonzero_static",
        "torch._scaled_mm",
        "torch._scaled_mm_v2",
    ),
    **rows(
        NO_RULE,
        ["vmap", "vmap(vjp)"],
        "_segment_reduce.lengths",
        "_segment_reduce.offsets",
        "linalg.lstsq",
        "nn.functional.ctc_loss",
        "nn.functional.embedding_bag",
        "nn.functional.linear_cross_entropy.chunked",
        "nn.functional.multi_margin_loss",
        "nn.functional.multilabel_margin_loss",
    ),
    **rows(
        NO_RULE,
        EVERY,
        "_unsafe_masked_index",
        "_unsafe_masked_index_put_accumulate",
        "as_strided_scatter",
        "linalg.lstsq.grad_oriented",
        "narrow_copy",
    ),
}

# operators whose numbers are less exact than 1e-9 in float64
TOLERANCE = {}

# operators whose answer depends on the strides of a sample: batched at the front alone, where those
# are the strides of a tensor of its own
READS_STRIDES = {"as_strided", "as_strided_copy", "as_strided_scatter", "view_as_complex"}
