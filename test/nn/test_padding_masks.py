"""Encoders ask whether padding masks are left-aligned: what all samples agree on is answered."""

import pytest
import torch
from torch import nn

from functorch_ext import functional_call, grad, vmap

INPUTS = torch.linspace(-1, 1, 4 * 6 * 8, dtype=torch.float64).reshape(4, 6, 8).sin()
ALIGNED = torch.arange(6) >= torch.tensor([6, 3, 4, 2])[:, None]  # True where padded
OTHERS = ALIGNED.flip(1)


def encoder(**options):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dtype=torch.float64)
    return nn.TransformerEncoder(layer, 2, **options).eval()


def loss_of(model, parameters, x, padded):
    output = functional_call(model, parameters, (x[None],), {"src_key_padding_mask": padded[None]})
    return output[0].square().masked_fill(padded[:, None], 0).sum()


@pytest.mark.filterwarnings("ignore:no batching rule for aten::_nested_tensor_from_mask_left")
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("padded", [ALIGNED, OTHERS[1:]], ids=["aligned", "not aligned"])
def test_gradients_of_samples_in_evaluation_mode(padded):
    model, x = encoder(), INPUTS[: len(padded)]
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    loss = lambda parameters, x, padded: loss_of(model, parameters, x, padded)
    found = vmap(grad(loss), (None, 0, 0))(parameters, x, padded)
    for i in range(len(x)):
        value = loss_of(model, dict(model.named_parameters()), x[i], padded[i])
        expected = torch.autograd.grad(value, list(model.parameters()))
        for gradient, one in zip(found.values(), expected, strict=True):
            torch.testing.assert_close(gradient[i], one)


@pytest.mark.filterwarnings("ignore:no batching rule for aten::_nested_tensor_from_mask_left")
def test_samples_that_disagree_raise():
    model, x = encoder(), INPUTS[:2]
    padded = torch.stack([ALIGNED[1], OTHERS[1]])
    call = lambda x, padded: model(x[None], src_key_padding_mask=padded[None])
    with pytest.raises(RuntimeError, match="reads the value of a batched tensor"):
        vmap(call)(x, padded)


@pytest.mark.filterwarnings("ignore:no batching rule for aten::_nested_tensor_from_mask")
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_raise():
    model = encoder()
    call = lambda x, padded: model(x[None], src_key_padding_mask=padded[None])
    with torch.no_grad(), pytest.raises(RuntimeError, match="with enable_nested_tensor=False"):
        vmap(call)(INPUTS, ALIGNED)


def test_without_the_question_all_masks_work():
    model = encoder(enable_nested_tensor=False)
    call = lambda x, padded: model(x[None], src_key_padding_mask=padded[None])[0]
    x, padded = INPUTS[:2], torch.stack([ALIGNED[1], OTHERS[1]])
    expected = torch.stack([call(*sample) for sample in zip(x, padded)])
    torch.testing.assert_close(vmap(call)(x, padded), expected)
