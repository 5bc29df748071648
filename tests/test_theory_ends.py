"""Sequences laid end to end, of pieces whose places are alike in other ways: tokens that start at zero, prompts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import Networks
from test_theory_adjoint import errors, hold
from torch import nn

import fanin
from fanin.theory import ends, grid, places
from fanin.theory.law import Atom, Law, fresh_latent

WIDTH, TOKENS, MORE = 96, 32, 16


class Attend(nn.Module):
    """A norm, attention of three heads and a skip."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).view(b, t, 3, 3, WIDTH // 3).permute(2, 0, 3, 1, 4)
        return x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, WIDTH))


class Joined(nn.Module):
    """Tokens of the batch beside more of a scale of their own, and two blocks."""

    def __init__(self, std: float):
        super().__init__()
        self.embed = nn.Linear(64, WIDTH)
        self.more = nn.Parameter(std * torch.randn(1, MORE, WIDTH))
        self.one, self.two = Attend(), Attend()
        self.head = nn.Linear(WIDTH, 48)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([self.embed(x), self.more.expand(len(x), -1, -1)], 1)
        return self.head(self.two(self.one(x)))


def forward_errors(std: float, nets: int = 8) -> dict[str, tuple[float, float]]:
    batch = torch.randn(4, TOKENS, 64, generator=torch.Generator().manual_seed(5))
    squares, said = {}, None
    networks = Networks(batch)
    for seed in range(nets):
        torch.manual_seed(seed)
        model = Joined(std)
        said = fanin.predict(model, batch) if said is None else said
        for row in networks.measure(model).rows:
            squares.setdefault(row.name, []).append(row.rms**2)
    found = {}
    for row in said.rows:
        mean = float(np.mean(squares[row.name]))
        if mean > 0:
            se = float(np.std(squares[row.name], ddof=1)) / nets**0.5 / mean / 2
            found[row.name] = (row.rms / mean**0.5 - 1, se)
    return found


@pytest.mark.parametrize("std", [0.0, 0.01], ids=["zeros", "hundredths"])
def test_tokens_that_start_at_nothing_stay_alike(std: float) -> None:
    """What attention brings is all they have, and behind the next norm they are one: half of the second's output."""
    hold(forward_errors(std), slack=0.04)


def test_of_tokens_as_large_as_others_nothing_is_told_apart() -> None:
    """A control: drawn at the scale of the others they are tokens as any."""
    hold(forward_errors(0.58), slack=0.04)


def test_gradients_of_tokens_that_start_at_nothing() -> None:
    batch = torch.randn(4, TOKENS, 64, generator=torch.Generator().manual_seed(5))
    found = errors(lambda: Joined(0.0), batch, 8)
    names = ("two.qkv", "two.qkv.weight", "two.out.weight", "one.out.weight", "head.weight", "more")
    hold({n: e for n, e in found.items() if n in names}, slack=0.06)


def law(second: float, alike: float, n: int) -> Law:
    axes = ((Atom(n, places.POSITION),), (Atom(8, "feature"),))
    values = np.sqrt(second) * grid.Z_UNIT[None]
    return Law((n, 8), axes, values, np.zeros((1, 1), np.int32), fresh_latent({frozenset((places.POSITION,)): alike}))


def whole(one: Law, other: Law) -> Law:
    n = one.shape[0] + other.shape[0]
    level = np.repeat([0, 1], [one.shape[0], other.shape[0]]).astype(np.int32)[:, None]
    axes = ((Atom(n, places.POSITION),), one.axes[1])
    out = Law((n, 8), axes, np.concatenate([one.values, other.values]), level, fresh_latent({}))
    same = lambda differ: differ  # noqa: E731
    return ends.joined(out, [one, other], [one.shape[0], other.shape[0]], [same, same], 0)


def test_pieces_keep_their_pair_moments() -> None:
    found = whole(law(1.0, 0.1, 5), law(0.01, 0.9, 3))
    pairs = places.pair_matrix(found, 8)
    assert pairs[0, 4] == pytest.approx(0.1)
    assert pairs[5, 7] == pytest.approx(0.009)
    assert pairs[0, 7] == pytest.approx(0.0, abs=1e-12)


def test_pieces_that_are_alike_are_told_by_one_number() -> None:
    assert whole(law(1.0, 0.1, 5), law(1.1, 0.2, 3)).latent.matrix is None
