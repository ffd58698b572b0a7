"""How to call every operator that PyTorch tags as random, and the moments of what it draws."""

import math
from typing import NamedTuple

import torch

aten = torch.ops.aten
ELEMENTS = 400  # of a sample


class Call(NamedTuple):
    """`function` takes a sample of zeros. Its draws have this mean and standard deviation; None if
    they are no independent draws of one distribution."""

    function: object
    mean: float | None = None
    deviation: float | None = None


def full(x, value):
    return x + value


def uniform(low, high):
    """The moments of a uniform distribution."""
    return (low + high) / 2, (high - low) / math.sqrt(12)


def integers(low, high):
    return (low + high - 1) / 2, math.sqrt(((high - low) ** 2 - 1) / 12)


def from_cauchy(x):
    """Its distribution function: uniform draws."""
    return torch.atan(x) / math.pi + 0.5


def from_random(x):
    return x / 2**53  # float64 holds so many integers


def images(x):
    return x[:, None, None]


UNIFORM, NORMAL, DROPOUT = uniform(0, 1), (0.0, 1.0), (1.0, 1.0)
RRELU = uniform(-0.5, -0.25)
# alpha dropout of zeros at p = 0.5 gives one of two numbers of equal size
ALPHA_DROPOUT = (0.0, 0.7791939)

FACTORIES = {
    "rand": Call(lambda x: aten.rand([ELEMENTS]), *UNIFORM),
    "rand.generator": Call(lambda x: aten.rand.generator([ELEMENTS], generator=None), *UNIFORM),
    "randn": Call(lambda x: aten.randn([ELEMENTS]), *NORMAL),
    "randn.generator": Call(lambda x: aten.randn.generator([ELEMENTS], generator=None), *NORMAL),
    "randint": Call(lambda x: aten.randint(99, [ELEMENTS]), *integers(0, 99)),
    "randint.generator": Call(
        lambda x: aten.randint.generator(99, [ELEMENTS], generator=None), *integers(0, 99)
    ),
    "randint.low": Call(lambda x: aten.randint.low(9, 99, [ELEMENTS]), *integers(9, 99)),
    "randint.low_generator": Call(
        lambda x: aten.randint.low_generator(9, 99, [ELEMENTS], generator=None), *integers(9, 99)
    ),
    "randperm": Call(lambda x: aten.randperm(ELEMENTS), *integers(0, ELEMENTS)),
    "randperm.generator": Call(
        lambda x: aten.randperm.generator(ELEMENTS, generator=None), *integers(0, ELEMENTS)
    ),
    "normal.float_float": Call(lambda x: aten.normal.float_float(3.0, 2.0, [ELEMENTS]), 3.0, 2.0),
}

LIKE = {
    "rand_like": Call(aten.rand_like, *UNIFORM),
    "rand_like.generator": Call(lambda x: aten.rand_like.generator(x, generator=None), *UNIFORM),
    "randn_like": Call(aten.randn_like, *NORMAL),
    "randn_like.generator": Call(lambda x: aten.randn_like.generator(x, generator=None), *NORMAL),
    "randint_like": Call(lambda x: aten.randint_like(x, 99), *integers(0, 99)),
    "randint_like.generator": Call(
        lambda x: aten.randint_like.generator(x, 99, generator=None), *integers(0, 99)
    ),
    "randint_like.Tensor": Call(
        lambda x: aten.randint_like.Tensor(x, torch.tensor(99)), *integers(0, 99)
    ),
    "randint_like.Tensor_generator": Call(
        lambda x: aten.randint_like.Tensor_generator(x, torch.tensor(99), generator=None),
        *integers(0, 99),
    ),
    "randint_like.low_dtype": Call(
        lambda x: aten.randint_like.low_dtype(x, 9, 99), *integers(9, 99)
    ),
    "randint_like.low_generator_dtype": Call(
        lambda x: aten.randint_like.low_generator_dtype(x, 9, 99, generator=None),
        *integers(9, 99),
    ),
}

