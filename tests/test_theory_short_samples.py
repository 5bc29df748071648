"""Places of unlike size on both sides of a sum: means over tokens of short samples, heads with biases of their own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import Networks
from test_theory_adjoint import errors
from torch import nn

import fanin
from fanin.theory.rules.attention import Prior, heads_apart

WIDTH, TOKENS, NETWORKS = 64, 40, 10
LENGTHS = (40, 24, 6, 14)


class Pooled(nn.Module):
    """The mean over a sample's own tokens, as sentence encoders take it."""

    def __init__(self):
        super().__init__()
        self.one, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = (torch.arange(TOKENS) < torch.tensor(LENGTHS)[:, None]).float()[..., None]
        return self.out((F.gelu(self.one(x)) * mask).sum(1) / mask.sum(1))


class Sloped(nn.Module):
    """Attention of four heads with biases that grow with distance, by a slope for each head."""

    def __init__(self, slopes: tuple[float, ...] = (0.5, 0.25, 0.125, 0.0625)):
        super().__init__()
        self.slopes = torch.tensor(slopes)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, 4, WIDTH // 4).permute(2, 0, 3, 1, 4)
        at = torch.arange(TOKENS)
        bias = -(at[:, None] - at).abs() * self.slopes[:, None, None]
        return self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(2))


def batch() -> torch.Tensor:
    return torch.randn(4, TOKENS, WIDTH, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize(
    ("make", "names"),
    [(Pooled, ("/sum", "/div", "out")), (Sloped, ("/scaled_dot_product_attention",))],
    ids=["means of short samples", "heads with slopes"],
)
def test_forward(make: type[nn.Module], names: tuple[str, ...]) -> None:
    """One number for all samples, or one count for all heads, was 38 % too much of the one and 16 % too little."""
    said, squares = None, {n: [] for n in names}
    networks = Networks(batch())
    for seed in range(NETWORKS):
        torch.manual_seed(seed)
        model = make()
        said = fanin.predict(model, batch()) if said is None else said
        measured = networks.measure(model)
        for n in names:
            squares[n].append(measured[n].rms ** 2)
    for n in names:
        mean, error = np.mean(squares[n]), np.std(squares[n], ddof=1) / NETWORKS**0.5
        assert said[n].rms == pytest.approx(mean**0.5, rel=4 * error / mean / 2 + 0.02), n


def test_gradients_of_values_where_heads_look_far_or_near() -> None:
    found = errors(Sloped, batch(), NETWORKS)
    for name in ("qkv", "qkv.weight"):
        error, noise = found[name]
        assert abs(error) < 4 * noise + 0.05, (name, error, noise)


def test_heads_apart_of_one_head_is_one() -> None:
    """A control: what heads have apart is how their mean weights differ, and nothing for heads that are alike."""
    one, two = np.eye(6) + 1e-9, np.ones((6, 6))
    alike, unlike = Prior(np.stack([one, one])[None]), Prior(np.stack([one, two])[None])
    assert heads_apart(alike, False, 6, 6) == pytest.approx(1.0)
    mean = (np.eye(6)[0] + 1 / 6) / 2
    wanted = (1 + 1 / 6) / 2 / float((mean**2).sum())
    assert heads_apart(unlike, False, 6, 6) == pytest.approx(wanted, rel=1e-6)


def test_slopes_make_a_difference() -> None:
    torch.manual_seed(0)
    apart, alike = (Sloped(s) for s in ((0.5, 0.25, 0.125, 0.0625), (0.234,) * 4))
    own = [fanin.predict(m, batch())["/scaled_dot_product_attention"].rms for m in (apart, alike)]
    assert abs(own[0] / own[1] - 1) > 0.02
