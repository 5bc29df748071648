"""Functions of a product with a gate: what places of a sample have in common behind them."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from networks import Networks  # noqa: E402
from test_theory_adjoint import errors, hold  # noqa: E402
from torch import nn  # noqa: E402

import fanin  # noqa: E402
from fanin.theory import combine, grid  # noqa: E402
from fanin.theory.gated import _Pairs  # noqa: E402
from fanin.theory.law import gaussian  # noqa: E402

C = 48


class Block(nn.Module):
    """Squeeze and excitation before the activation, with a norm over samples in it."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(C, C, 3, padding=1, bias=False), nn.BatchNorm2d(C)
        self.down, self.over, self.up = nn.Linear(C, C // 2), nn.BatchNorm1d(C // 2), nn.Linear(C // 2, C)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.conv(x))
        gate = torch.sigmoid(self.up(torch.relu(self.over(self.down(y.mean((2, 3)))))))
        return nn.functional.relu6(y * gate[:, :, None, None])


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.blocks, self.head = nn.Conv2d(3, C, 3, padding=1), nn.ModuleList([Block(), Block()]), None
        self.norm, self.last = nn.BatchNorm1d(C), nn.Linear(C, C)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.norm(self.last(x.mean((2, 3))))


def found() -> dict:
    torch.manual_seed(1234)
    every = errors(Net, torch.randn(8, 3, 16, 16), 24)
    return {name: every[name] for name in ("last", "blocks.1/mul", "blocks.1.norm")}


def test_what_a_norm_over_samples_hears_of_gates():
    hold(found(), slack=0.1)


def test_a_control_with_covariances_alone(monkeypatch):
    monkeypatch.setattr(combine.gated, "remembered", lambda law, *_: law)
    with pytest.raises(AssertionError):
        hold(found(), slack=0.1)


def test_a_mean_over_a_gated_map():
    """Its rms, over networks."""
    torch.manual_seed(0)
    x, said, squares = torch.randn(8, 3, 16, 16), None, []
    networks = Networks(x)
    for seed in range(24):
        torch.manual_seed(seed)
        net = Net()
        said = fanin.predict(net, x)["/mean"].rms if said is None else said
        squares.append(networks.measure(net)["/mean"].rms ** 2)
    mean, error = np.mean(squares), np.std(squares) / len(squares) ** 0.5
    assert abs(said**2 / mean - 1) < 4 * error / mean + 0.03


def test_pairs_against_random_numbers():
    rng, relu = np.random.default_rng(0), lambda v: np.maximum(v, 0.0)
    blank = lambda values: gaussian((1,), ((),), np.ones(1), lambda _: 0.0).with_values(values[None])  # noqa: E731
    x, gate = blank(grid.Z_UNIT), blank(1 / (1 + np.exp(-grid.Z_UNIT)))
    pairs = _Pairs(lambda v: relu(v - 0.2), x, gate)
    r, s = 0.4, 0.7
    z, t = (c**0.5 * rng.standard_normal(400_000) + (1 - c) ** 0.5 * rng.standard_normal((2, 400_000)) for c in (r, s))
    f = relu(z / (1 + np.exp(-t)) - 0.2)
    both = f[0] * f[1]
    assert abs(pairs(r, s) - both.mean()) < 4 * both.std() / len(both) ** 0.5 + 1e-4
