"""Maxima over a border of minus infinity: as if nothing were there."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

import fanin  # noqa: E402

LOWEST = float("-inf")


class Padded(nn.Module):
    """A pool of a map that is padded first, beside or instead of by the pool itself."""

    def __init__(self, widths: tuple[int, ...] | None, value: float = LOWEST, padding: int = 0):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(3, 64, 3, padding=1), nn.Conv2d(64, 16, 1)
        self.widths, self.value, self.padding = widths, value, padding

    def forward(self, x):
        x = self.first(x)
        if self.widths is not None:
            x = F.pad(x, self.widths, value=self.value)
        return self.last(F.max_pool2d(x, 3, 2, self.padding))


def figures(net: nn.Module) -> dict[str, tuple[float, float]]:
    batch = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return {row.name: (row.rms, row.grad_rms) for row in fanin.predict(net, batch).rows}


def test_a_border_of_minus_infinity_is_that_of_the_pool():
    padded, own = figures(Padded((1, 1, 1, 1))), figures(Padded(None, padding=1))
    assert set(padded) == set(own)
    assert all(padded[name] == pytest.approx(own[name], rel=1e-12) for name in own)


def test_a_border_at_one_side():
    batch = torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    net = Padded((0, 1, 0, 1))
    said, seen = fanin.predict(net, batch), fanin.measure(net, batch)
    assert said["/max_pool2d"].rms == pytest.approx(seen["/max_pool2d"].rms, rel=0.02)
    assert said["first"].grad_rms == pytest.approx(seen["first"].grad_rms, rel=0.03)
    assert "/pad" not in {row.name for row in said.rows}


def test_other_borders_are_elements_like_all():
    zeros, none = figures(Padded((1, 1, 1, 1), 0.0)), figures(Padded(None, padding=1))
    assert "/pad" in zeros
    assert zeros["/max_pool2d"] != pytest.approx(none["/max_pool2d"], rel=1e-6)


def test_a_border_that_is_asked_for_is_kept():
    class Both(Padded):
        def forward(self, x):
            x = F.pad(self.first(x), self.widths, value=self.value)
            return self.last(F.max_pool2d(x, 3, 2)), x

    net, batch = Both((1, 1, 1, 1)), torch.randn(2, 3, 16, 16)
    said = fanin.predict(net, batch)
    assert said["/max_pool2d"].rms is not None
    assert "/pad" in {row.name for row in said.rows}