DISTRIBUTIONS = {
    "bernoulli": Call(lambda x: aten.bernoulli(full(x, 0.5)), 0.5, 0.5),
    "bernoulli.p": Call(lambda x: aten.bernoulli.p(x, 0.5), 0.5, 0.5),
    "bernoulli.Tensor": Call(lambda x: aten.bernoulli.Tensor(x, full(x, 0.5)), 0.5, 0.5),
    "binomial": Call(lambda x: aten.binomial(full(x, 10), full(x, 0.5)), 5.0, math.sqrt(2.5)),
    "cauchy": Call(lambda x: from_cauchy(aten.cauchy(x)), *UNIFORM),
    "exponential": Call(lambda x: aten.exponential(x, 2.0), 0.5, 0.5),
    "geometric": Call(lambda x: aten.geometric(x, 0.5), 2.0, math.sqrt(2)),
    "log_normal": Call(lambda x: aten.log_normal(x, 1.0, 2.0).log(), 1.0, 2.0),
    "multinomial": Call(
        lambda x: aten.multinomial(full(x[:2], 0.5), ELEMENTS, replacement=True), 0.5, 0.5
    ),
    "normal.Tensor_Tensor": Call(
        lambda x: aten.normal.Tensor_Tensor(full(x, 3), full(x, 2)), 3.0, 2.0
    ),
    "normal.Tensor_float": Call(lambda x: aten.normal.Tensor_float(full(x, 3), 2.0), 3.0, 2.0),
    "normal.float_Tensor": Call(lambda x: aten.normal.float_Tensor(3.0, full(x, 2)), 3.0, 2.0),
    "normal_functional": Call(lambda x: aten.normal_functional(x, 3.0, 2.0), 3.0, 2.0),
    "poisson": Call(lambda x: aten.poisson(full(x, 4)), 4.0, 2.0),
    "random": Call(lambda x: from_random(aten.random(x)), *UNIFORM),
    "random.from": Call(lambda x: getattr(aten.random, "from")(x, 9, 99), *integers(9, 99)),
    "random.to": Call(lambda x: aten.random.to(x, 99), *integers(0, 99)),
    "uniform": Call(lambda x: aten.uniform(x, 1.0, 3.0), *uniform(1, 3)),
    "_standard_gamma": Call(lambda x: aten._standard_gamma(full(x, 4)), 4.0, 2.0),
    "_sample_dirichlet": Call(
        lambda x: aten._sample_dirichlet(full(x, 1)[:, None].expand(-1, 2))[:, 0], *UNIFORM
    ),
}

IN_PLACE = {
    "bernoulli_.Tensor": Call(lambda x: aten.bernoulli_.Tensor(x, torch.tensor(0.5)), 0.5, 0.5),
    "bernoulli_.float": Call(lambda x: aten.bernoulli_.float(x, 0.5), 0.5, 0.5),
    "cauchy_": Call(lambda x: from_cauchy(aten.cauchy_(x)), *UNIFORM),
    "exponential_": Call(lambda x: aten.exponential_(x, 2.0), 0.5, 0.5),
    "geometric_": Call(lambda x: aten.geometric_(x, 0.5), 2.0, math.sqrt(2)),
    "log_normal_": Call(lambda x: aten.log_normal_(x, 1.0, 2.0).log(), 1.0, 2.0),
    "normal_": Call(lambda x: aten.normal_(x, 3.0, 2.0), 3.0, 2.0),
    "random_": Call(lambda x: from_random(aten.random_(x)), *UNIFORM),
    "random_.from": Call(lambda x: getattr(aten.random_, "from")(x, 9, 99), *integers(9, 99)),
    "random_.to": Call(lambda x: aten.random_.to(x, 99), *integers(0, 99)),
    "uniform_": Call(lambda x: aten.uniform_(x, 1.0, 3.0), *uniform(1, 3)),
    "dropout_": Call(lambda x: aten.dropout_(x.add_(1), 0.5, True), *DROPOUT),
    "alpha_dropout_": Call(lambda x: aten.alpha_dropout_(x, 0.5, True), *ALPHA_DROPOUT),
    "feature_dropout_": Call(
        lambda x: aten.feature_dropout_(images(x.add_(1)), 0.5, True), *DROPOUT
    ),
    "feature_alpha_dropout_": Call(
        lambda x: aten.feature_alpha_dropout_(images(x), 0.5, True), *ALPHA_DROPOUT
    ),
    "rrelu_": Call(lambda x: aten.rrelu_(x.sub_(1), 0.25, 0.5, True), *RRELU),
    "rrelu_with_noise_": Call(
        lambda x: aten.rrelu_with_noise_(x.sub_(1), torch.zeros_like(x), 0.25, 0.5, True), *RRELU
    ),
}

