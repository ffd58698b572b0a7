"""What the sweep over the operator database knows in advance, each with the reason."""

from typing import NamedTuple

from functorch_ext._releases import since

# entries of the database that a release has first
NEW = {"nn.functional.linear_cross_entropy.chunked_none": (2, 13)}


def of_other_releases():
    """Entries that are listed here, and not in the database of the release that runs."""
    return {name for name, release in NEW.items() if not since(release)}


# swept with randomness="same", against a loop that draws each sample after the same seed
RANDOM = set(
    """bernoulli cauchy exponential geometric log_normal multinomial normal normal.in_place
    normal.number_mean uniform rand_like randint randint_like randn randn_like
    nn.functional.alpha_dropout nn.functional.dropout nn.functional.dropout2d
    nn.functional.dropout3d nn.functional.feature_alpha_dropout.with_train
    nn.functional.feature_alpha_dropout.without_train nn.functional.fractional_max_pool2d
    nn.functional.fractional_max_pool3d nn.functional.multi_head_attention_forward
    nn.functional.rrelu nn.functional.scaled_dot_product_attention pca_lowrank svd_lowrank
    """.split()
)

# of these, those that have to work with randomness="error" where their arguments ask for no draw
SOMETIMES_RANDOM = {
    "nn.functional.feature_alpha_dropout.without_train",
    "nn.functional.multi_head_attention_forward",
    "nn.functional.scaled_dot_product_attention",
}

# the numbers in their outputs are whatever was in memory: only shapes, dtypes and strides count
UNINITIALISED = set(
    "empty empty_like empty_permuted empty_strided new_empty new_empty_strided".split()
)

# random operators whose number of draws depends on the values: swept where nothing is drawn
DRAWS_BY_VALUE = {"nn.functional.rrelu"}

# the database has one value of their integers, or zeros on purpose
SAMPLES_AGREE = {
    "linalg.norm.subgradients_at_zero",
    "logspace.tensor_overload",
    "unravel_index",
}

SKIPPED = {
    "as_strided.partial_views": "it reads memory beyond its argument",
}


class Reason(NamedTuple):
    """Why, and what the message of the error has to match."""

    text: str
    pattern: str = ""


DATA_DEPENDENT_SHAPE = Reason(
    "the shape of its output depends on the data", "depends on the data|boolean mask that differs"
)
WRITES = Reason(
    "it writes a sample's values into an argument that all samples share",
    "which all samples share|write in-place a value that differs",
)
BUFFER = Reason(
    "its derivative is Python code that computes into buffers, with out=",
    "write in-place a value that differs",
)
RESIZES = Reason("a batched tensor's memory holds all samples", "memory holds all samples")
LAYOUT = Reason("its output is not strided", "sparse samples don't fit together")

FORWARD = ("vmap", "vmap(vmap)")
EVERY = (*FORWARD, "vmap(vjp)", "vmap(jvp)")
# second derivatives, which only the deeper tier meets under vmap
TWICE = ("vmap(vjp(vjp))", "vmap(jvp(vjp))", "vmap(vjp(jvp))", "vmap(jvp(jvp))")


def rows(reason, modes, *names):
    return {(name, mode): reason for name in names for mode in modes}


# what raises a clear error instead of giving an answer: (operator, mode), and why
ERRORS = {
    **rows(
        DATA_DEPENDENT_SHAPE,
        FORWARD,
        "argwhere",
        "nonzero",
        "unique",
        "unique_consecutive",
    ),
    **rows(
        DATA_DEPENDENT_SHAPE,
        # without reverse mode, the shapes differ between the samples
        ["vmap(vjp)", "vmap(vjp(vjp))", "vmap(jvp(vjp))", "vmap(vjp(jvp))"],
        "__getitem__",
        "masked_select",
    ),
    **rows(
        WRITES,
        [*EVERY, *TWICE],
        "nn.functional.batch_norm",
        "nn.functional.instance_norm",
    ),
    **rows(
        WRITES,
        FORWARD,
        "native_batch_norm",
        "_native_batch_norm_legit",
        "_batch_norm_with_update",
    ),
    **rows(
        BUFFER,
        ["vmap(vjp)", "vmap(vjp(vjp))"],
        "nn.functional.linear_cross_entropy.chunked_none",
    ),
    **rows(
        RESIZES,
        FORWARD,
        "resize_",
    ),
    **rows(
        LAYOUT,
        [*FORWARD, "vmap(vjp)", "vmap(vjp(vjp))"],
        "to_sparse",
    ),
}

# what runs sample by sample: (operator, mode), and why
SAME_DRAWS = Reason("each sample draws from one state of the generator")
LOOPS = rows(SAME_DRAWS, FORWARD, "multinomial")

# what only the deeper tier meets
DEEP_ERRORS = {}
DEEP_LOOPS = {}

# what gives a wrong answer: to be repaired
WRONG = {}

# tangents that PyTorch itself has wrong: known from its reverse mode
BY_VJPS = {"cholesky_inverse"}

# second derivatives, which PyTorch itself has wrong or not at all: known by differences
BY_DIFFERENCES = set(
    """logcumsumexp nn.functional.batch_norm nn.functional.instance_norm
    nn.functional.layer_norm""".split()
)

WRONG_GRADIENT = {
    "as_strided_scatter": "PyTorch's gradient is wrong; test_second_order.py has the right one",
    **dict.fromkeys(
        """native_batch_norm _native_batch_norm_legit _batch_norm_with_update native_layer_norm
        native_group_norm linalg.lstsq""".split(),
        "PyTorch takes some outputs for constants; test_missing_derivatives.py has their gradients",
    ),
}

NOT_TWICE = {
    "linalg.norm.subgradients_at_zero": "it has no second derivative there",
    **dict.fromkeys(
        ["nn.functional.max_unpool1d", "nn.functional.max_unpool2d", "nn.functional.max_unpool3d"],
        "its indices occur twice: PyTorch's forward and reverse mode differ",
    ),
}

# second derivatives that are less exact than 1e-9 in float64
TOLERANCE_TWICE = {
    **dict.fromkeys(BY_DIFFERENCES, 1e-5),
    "cholesky_inverse": 1e-7,  # of ill-conditioned draws
    "cov": 3e-3,  # weights in single precision, and hardly a degree of freedom
    "linalg.householder_product": 1e-7,
    "nn.functional.binary_cross_entropy": 1e-8,  # PyTorch rounds a denominator up
    "nn.functional.normalize": 1e-7,  # of vectors of length 1, where large terms cancel
}
# operators whose answer depends on the strides of a sample: batched at the front alone, where those
# are the strides of a tensor of its own
READS_STRIDES = {
    "as_strided",
    "as_strided_copy",
    "as_strided_scatter",
    "view_as_complex",
    "empty_like",
}
