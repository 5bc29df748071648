"""Batches that are padded: a mask leaves places out that all hold one token."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from networks import Networks  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import fanin  # noqa: E402
from fanin.theory import engine  # noqa: E402
from fanin.theory.adjoint import masked  # noqa: E402

N, T, NETWORKS = 64, 32, 16
LENGTHS = torch.tensor([6, 14, 32, 20])
MASK = torch.arange(T) < LENGTHS[:, None]
IDS = torch.where(MASK, torch.randint(1, 60, MASK.shape, generator=torch.Generator().manual_seed(0)), 0)
POOLS = {
    "mean": lambda x, mask: (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True),
    "filled": lambda x, mask: x.masked_fill(~mask[..., None], 0).sum(1) / mask.sum(1, keepdim=True),
    "product": lambda x, mask: ((mask / mask.sum(1, keepdim=True))[:, None] @ x)[:, 0],
    "first": lambda x, mask: x[:, 0],
}
LOOKED_AT = ("/scaled_dot_product_attention", "e", "f", "q", "k", "v")
WEIGHTS = ("e.weight", "f.weight", "g.weight", "v.weight", "q.weight")


class Encoder(nn.Module):
    """One layer of attention that does not look at padding, and a pool of what is not padding."""

    def __init__(self, pool, given):
        super().__init__()
        self.e, self.norm, self.pool, self.given = nn.Embedding(60, N), nn.LayerNorm(N), pool, given
        self.q, self.k, self.v, self.o, self.f, self.g, self.head = (nn.Linear(N, N) for _ in range(7))

    def forward(self, ids, mask=None):
        mask = mask.bool() if self.given else ids != 0
        x = self.e(ids)
        y = self.norm(x)
        heads = lambda t: t.unflatten(-1, (2, -1)).transpose(1, 2)  # noqa: E731
        q, k, v = (heads(layer(y)) for layer in (self.q, self.k, self.v))
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        x = x + self.o(found.transpose(1, 2).flatten(2))
        x = x + self.g(torch.relu(self.f(x)))
        return self.head(self.pool(x, mask))


def compared(pool, given=False):
    """Mean squares of signals, gradients and weights' gradients: predicted, and over networks."""
    batch = {"ids": IDS, "mask": MASK.long()} if given else {"ids": IDS}
    predicted, squares = None, {}
    networks = Networks(batch)
    for seed in range(NETWORKS):
        torch.manual_seed(seed)
        net = Encoder(pool, given)
        predicted = predicted or fanin.predict(net, batch)
        found = networks.measure(net, seed=seed)
        for name in LOOKED_AT:
            squares.setdefault((name, "rms"), []).append(found[name].rms ** 2)
            squares.setdefault((name, "gradient"), []).append(found[name].grad_rms ** 2)
        for name in WEIGHTS:
            squares.setdefault((name, "weight"), []).append(found.parameters[name]["grad_rms"] ** 2)
    said = {(name, "rms"): predicted[name].rms ** 2 for name in LOOKED_AT}
    said |= {(name, "gradient"): predicted[name].grad_rms ** 2 for name in LOOKED_AT}
    said |= {(name, "weight"): predicted.parameters[name]["grad_rms"] ** 2 for name in WEIGHTS}
    return said, {key: torch.tensor(values, dtype=torch.float64) for key, values in squares.items()}


def missed(said, squares, slack=0.2):
    error = {k: float(v.std()) / NETWORKS**0.5 for k, v in squares.items()}
    return [k for k, v in squares.items() if abs(said[k] - float(v.mean())) > 4 * error[k] + slack * float(v.mean())]


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_padding_is_not_heard(pool):
    assert missed(*compared(pool)) == []


def test_a_mask_that_is_given():
    assert missed(*compared(POOLS["mean"], given=True)) == []


def test_samples_of_unlike_length_are_told_apart(monkeypatch):
    """A control: with one number of keys for all samples short ones hear too little."""
    monkeypatch.setattr(masked, "by_mask", lambda node, g, inputs, plain, rule: plain)
    assert {("v", "gradient"), ("k", "gradient")} <= set(missed(*compared(POOLS["mean"])))


def test_padding_that_counts_as_tokens_is_far_off(monkeypatch):
    """A control: half of all tokens would be one and the same."""
    monkeypatch.setattr(engine, "padding_of", lambda *_: None)
    off = missed(*compared(POOLS["mean"]))
    assert {("/scaled_dot_product_attention", "rms"), ("e.weight", "weight")} <= set(off)
