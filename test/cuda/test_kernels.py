"""Kernels that only GPUs have: fused attention, cuDNN's normalization, convolution and networks."""

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from functorch_ext import functional_call, grad, vmap
from test.oracle import loop

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

BACKENDS = {
    "math": SDPBackend.MATH,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}


def close(found, expected, tolerance):
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("causal", [False, True], ids=["all", "causal"])
@pytest.mark.parametrize("in_dims", [(0, 0, 0), (0, None, None), (None, 0, 0)], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_attention(backend, in_dims, causal):
    shape = (2, 4, 32, 64)  # batch, heads, tokens, width
    args = [
        torch.randn(*([3] if dim == 0 else []), *shape, device="cuda", dtype=torch.bfloat16)
        for dim in in_dims
    ]

    def attend(q, k, v):
        with sdpa_kernel(BACKENDS[backend]):
            return scaled_dot_product_attention(q, k, v, is_causal=causal)

    def gradients(q, k, v):
        return grad(lambda *qkv: attend(*qkv).float().square().sum(), (0, 1, 2))(q, k, v)

    close(vmap(attend, in_dims)(*args), loop(attend, in_dims)(*args), 2e-2)
    close(vmap(gradients, in_dims)(*args), loop(gradients, in_dims)(*args), 5e-2)


MODULES = {
    "BatchNorm2d": (lambda: nn.BatchNorm2d(4, track_running_stats=False), (6, 4, 5, 5)),
    "Conv2d": (lambda: nn.Conv2d(4, 6, 3), (2, 4, 8, 8)),
    "Conv3d": (lambda: nn.Conv3d(2, 3, 3), (2, 2, 6, 6, 6)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2), (2, 4, 5, 5)),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), (3, 4, 5, 5)),
    "LayerNorm": (lambda: nn.LayerNorm(8), (3, 8)),
    "LSTM": (lambda: nn.LSTM(5, 6, 2), (7, 3, 5)),
    "GRU": (lambda: nn.GRU(5, 6, bidirectional=True), (7, 3, 5)),
    "RNN": (lambda: nn.RNN(5, 6), (7, 3, 5)),
    "MultiheadAttention": (lambda: SelfAttention(8, 2, batch_first=True), (3, 5, 8)),
    "CTCLoss": (lambda: Aligned(), (12, 2, 5)),
    "EmbeddingBag": (lambda: Bag(), (4, 3)),
}


class SelfAttention(nn.MultiheadAttention):
    def forward(self, x):
        return super().forward(x, x, x, need_weights=False)[0]


class Aligned(nn.Module):
    """The loss of a sequence beside a label, by cuDNN where it can."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        labels = torch.tensor([[1, 2, 3], [4, 1, 2]], device=x.device)
        lengths = torch.tensor([12, 12]), torch.tensor([3, 3])
        scores = (x * self.scale).log_softmax(-1)
        return nn.functional.ctc_loss(scores, labels, *(n.to(x.device) for n in lengths))


class Bag(nn.Module):
    def __init__(self):
        super().__init__()
        self.bag = nn.EmbeddingBag(10, 6)

    def forward(self, x):
        return self.bag((x.abs() * 3).long().clamp(max=9))


@pytest.mark.parametrize("name", MODULES)
def test_modules(name):
    make, shape = MODULES[name]
    module = make().to("cuda")
    x = torch.randn(3, *shape, device="cuda")
    weights = {name: weight.detach() for name, weight in module.named_parameters()}

    def call(weights, x):
        output = functional_call(module, weights, (x,))
        return output[0] if isinstance(output, tuple) else output

    def plain_call(weights, x):
        output = torch.func.functional_call(module, weights, (x,))
        return output[0] if isinstance(output, tuple) else output

    def plain_gradients(weights, x):
        leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
        loss = plain_call(leaves, x).square().sum()
        return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values()))))

    gradients = grad(lambda weights, x: call(weights, x).square().sum())
    close(vmap(call, (None, 0))(weights, x), loop(plain_call, (None, 0))(weights, x), 1e-3)
    found = vmap(gradients, (None, 0))(weights, x)
    rows = [plain_gradients(weights, sample) for sample in x]
    for key in weights:
        close(found[key], torch.stack([row[key] for row in rows]), 5e-3)
