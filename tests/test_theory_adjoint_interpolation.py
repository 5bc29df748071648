"""Interpolation of maps on the way back: inputs that lie beside each other hear of the same outputs."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from test_theory_adjoint import errors, hold  # noqa: E402
from torch import nn  # noqa: E402

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
