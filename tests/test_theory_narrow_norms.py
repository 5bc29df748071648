"""Batch norms of few features: what their variances stray by, and gradients behind many of them, against networks."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import fanin  # noqa: E402
from fanin.frameworks.torch.parameters import parameter_records  # noqa: E402
from fanin.theory import spread, uneven  # noqa: E402

WIDTH, SAMPLES, LAYERS = 64, 64, 6


def dense(seed: int, act: type[nn.Module]) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        *(m for _ in range(LAYERS) for m in (nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), act()))
    ).train()


def convolutions(seed: int, act: type[nn.Module]) -> nn.Sequential:
    torch.manual_seed(seed)
    convs = [nn.Conv2d(3 if i == 0 else 24, 24, 3, padding=1, bias=False) for i in range(5)]
    return nn.Sequential(*(m for conv in convs for m in (conv, nn.BatchNorm2d(24), act()))).train()


def batch(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7))


@cache
def squares(make, act: type[nn.Module], shape: tuple[int, ...], nets: int) -> np.ndarray:
    """Mean squared gradient at the output of the first layer, one a network."""
    found = []
    for seed in range(nets):
        torch.manual_seed(1000 + seed)
        first = y = None
        for module in make(seed, act):
            y = module(batch(*shape) if y is None else y)
            if first is None:
                first = y
                first.retain_grad()
        y.backward(torch.randn_like(y))
        found.append(float(first.grad.square().mean()))
    return np.array(found)


def off(make, act: type[nn.Module], shape: tuple[int, ...], nets: int) -> float:
    """Logarithm of predicted over measured at the first layer, in standard errors."""
    said = []
    for seed in range(4):  # figures are of these very weights, whose squares stray
        rows = fanin.predict(make(seed, act), batch(*shape)).rows
        said.append(math.log(next(r.grad_rms for r in rows if r.op in ("linear", "conv2d"))))
    of = squares(make, act, shape, nets)
    own, other = np.std(of, ddof=1) / of.mean() / 2 / math.sqrt(nets), np.std(said, ddof=1) / 2
    return float((np.mean(said) - math.log(of.mean()) / 2) / math.hypot(own, other))


DENSE, MAPS = (dense, (SAMPLES, WIDTH), 16), (convolutions, (8, 3, 10, 10), 16)


@pytest.mark.parametrize(("of", "act"), [(DENSE, nn.ReLU), (DENSE, nn.Tanh), (MAPS, nn.ReLU), (MAPS, nn.Identity)])
def test_gradients_at_the_first_layer(of, act):
    make, shape, nets = of
    assert abs(off(make, act, shape, nets)) < 3


def test_a_control_without_tails(monkeypatch):
    monkeypatch.setattr(uneven, "shaped", lambda law, told: (law, told))
    assert abs(off(dense, nn.Tanh, *DENSE[1:])) > 3


def test_a_control_that_takes_images_for_smooth(monkeypatch):
    plain = spread.folds.over_taps
    kept = lambda *args: plain(*args)._replace(known=1.0)  # noqa: E731
    monkeypatch.setattr(spread.folds, "over_taps", kept)
    assert abs(off(convolutions, nn.Identity, *MAPS[1:])) > 3


@pytest.mark.parametrize("size", [144, 288, 1024])
def test_few_uniform_weights_are_known_as_such(size):
    kinds = []
    for seed in range(200):
        torch.manual_seed(seed)
        model = nn.Linear(size // 16, 16, bias=False)
        kinds.append(type(parameter_records(model)["weight"].law).__name__)
        nn.init.normal_(model.weight)
        assert type(parameter_records(model)["weight"].law).__name__ == "Normal"
    assert kinds.count("Uniform") >= 186  # three standard errors leave out one or two in a hundred
