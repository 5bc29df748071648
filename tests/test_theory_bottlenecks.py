"""Batch norm behind few inputs: laws of weights in its deviations, and gradients that shun what features share."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import fanin  # noqa: E402
from fanin.theory import kurtosis  # noqa: E402
from fanin.theory.adjoint import white  # noqa: E402

NARROW, WIDE, NETS = 12, 96, 200


def drawn(conv: nn.Conv2d, law: str) -> None:
    """Weights of unit gain."""
    n = conv.weight[0].numel()
    if law == "normal":
        nn.init.normal_(conv.weight, 0, n**-0.5)
    else:
        nn.init.uniform_(conv.weight, -math.sqrt(3 / n), math.sqrt(3 / n))


def bottleneck(law: str) -> nn.Sequential:
    """A narrow map made wide and narrow again: the wide features have much in common."""
    layers = []
    for inputs, outputs in ((WIDE, NARROW), (NARROW, WIDE), (WIDE, NARROW)):
        layers += [nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        drawn(layers[-3], law)
    return nn.Sequential(*layers)


def batch() -> torch.Tensor:
    return torch.randn(4, WIDE, 10, 10, generator=torch.Generator().manual_seed(1234))


@cache
def measured(law: str) -> tuple[float, float]:
    """Mean square of the gradient in front of the second layer over networks, and its relative standard error."""
    found = []
    for seed in range(NETS):
        torch.manual_seed(seed)
        net = bottleneck(law).train()
        x = net[:3](batch()).detach().requires_grad_()
        y = net[3:](x)
        (g,) = torch.autograd.grad(y, x, torch.randn_like(y))
        found.append(float(g.square().mean()))
    return float(np.mean(found)), float(np.std(found, ddof=1) / np.mean(found) / math.sqrt(NETS))


def predicted(law: str) -> tuple[float, float]:
    """The mean over networks whose own weights' mean squares stray from the law's, and its relative error."""
    said = []
    for seed in range(12):
        torch.manual_seed(seed)
        said.append(fanin.predict(bottleneck(law).train(), batch())["2"].grad_rms ** 2)
    return float(np.mean(said)), float(np.std(said, ddof=1) / np.mean(said) / math.sqrt(len(said)))


def off(law: str) -> float:
    """Predicted over measured, less one, in standard errors."""
    (said, a), (mean, b) = predicted(law), measured(law)
    return (said / mean - 1) / math.hypot(a, b)


@pytest.mark.parametrize("law", ["normal", "uniform"])
def test_gradients_through_a_bottleneck(law):
    assert abs(off(law)) < 4


def test_a_control_that_knows_nothing_of_shared_features(monkeypatch):
    monkeypatch.setattr(white, "left", lambda *_: 1.0)
    assert off("normal") > 6


def test_a_control_that_takes_all_weights_for_normal(monkeypatch):
    monkeypatch.setattr(kurtosis, "weighted", lambda law, *_: law)
    assert abs(off("uniform")) > 6


def test_kurtosis_of_uniform_weights():
    from fanin.distributions import Uniform
    from fanin.theory.engine import weight_law

    assert kurtosis.kurtosis(weight_law((8, 8), Uniform(1.0))) == pytest.approx(1.8, rel=1e-3)
