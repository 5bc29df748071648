"""Gradients of the weights of transposed convolutions, whose outputs read one tap in so many as they stride."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import fanin  # noqa: E402
from fanin.theory.adjoint import linear  # noqa: E402

NETWORKS = 24
X = torch.randn(4, 16, 8, 8, generator=torch.Generator().manual_seed(6))
SHAPES = [(3, 2, 1, 1), (4, 2, 1, 0), (2, 2, 0, 0), (3, 1, 1, 0), (5, 3, 1, 1)]
"""Kernel, stride, padding, output padding."""


def net(shape: tuple[int, ...], form: str) -> nn.Module:
    up = nn.ConvTranspose2d(16, 24, *shape, groups=4 if form == "groups" else 1)
    if form in ("plain", "groups"):
        return nn.Sequential(up)
    return nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), up, nn.BatchNorm2d(24))


def errors(shape: tuple[int, ...], form: str) -> tuple[float, float]:
    torch.manual_seed(0)
    name = "2.weight" if form == "normed" else "0.weight"
    told, found = fanin.predict(net(shape, form), X).parameters[name]["grad_rms"], []
    for seed in range(NETWORKS):
        torch.manual_seed(seed)
        one = net(shape, form)
        out = one(X)
        out.backward(torch.randn_like(out))
        grad = one.get_parameter(name).grad
        assert grad is not None
        found.append(float(grad.square().mean()))
    return float(told**2 / np.mean(found) - 1), float(np.std(found) / len(found) ** 0.5 / np.mean(found))


@pytest.mark.parametrize("form", ["plain", "groups"])
@pytest.mark.parametrize("shape", SHAPES)
def test_weights_of_known_inputs(shape, form):
    error, deviation = errors(shape, form)
    assert abs(error) < 4 * deviation + 0.01


@pytest.mark.parametrize("shape", SHAPES)
def test_weights_between_a_relu_and_a_norm(shape):
    """Inputs of one map that are near each other have more in common than all have: up to 6 percent of the rms."""
    error, deviation = errors(shape, "normed")
    assert abs(error) < 4 * deviation + 0.12


def test_a_control_that_counts_every_tap(monkeypatch):
    monkeypatch.setattr(linear, "_read", lambda node, kernel: 1.0)
    assert errors((4, 2, 1, 0), "plain")[0] > 2.5