DROPOUTS = {
    "dropout": Call(lambda x: aten.dropout(full(x, 1), 0.5, True), *DROPOUT),
    "native_dropout": Call(lambda x: aten.native_dropout(full(x, 1), 0.5, True)[0], *DROPOUT),
    "alpha_dropout": Call(lambda x: aten.alpha_dropout(x, 0.5, True), *ALPHA_DROPOUT),
    "feature_dropout": Call(
        lambda x: aten.feature_dropout(images(full(x, 1)), 0.5, True), *DROPOUT
    ),
    "feature_alpha_dropout": Call(
        lambda x: aten.feature_alpha_dropout(images(x), 0.5, True), *ALPHA_DROPOUT
    ),
    "rrelu": Call(lambda x: aten.rrelu(full(x, -1), 0.25, 0.5, True), *RRELU),
    "rrelu_with_noise": Call(
        lambda x: aten.rrelu_with_noise(full(x, -1), torch.zeros_like(x), 0.25, 0.5, True), *RRELU
    ),
    "rrelu_with_noise_functional": Call(
        lambda x: aten.rrelu_with_noise_functional(
            full(x, -1), torch.zeros_like(x), 0.25, 0.5, True
        )[0],
        *RRELU,
    ),
}


def attention(operator, dropout=0.5):
    def function(x):
        sequence = full(x, 1).view(1, 1, 100, 4)
        result = operator(sequence, sequence, sequence, None, dropout)
        return result[0] if isinstance(result, tuple) else result

    return Call(function)


def recurrent(operator, gates, packed, dropout=0.5):
    """Two layers of 4 hidden units, with dropout between them."""

    def function(x):
        sequence = full(x, 1).view(10, 10, 4)
        hidden = sequence[:2] * 0
        shape = gates * 4
        weights = [torch.full((shape, 4), 0.2).double(), torch.full((shape, 4), 0.3).double()] * 2
        if gates == 4:
            hidden = [hidden, hidden]
        if packed:
            lengths = torch.full((10,), 10)
            arguments = (sequence.flatten(0, 1), lengths, hidden, weights, False, 2, dropout, True)
            return operator(*arguments, False)[0]
        return operator(sequence, hidden, weights, False, 2, dropout, True, False, False)[0]

    return Call(function)


LAYERS = {
    "scaled_dot_product_attention": attention(aten.scaled_dot_product_attention),
    "_scaled_dot_product_attention_math": attention(aten._scaled_dot_product_attention_math),
    "lstm.input": recurrent(aten.lstm.input, 4, False),
    "lstm.data": recurrent(aten.lstm.data, 4, True),
    "gru.input": recurrent(aten.gru.input, 3, False),
    "gru.data": recurrent(aten.gru.data, 3, True),
    "rnn_tanh.input": recurrent(aten.rnn_tanh.input, 1, False),
    "rnn_tanh.data": recurrent(aten.rnn_tanh.data, 1, True),
    "rnn_relu.input": recurrent(aten.rnn_relu.input, 1, False),
    "rnn_relu.data": recurrent(aten.rnn_relu.data, 1, True),
}

CALLS = {**FACTORIES, **LIKE, **DISTRIBUTIONS, **IN_PLACE, **DROPOUTS, **LAYERS}

