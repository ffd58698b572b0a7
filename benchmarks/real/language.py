"""Networks on sequences of tokens: GPT and BERT, LSTM and GRU classifiers."""

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from benchmarks.real.task import Entry, Task, classify

VOCABULARY = 512


class Block(nn.Module):
    """Attention and two linear layers, each after a norm and added to its input."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        samples, tokens, width = x.shape
        heads = self.qkv(self.norm1(x)).view(samples, tokens, 3, self.heads, -1)
        q, k, v = heads.permute(2, 0, 3, 1, 4).unbind()
        mixed = scaled_dot_product_attention(q, k, v, mask, is_causal=self.causal)
        x = x + self.out(mixed.transpose(1, 2).reshape(samples, tokens, width))
        return x + self.narrow(gelu(self.wide(self.norm2(x))))


class Transformer(nn.Module):
    """GPT if ``causal``; else BERT's encoder, which takes a mask of the tokens that are there."""

    def __init__(self, causal: bool, width: int = 128, depth: int = 2, length: int = 64) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, width)
        self.places = nn.Parameter(torch.randn(length, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, 4, causal) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, VOCABULARY)

    def forward(self, ids: Tensor, present: Tensor | None = None) -> Tensor:
        x = self.tokens(ids) + self.places
        mask = None if present is None else present[:, None, None, :]
        for block in self.blocks:
            x = block(x, mask)
        return self.head(self.norm(x))


class Recurrent(nn.Module):
    """The last state of an LSTM or GRU, classified."""

    def __init__(self, kind: type[nn.RNNBase], inputs: int = 32, width: int = 64) -> None:
        super().__init__()
        self.layer, self.head = kind(inputs, width, batch_first=True), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0][:, -1])


def _gpt(samples: int) -> Task:
    ids = torch.randint(VOCABULARY, (samples, 65))
    return Task(Transformer(causal=True), (ids[:, :-1],), ids[:, 1:], classify)


def _bert(samples: int) -> Task:
    ids = torch.randint(VOCABULARY, (samples, 64))
    present = torch.arange(64) < torch.randint(8, 65, (samples, 1))
    return Task(Transformer(causal=False), (ids, present), ids, classify)


def _recurrent(kind: type[nn.RNNBase], samples: int) -> Task:
    x, labels = torch.randn(samples, 32, 32), torch.randint(10, (samples,))
    return Task(Recurrent(kind), (x,), labels, classify)


ENTRIES = [
    Entry("GPT, 2 layers of 128, 64 tokens", _gpt, 8, 256),
    Entry("BERT, 2 layers of 128, 64 tokens, padded", _bert, 8, 256),
    Entry("LSTM of 64, 32 steps", lambda n: _recurrent(nn.LSTM, n), 16, 256),
    Entry("GRU of 64, 32 steps", lambda n: _recurrent(nn.GRU, n), 16, 256),
]
