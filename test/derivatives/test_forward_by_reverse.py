"""Forward mode of operators that PyTorch differentiates in reverse mode alone.

The oracle is plain reverse mode: Jacobians row by row, and differences of them.
"""

import pytest
import torch
import torch.nn.functional as F

from functorch_ext import grad, hessian, jacfwd, jvp, linearize, vjp, vmap
from test.releases import from_release, until_release

pytestmark = [
    pytest.mark.filterwarnings("ignore:Default grid_sample"),
    pytest.mark.filterwarnings("ignore:index_reduce"),
    pytest.mark.filterwarnings("ignore:torch.cholesky is deprecated"),
]
STEP = 1e-6
SAMPLES = 2


def rand(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def integers(high, *shape, seed=0):
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


IMAGE, VOLUME = rand(2, 2, 4, 5, seed=1), rand(2, 1, 3, 4, 3, seed=2)
INDICES, OFFSETS = torch.tensor([1, 0, 3, 3, 2, 1]), torch.tensor([0, 2, 2, 5])
TABLE = rand(4, 3, seed=3)
ROWS = integers(2, 2, 3)
WHOLE = torch.tensor([0, 2, 2, 6])
LABELS = torch.tensor([[2, 0, -1, 1], [3, -1, 1, 1]])
SPEECH = torch.tensor([[1, 2, 2], [3, 1, 0]])
LENGTHS = torch.tensor([[2, 0, 3], [1, 3, 1]])


def sampled(x, **options):
    return F.grid_sample(IMAGE, x.sin().reshape(2, 3, 2, 2), align_corners=False, **options)


def scattered(reduce, include_self=True, index=((0, 1, 0), (1, 1, 0))):
    index = torch.tensor(index)
    return lambda x: x[:2].scatter_reduce(
        0, index, x[2:, :].sin(), reduce, include_self=include_self
    )


def bags(x, mode, **options):
    return F.embedding_bag(INDICES, x, OFFSETS, mode=mode, **options)


def ctc(x, **options):
    scores = x.reshape(6, 2, 4).log_softmax(-1)
    return F.ctc_loss(scores, SPEECH, torch.tensor([6, 5]), torch.tensor([3, 2]), **options)


# name: (function of one tensor, the shape of that)
FUNCTIONS = {
    "grid_sample of the grid": (sampled, (24,)),
    "grid_sample, bicubic": (lambda x: sampled(x, mode="bicubic"), (24,)),
    "grid_sample, reflecting": (lambda x: sampled(x * 3, padding_mode="reflection"), (24,)),
    "grid_sample of image and grid": (
        lambda x: F.grid_sample(x[:40].reshape(1, 2, 4, 5), x[40:].tanh().reshape(1, 2, 2, 2)),
        (48,),
    ),
    "grid_sample in 3 dimensions": (
        lambda x: F.grid_sample(VOLUME, x.sin().reshape(2, 2, 1, 2, 3), align_corners=True),
        (24,),
    ),
    "embedding_bag, sum": (lambda x: bags(x.sin(), "sum"), (4, 3)),
    "embedding_bag, mean": (lambda x: bags(x.sin(), "mean", padding_idx=3), (4, 3)),
    "embedding_bag, max": (lambda x: bags(x.sin(), "max"), (4, 3)),
    "embedding_bag, weighted": (
        lambda x: bags(x[:4].sin(), "sum", per_sample_weights=x[4:].flatten()),
        (6, 3),
    ),
    "embedding_bag, weights alone": (
        lambda x: F.embedding_bag(
            INDICES, TABLE, WHOLE, mode="sum", per_sample_weights=x.sin(), include_last_offset=True
        ),
        (6,),
    ),
    "scatter_reduce, prod": (scattered("prod"), (4, 3)),
    "scatter_reduce, prod without self": (scattered("prod", include_self=False), (4, 3)),
    "scatter_reduce_, prod": (
        lambda x: x[:2].sin().scatter_reduce_(0, ROWS, x[2:], "prod"),
        (4, 3),
    ),
    "scatter_reduce, mean": (scattered("mean"), (4, 3)),
    "scatter_reduce, amax": (scattered("amax"), (4, 3)),
    "index_reduce, prod": (
        lambda x: x[:2].index_reduce(0, torch.tensor([1, 0, 1]), x[2:].sin(), "prod"),
        (5, 3),
    ),
    "index_reduce_, mean": (
        lambda x: x[:2].sin().index_reduce_(0, torch.tensor([1, 1, 0]), x[2:].sin(), "mean"),
        (5, 3),
    ),
    "index_reduce, amin": (
        lambda x: x[:2].index_reduce(0, torch.tensor([1, 0, 1]), x[2:].sin(), "amin"),
        (5, 3),
    ),
    "fake_quantize": (
        lambda x: torch.fake_quantize_per_tensor_affine(x * 3, 0.3, 1, -4, 5),
        (5,),
    ),
    "ctc_loss": (lambda x: ctc(x, reduction="none"), (48,)),
    "ctc_loss of targets in a row": (
        lambda x: F.ctc_loss(
            x.reshape(6, 2, 4).log_softmax(-1), torch.tensor([1, 2, 2, 3, 1]), (6, 4), (3, 2)
        ),
        (48,),
    ),
    "multi_margin_loss": (
        lambda x: F.multi_margin_loss(x, LABELS[:, 0], weight=TABLE[:, 0].abs(), reduction="none"),
        (2, 4),
    ),
    "multi_margin_loss, squared": (
        lambda x: F.multi_margin_loss(x.sin(), LABELS[:, 0], p=2, margin=0.7),
        (2, 4),
    ),
    "multi_margin_loss of one": (lambda x: F.multi_margin_loss(x, torch.tensor(2)), (4,)),
    "multilabel_margin_loss": (
        lambda x: F.multilabel_margin_loss(x.sin(), LABELS, reduction="none"),
        (2, 4),
    ),
    "cdist": (lambda x: torch.cdist(x[:2], x[2:]), (5, 3)),
    "cdist of order 1": (lambda x: torch.cdist(x[:2], x[2:].sin(), p=1), (5, 3)),
    "cdist of order 3": (lambda x: torch.cdist(x[:2], x[2:], p=3), (5, 3)),
    "cdist by products": (
        lambda x: torch.cdist(x[:2], x[2:], compute_mode="use_mm_for_euclid_dist"),
        (5, 3),
    ),
    "pdist": (torch.pdist, (4, 3)),
    "cholesky": (lambda x: torch.cholesky(x @ x.mT + torch.eye(3, dtype=x.dtype)), (3, 3)),
    "ormqr": (lambda x: torch.ormqr(x, x[0], x.sin()), (3, 3)),
    "igamma": (lambda x: torch.igamma(TABLE[0].exp(), x.exp()), (3,)),
    "igammac_": (lambda x: torch.zeros_like(x).add(TABLE[0].exp()).igammac_(x.exp()), (3,)),
    "zeta": (lambda x: torch.special.zeta(TABLE[0].exp() + 1, x.exp()), (3,)),
    "segment_reduce": (
        lambda x: torch.segment_reduce(x.sin(), "max", lengths=LENGTHS[0]),
        (5, 2),
    ),
    "segment_reduce, mean": (
        lambda x: torch.segment_reduce(x.sin(), "mean", lengths=LENGTHS, axis=1, initial=0.5),
        (2, 5, 2),
    ),
    "segment_reduce, prod": (
        lambda x: torch.segment_reduce(x, "prod", offsets=torch.tensor([0, 2, 2, 5])),
        (5,),
    ),
    "conv_tbc": (
        lambda x: torch.conv_tbc(x[:8].reshape(4, 2, 1), x[8:].reshape(2, 1, 3), x[:3]),
        (14,),
    ),
    "native_dropout_backward": (
        lambda x: torch.ops.aten.native_dropout_backward(x.sin(), TABLE[0] > 0, 2.0),
        (3,),
    ),
}
FUNCTIONS = from_release((2, 12), FUNCTIONS, "grid_sample")  # differentiated twice
FUNCTIONS = until_release((2, 14), FUNCTIONS, "cholesky")  # an error since


def jacobian(function, x):
    return torch.autograd.functional.jacobian(function, x)


def jacobians(function, x):
    """The Jacobian along a direction: its derivative."""

    def along(t):
        return (jacobian(function, x + STEP * t) - jacobian(function, x - STEP * t)) / (2 * STEP)

    return along


def dot(jacobian, t):
    return torch.tensordot(jacobian, t, t.dim())


@pytest.fixture(params=FUNCTIONS)
def case(request):
    function, shape = FUNCTIONS[request.param]
    return function, [rand(*shape, seed=10 + i) for i in range(SAMPLES)]


def assert_close(actual, expected, tolerance=1e-9):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def test_jvp(case):
    function, (x, *_) = case
    t = x.cos()
    value, tangent = jvp(function, (x,), (t,))
    assert_close(value, function(x))
    assert_close(tangent, dot(jacobian(function, x), t))
    assert_close(linearize(function, x)[1](t), tangent)


def test_jacfwd(case):
    function, (x, *_) = case
    assert_close(jacfwd(function)(x), jacobian(function, x))


def test_vmap(case):
    function, xs = case
    expected = torch.stack([dot(jacobian(function, x), x.cos()) for x in xs])
    x = torch.stack(xs)
    assert_close(vmap(lambda x: jvp(function, (x,), (x.cos(),))[1])(x), expected)
    assert_close(jvp(vmap(function), (x,), (x.cos(),))[1], expected)


def test_tangent_of_the_cotangent(case):
    """A tangent that enters a backward operator alone."""
    function, (x, *_) = case
    value, jacobian_ = function(x), jacobian(function, x)
    c = torch.linspace(1, 2, value.numel(), dtype=value.dtype).reshape(value.shape)
    t = c.sin()
    for pulled, pushed in (
        jvp(lambda c: vjp(function, x)[1](c)[0], (c,), (t,)),
        jvp(
            lambda s: grad(lambda x: (function(x) * s).sum())(x),
            (c,),
            (t,),
        ),
    ):
        assert_close(pulled, torch.tensordot(c, jacobian_, c.dim()))
        assert_close(pushed, torch.tensordot(t, jacobian_, t.dim()))


def test_reverse_mode_through_vmap(case):
    function, xs = case
    value, pullback = vjp(vmap(function), torch.stack(xs))
    c = torch.linspace(1, 2, value.numel(), dtype=value.dtype).reshape(value.shape)
    pairs = zip(xs, c, strict=True)
    expected = [torch.tensordot(c, jacobian(function, x), c.dim()) for x, c in pairs]
    assert_close(pullback(c)[0], torch.stack(expected))


def test_second_derivatives(case):
    function, xs = case
    x = xs[0]
    t, s = x.cos(), (2 * x).sin()
    along = jacobians(function, x)
    c = torch.linspace(1, 2, function(x).numel(), dtype=x.dtype).reshape(function(x).shape)
    loss = lambda x: (function(x) * c).sum()
    pulled = lambda jacobian: torch.tensordot(c, jacobian, c.dim())

    close = lambda actual, expected: assert_close(actual, expected, 1e-6)
    close(jvp(grad(loss), (x,), (t,))[1], pulled(along(t)))
    close(grad(lambda x: jvp(loss, (x,), (t,))[1])(x), pulled(along(t)))
    twice = jvp(lambda x: jvp(function, (x,), (s,))[1], (x,), (t,))[1]
    close(twice, dot(along(t), s))
    expected = torch.stack(
        [pulled(along(e)) for e in torch.eye(x.numel(), dtype=x.dtype).reshape(-1, *x.shape)]
    )
    close(hessian(loss)(x).reshape(expected.shape), expected)
    batched = vmap(lambda x: jvp(grad(loss), (x,), (x.cos(),))[1])(torch.stack(xs))
    close(batched, torch.stack([pulled(jacobians(function, x)(x.cos())) for x in xs]))


def test_indices_in_no_bag():
    """Behind the last offset. PyTorch's derivative, and its operator in float64, count them."""
    x, t = rand(4, 3).float(), rand(4, 3, seed=1).float()
    options = {"mode": "sum", "include_last_offset": True}
    function = lambda x: F.embedding_bag(INDICES, x, torch.tensor([0, 2, 4]), **options)
    assert_close(jvp(function, (x,), (t,)), (function(x), function(t)), 1e-6)


@pytest.mark.parametrize("by_channel", [False, True])
@pytest.mark.filterwarnings("ignore::functorch_ext.FallbackWarning")
def test_learnt_fake_quantization(by_channel):
    """PyTorch has it in single precision alone, and its derivative is one of straight lines."""

    def function(x):
        scale, zero_point = x[0].exp(), x[1].tanh()
        settings = (-4, 5, 0.7)
        if by_channel:
            op = torch._fake_quantize_learnable_per_channel_affine
            return op(x * 2, scale, zero_point, 1, *settings)
        op = torch._fake_quantize_learnable_per_tensor_affine
        return op(x * 2, scale[:1], zero_point[:1], *settings)

    xs = rand(2, 4, 3).float()
    expected = torch.stack([dot(jacobian(function, x), x.cos()) for x in xs])
    pushed = lambda f: lambda x: jvp(f, (x,), (x.cos(),))[1]
    assert_close(vmap(pushed(function))(xs), expected, 1e-5)
    assert_close(pushed(vmap(function))(xs), expected, 1e-5)
    assert_close(jacfwd(function)(xs[0]), jacobian(function, xs[0]), 1e-5)
