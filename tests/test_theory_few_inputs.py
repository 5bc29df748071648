"""Kernels of one channel without a norm: outputs go with the length of their own channel's patch."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import fanin  # noqa: E402
from fanin.theory.rules import norm  # noqa: E402

C = 256


def block() -> nn.Module:
    """A wide layer, a depthwise kernel and a cap at one deviation."""
    net = nn.Sequential(
        nn.Conv2d(8, C, 1, bias=False), nn.ReLU(), nn.Conv2d(C, C, 3, groups=C, bias=False),
        nn.BatchNorm2d(C), nn.Hardtanh(-1.0, 1.0),
    )  # fmt: skip
    for layer in (net[0], net[2]):
        nn.init.normal_(layer.weight, 0, layer.weight[0].numel() ** -0.5)
    return net.eval()


BATCH = torch.randn(4, 8, 10, 10, generator=torch.Generator().manual_seed(0))


def off() -> tuple[float, float]:
    """Predicted over measured mean square of what the cap leaves, less one, and its standard error."""
    squares = []
    for seed in range(12):
        torch.manual_seed(seed)
        with torch.no_grad():
            squares.append(float((block()(BATCH) ** 2).mean()))
    torch.manual_seed(0)
    said = fanin.predict(block(), BATCH)["4"].rms ** 2
    return said / np.mean(squares) - 1, float(np.std(squares, ddof=1) / np.mean(squares) / np.sqrt(len(squares)))


def test_a_cap_behind_a_depthwise_kernel_in_evaluation_mode():
    error, noise = off()
    assert abs(error) < 4 * noise + 0.05  # lengths are taken for lognormal


def test_a_control_with_gaussian_outputs(monkeypatch):
    monkeypatch.setattr(norm.uneven, "with_tails", lambda law, excess: law)
    error, noise = off()
    assert error > 0.15 + 4 * noise
