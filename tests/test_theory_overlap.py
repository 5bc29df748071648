"""Keys and values made of one tensor: predicted against drawn networks."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from test_theory_rules_contraction import Made  # noqa: E402
from test_theory_statistics import compared  # noqa: E402

from fanin.distributions import Normal  # noqa: E402

N, T, D = 48, 24, 16
F = torch.nn.functional
SHAPES = {"table": (400, N), "q": (D, N), "k": (D, N), "v": (D, N)}
LAWS = {"table": Normal(1.0)} | {n: Normal(N**-0.5) for n in "qkv"}
IDS = torch.randperm(400, generator=torch.Generator().manual_seed(0))[: 2 * 6 * T].reshape(2, 6, T)


def parts(m, i, other=None):
    """Queries, keys and values of tokens; values of others where they are given."""
    x = F.embedding(i, m.table)
    z = x if other is None else F.embedding(other, m.table)
    return F.linear(x, m.q), F.linear(x, m.k), F.linear(z, m.v)


def fused(m, *ids):
    return F.scaled_dot_product_attention(*(p[:, None] for p in parts(m, *ids)))


def written_out(m, *ids):
    q, k, v = parts(m, *ids)
    return (q @ k.transpose(1, 2) / D**0.5).softmax(-1) @ v


def without_softmax(m, *ids):
    q, k, v = parts(m, *ids)
    return q @ k.transpose(1, 2) @ v


@pytest.mark.parametrize("forward", [fused, written_out, without_softmax])
def test_values_of_the_same_tokens(forward):
    assert compared(Made(forward, **SHAPES), IDS[0], LAWS, networks=192).misses(0.03) == []


@pytest.mark.parametrize("forward", [fused, without_softmax])
def test_values_of_other_tokens(forward):
    assert compared(Made(forward, **SHAPES), tuple(IDS), LAWS, networks=192).misses(0.03) == []


@pytest.mark.parametrize("forward", [fused, without_softmax])
def test_one_is_told_from_the_other(forward):
    """A control: the prediction for other tokens, networks on the same."""
    from dataclasses import replace

    same = compared(Made(lambda m, i, j: forward(m, i), **SHAPES), tuple(IDS), LAWS, networks=96)
    other = compared(Made(forward, **SHAPES), tuple(IDS), LAWS, networks=2).predicted
    rows = [replace(r, name=s.name) for r, s in zip(other.rows[-1:], same.predicted.rows[-1:], strict=True)]
    assert replace(same, predicted=type(other)(rows)).misses(0.03)


def test_patches_weighed_by_a_softmax_of_features():
    """Values come first in the product and vary by place (padding): only weights are rows of one sign."""

    def forward(m, x):
        y = (x @ m.q.t()).transpose(1, 2)[..., None]
        taps = F.unfold(y, (3, 1), padding=(1, 0)).transpose(1, 2).reshape(-1, D, 3)
        weights = (x @ m.k[:3].t()).reshape(-1, 3, 1).softmax(1)
        return (taps @ weights).reshape(6, T, D)

    net = Made(forward, **{n: SHAPES[n] for n in "qk"})
    alike = torch.randn(1, 1, N, generator=torch.Generator().manual_seed(1)) + torch.randn(
        6, T, N, generator=torch.Generator().manual_seed(2)
    )
    assert compared(net, alike, {"k": Normal(0.1 * N**-0.5), "q": Normal(N**-0.5)}, networks=96).misses(0.03) == []
