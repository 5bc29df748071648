"""Interpolation of maps on the way back: inputs that lie beside each other hear of the same outputs."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from test_theory_adjoint import errors, hold  # noqa: E402
from torch import nn  # noqa: E402

from fanin.frameworks.torch import interpolating  # noqa: E402
from fanin.theory.adjoint import reductions  # noqa: E402

C = 32


def found(mode: str) -> dict:
    torch.manual_seed(1234)

    def net() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, C, 3, padding=1), nn.ReLU(), nn.Conv2d(C, C, 3, padding=1),
            nn.Upsample(scale_factor=2, mode=mode), nn.ReLU(), nn.Conv2d(C, 5, 1),
        )  # fmt: skip

    every = errors(net, torch.randn(4, 3, 12, 12), 48)
    return {name: every[name] for name in ("2", "0.weight", "0.bias", "2.weight", "2.bias")}


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_the_sum_over_a_map_is_that_over_what_was_made_of_it(mode):
    hold(found(mode), slack=0.03)


def test_a_control_with_inputs_that_have_nothing_in_common(monkeypatch):
    monkeypatch.setattr(reductions, "_whole_map", lambda *_: False)
    with pytest.raises(AssertionError):
        hold(found("bilinear"), slack=0.03)


class Resampled(nn.Module):
    """A map made smaller by a kernel that is as wide as what it takes the place of."""

    def __init__(self, mode: str, antialias: bool = True):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, C, 3), nn.Conv2d(C, 5, 1)
        self.of = {"size": (6, 17), "mode": mode, "antialias": antialias}

    def forward(self, x):
        return self.last(nn.functional.interpolate(torch.relu(self.first(x)), **self.of))


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_resampling_without_aliases(mode):
    torch.manual_seed(1234)
    every = errors(lambda: Resampled(mode), torch.randn(4, 3, 14, 14), 48)
    hold({name: every[name] for name in ("first", "first.weight", "last.weight")}, slack=0.04)


def test_a_control_of_resampling_where_places_are_skipped(monkeypatch):
    between = interpolating._between
    monkeypatch.setattr(interpolating, "_between", lambda *args: between(*args[:-1], False))
    with pytest.raises(AssertionError):
        test_resampling_without_aliases("bilinear")
