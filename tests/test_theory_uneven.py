"""Channels that are uneven over their places: the variance that a batch norm divides by, predicted against measured."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import fanin  # noqa: E402
from fanin.theory import uneven  # noqa: E402

NARROW, WIDE, BLOCKS, NETS = 8, 32, 3, 160


class Block(nn.Module):
    """A residual bottleneck: 1 x 1 to few channels and back, a ReLU behind the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(WIDE, NARROW, 1, bias=False), nn.Conv2d(NARROW, WIDE, 1, bias=False)
        self.inner, self.outer = nn.BatchNorm2d(NARROW), nn.BatchNorm2d(WIDE)
        nn.init.normal_(self.down.weight, 0, WIDE**-0.5)
        nn.init.normal_(self.up.weight, 0, NARROW**-0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, channels, height, width) to the same."""
        return torch.relu(x + self.outer(self.up(torch.relu(self.inner(self.down(x))))))


def net(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(*(Block() for _ in range(BLOCKS))).train()


def batch() -> torch.Tensor:
    return torch.randn(4, WIDE, 12, 12, generator=torch.Generator().manual_seed(1234))


def layers() -> list[str]:
    return [f"{i}.{name}" for i in range(BLOCKS) for name in ("down", "up")]


def per_weight(model: nn.Module, name: str, square: float) -> float:
    """A variance over that of weights of the squares that were drawn."""
    return square / float(model.get_submodule(name).weight.detach().square().mean())


@cache
def measured() -> dict[str, tuple[float, float]]:
    """Variance of a channel over its places in units of its weights', and its relative standard error."""
    found: dict[str, list[float]] = {name: [] for name in layers()}
    for seed in range(NETS):
        model = net(seed)
        for name in layers():
            read = lambda _m, _i, y, name=name, model=model: found[name].append(  # noqa: E731
                per_weight(model, name, float(y.detach().var((0, 2, 3), unbiased=False).mean()))
            )
            model.get_submodule(name).register_forward_hook(read)
        model(batch())
    return {n: (float(np.mean(v)), float(np.std(v, ddof=1) / np.mean(v) / math.sqrt(NETS))) for n, v in found.items()}


def predicted(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """The same as the theory has it, in the order in which the norms come."""
    from fanin.theory.rules import norm

    seen, inner = [], norm.mean_inverse
    monkeypatch.setattr(norm, "mean_inverse", lambda v, eps, f: seen.append(v / (1 + 2 / (f - 2))) or inner(v, eps, f))
    model = net(0)
    fanin.predict(model, batch())
    return {name: per_weight(model, name, v) for name, v in zip(layers(), seen, strict=True)}


def off(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Predicted over measured, less one, in standard errors; of layers behind a ReLU."""
    said = predicted(monkeypatch)
    return [(said[n] / mean - 1) / error for n, (mean, error) in measured().items() if n != "0.down"]


def test_variance_between_narrow_layers(monkeypatch):
    assert np.abs(off(monkeypatch)).max() < 4


def test_a_control_that_takes_channels_for_gaussian(monkeypatch):
    monkeypatch.setattr(uneven, "shortfall", lambda x: 0.0)
    monkeypatch.setattr(uneven, "shaped", lambda law, told: (law, told))
    assert np.abs(off(monkeypatch)).max() > 4
