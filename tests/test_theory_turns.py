"""Rotary positions: how far turned keys of two tokens agree by chance where their values do."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
import numpy as np  # noqa: E402
from test_theory_adjoint import errors, hold  # noqa: E402
from torch import nn  # noqa: E402

import fanin  # noqa: E402
from fanin.graph import Kind, Node  # noqa: E402
from fanin.theory import grid, turns  # noqa: E402
from fanin.theory.law import FEATURE, Atom, Law, fresh_latent  # noqa: E402
from fanin.theory.records import replace  # noqa: E402
from fanin.theory.rules.pointwise import product  # noqa: E402
from fanin.theory.state import Known, free_axes  # noqa: E402

WIDTH, HEAD, TOKENS = 64, 16, 96
AXES = (Atom(2, "sample"),), (Atom(TOKENS, "position"),), (Atom(HEAD, FEATURE),)
NODE = Node("turned", "turned", Kind.PRODUCT, "mul", (), (2, TOKENS, HEAD), "float64")
IDS = torch.randperm(900, generator=torch.Generator().manual_seed(0))[: 2 * TOKENS].reshape(2, TOKENS)


def halves(x):
    return torch.cat([-x[..., HEAD // 2 :], x[..., : HEAD // 2]], -1)


class Attention(nn.Module):
    """Attention over tokens that are looked up, whose queries and keys are turned by place.

    Args:
        base: of the frequencies; 0 for none.
        prefix: tokens in front that are not turned.
        drawn: whether places are scaled by a draw of the model's own.
    """

    def __init__(self, base: float, fused: bool = True, prefix: int = 0, drawn: bool = False):
        super().__init__()
        self.table, self.fused, self.base, self.prefix, self.drawn = (
            nn.Embedding(900, WIDTH),
            fused,
            base,
            prefix,
            drawn,
        )
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))

    def rotated(self, x, cos, sin):
        front, x = x[..., : self.prefix, :], x[..., self.prefix :, :]
        x = x * cos + halves(x) * sin
        return torch.cat([front, x], -2) if self.prefix else x

    def forward(self, ids):
        x = self.table(ids)
        q, k, v = (f(x).unflatten(-1, (-1, HEAD)).transpose(1, 2) for f in (self.q, self.k, self.v))
        if self.base:
            frequency = self.base ** -(torch.arange(HEAD // 2) / (HEAD // 2))
            place = torch.arange(TOKENS - self.prefix).float()[:, None]
            if self.drawn:
                place = place * torch.empty(1).uniform_(0.8, 1.25)
            angle = (place * frequency).repeat(1, 2)
            q, k = (self.rotated(t, angle.cos(), angle.sin()) for t in (q, k))
        if self.fused:
            return nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return ((q @ k.transpose(2, 3) / HEAD**0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)


NAMES = ("q", "k", "v", "q.weight", "k.weight")
CASES = {
    "as they are": (0.0,),
    "turned": (100.0,),
    "spelled out": (100.0, False),
    "fast": (4.0,),
    "slow": (1e4,),
    "behind a prefix": (100.0, True, 6),
    "drawn": (100.0, True, 0, True),
}


@pytest.mark.parametrize("case", CASES)
def test_turned_keys(case: str) -> None:
    found = errors(lambda: Attention(*CASES[case]), IDS, 24)
    hold({n: found[n] for n in NAMES}, 0.06)


def test_turned_keys_agree_less() -> None:
    """A control: what is said of keys as they are is not true of turned ones, by many standard errors."""
    said, turned = (fanin.predict(Attention(base).train(), IDS)["q"].grad_rms for base in (0.0, 4.0))
    assert said is not None
    assert turned is not None
    assert said > 1.2 * turned
    error, deviation = errors(lambda: Attention(4.0), IDS, 8)["q"]
    assert abs((1 + error) * said / turned - 1) > 10 * deviation


def test_what_turns_leave() -> None:
    """The mean cosine over frequencies and pairs of places, counted."""
    frequency = 100.0 ** -(torch.arange(HEAD // 2) / (HEAD // 2))
    angle = torch.arange(TOKENS).float()[:, None] * frequency
    turn = torch.polar(torch.ones_like(angle), angle)
    both = (turn.sum(0).abs().square().mean() - TOKENS) / (TOKENS * (TOKENS - 1))
    x = Law((2, TOKENS, HEAD), AXES, grid.Z_UNIT[None], np.zeros((1, 1, 1), np.int32), fresh_latent({}))
    wide = angle.repeat(1, 2)
    parts = [product(NODE, x, Known(t.double().numpy(), free_axes(wide.shape))) for t in (wide.cos(), wide.sin())]
    assert turns.mean(parts, [1, 1]) == pytest.approx(float(both), abs=1e-3)
    pieces = [replace(x, latent=replace(x.latent, turned=t)) for t in (1.0, 0.25)]
    assert turns.mean(pieces, [1, 3]) == pytest.approx(0.4375)
    assert turns.end_to_end(pieces, [1, 3]) == pytest.approx(0.625**2)
