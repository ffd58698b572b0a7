"""transformers: per-sample gradients of small random models, and their outputs out of vmap."""

import pytest
import torch

from functorch_ext import functional_call, grad, vmap
from test.libraries.models import bert, gpt2, made, t5, vit
from test.libraries.per_sample import assert_per_sample_gradients

pytest.importorskip("transformers")
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def tokens():
    return torch.randint(50, (3, 6))


@pytest.fixture
def labels():
    return torch.tensor([0, 1, 1])


def test_gpt2(tokens):
    loss = lambda model, row: model(row[None], labels=row[None]).loss
    assert_per_sample_gradients(made(gpt2), loss, tokens)


def test_outputs_of_models_are_containers(tokens):
    model = made(gpt2)
    outputs = vmap(lambda row: model(row[None], use_cache=False))(tokens)
    expected = model(tokens, use_cache=False)
    assert type(outputs) is type(expected)
    torch.testing.assert_close(outputs.logits[:, 0], expected.logits)


def test_dropout_in_training(tokens):
    model = made(gpt2).train()
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(parameters, row):
        return functional_call(model, parameters, (row[None],), {"labels": row[None]}).loss

    equal = tokens[:1].expand(2, 6)
    for randomness in ("different", "same"):
        gradients = vmap(grad(loss), (None, 0), randomness=randomness)(parameters, equal)
        first, second = gradients["transformer.wte.weight"]
        assert torch.equal(first, second) == (randomness == "same")


def test_bert(tokens, labels):
    loss = lambda model, row, label: model(row[None], labels=label[None]).loss
    assert_per_sample_gradients(made(bert), loss, tokens, labels)


def test_bert_with_padding(tokens, labels):
    """transformers asks whether there is any padding, unless it is given a mask of four dimensions."""
    masks = torch.ones(3, 6, dtype=torch.long)
    masks[1, 4:] = 0
    masks[2, 2:] = 0

    def loss(model, row, mask, label):
        return model(row[None], attention_mask=mask[None], labels=label[None]).loss

    with pytest.raises(RuntimeError, match="a number is read out of a batched tensor"):
        assert_per_sample_gradients(made(bert), loss, tokens, masks, labels)
    wide = masks.bool()[:, None, None, :].expand(3, 1, 6, 6)
    assert_per_sample_gradients(made(bert), loss, tokens, wide, labels)


def test_vit(labels):
    model = made(vit)
    loss = lambda model, image, label: model(image[None], labels=label[None]).loss
    assert_per_sample_gradients(model, loss, torch.randn(3, 3, 8, 8), labels)


def test_t5(tokens):
    model = made(t5)
    loss = lambda model, row, target: model(input_ids=row[None], labels=target[None]).loss
    assert_per_sample_gradients(model, loss, tokens, tokens.flip(1))