# functions of a sample that call operators tagged as random, but by their arguments draw nothing
QUIET = {
    "dropout": lambda x: aten.dropout(x, 0.5, False),
    "dropout_": lambda x: aten.dropout_(x.clone(), 0.5, False),
    "native_dropout": lambda x: aten.native_dropout(x, 0.5, False)[0],
    "alpha_dropout": lambda x: aten.alpha_dropout(x, 0.5, False),
    "feature_dropout": lambda x: aten.feature_dropout(images(x), 0.5, False),
    "feature_alpha_dropout": lambda x: aten.feature_alpha_dropout(images(x), 0.5, False),
    "rrelu": lambda x: aten.rrelu(x, 0.25, 0.5, False),
    "rrelu_": lambda x: aten.rrelu_(x.clone(), 0.25, 0.5, False),
    "rrelu_with_noise": lambda x: aten.rrelu_with_noise(x, torch.zeros_like(x), 0.25, 0.5, False),
    "scaled_dot_product_attention": attention(
        aten.scaled_dot_product_attention, dropout=0.0
    ).function,
    "_scaled_dot_product_attention_math": attention(
        aten._scaled_dot_product_attention_math, dropout=0.0
    ).function,
    "lstm": recurrent(aten.lstm.input, 4, False, dropout=0.0).function,
    "gru": recurrent(aten.gru.input, 3, False, dropout=0.0).function,
    "rnn_tanh": recurrent(aten.rnn_tanh.input, 1, False, dropout=0.0).function,
    "rnn_relu": recurrent(aten.rnn_relu.input, 1, False, dropout=0.0).function,
    "packed lstm": recurrent(aten.lstm.data, 4, True, dropout=0.0).function,
}

OTHER_DEVICE = "it has no kernel for the CPU"
DRAWS_NOTHING = "it is tagged, but draws nothing on the CPU"

NOT_CALLED = {
    **dict.fromkeys(
        [
            "_cudnn_attention_backward",
            "_cudnn_attention_forward",
            "_cudnn_init_dropout_state",
            "_cudnn_rnn",
            "_efficient_attention_forward",
            "_fill_mem_eff_dropout_mask_",
            "_flash_attention_forward",
            "_flash_attention_forward.quantized",
            "_cudnn_attention_forward_no_dropout_inplace",
            "_flash_attention_forward_no_dropout_inplace",
            "_fused_dropout",
            "_lstm_mps",
            "_nested_tensor_softmax_with_shape",
            "_scaled_dot_product_attention_math_for_mps",
            "_scaled_dot_product_cudnn_attention",
            "_scaled_dot_product_cudnn_attention_backward",
            "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_efficient_attention_backward",
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_flash_attention.quantized",
            "_scaled_dot_product_fused_attention_overrideable",
            "_triton_scaled_dot_attention",
            "miopen_rnn",
        ],
        OTHER_DEVICE,
    ),
    **dict.fromkeys(
        ["_fused_sdp_choice", "_scaled_dot_product_flash_attention_for_cpu"], DRAWS_NOTHING
    ),
}

# Named tensors draw until 2.13; the others are new.
OF_SOME_RELEASES = {
    "_cudnn_attention_forward_no_dropout_inplace",
    "_flash_attention_forward_no_dropout_inplace",
    "rand.generator_with_names",
    "rand.names",
    "randn.generator_with_names",
    "randn.names",
}


def tagged():
    """All tagged operators but those with out= arguments, from the dispatcher itself."""
    found = set()
    for schema in torch._C._jit_get_all_schemas():
        namespace, _, name = schema.name.partition("::")
        if namespace != "aten":
            continue
        overload = getattr(getattr(aten, name), schema.overload_name or "default")
        writes_out = any(argument.is_out for argument in schema.arguments)
        if torch.Tag.nondeterministic_seeded in overload.tags and not writes_out:
            found.add(f"{name}.{schema.overload_name}" if schema.overload_name else name)
    return found
