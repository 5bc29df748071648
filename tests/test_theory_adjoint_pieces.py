"""Gradients of maxima follow what they chose through a concatenation: all of them pass the ReLUs in front of it."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from test_theory_adjoint import errors, hold  # noqa: E402
from torch import nn  # noqa: E402

import fanin  # noqa: E402
from fanin.theory import grid  # noqa: E402
from fanin.theory.adjoint import pieces, places  # noqa: E402
from fanin.theory.adjoint.cotangent import Divided  # noqa: E402


def unit(inputs: int, outputs: int, act: type[nn.Module]) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), act())


class Branches(nn.Module):
    """Two branches side by side, as in Inception and Fire modules, and a maximum over windows."""

    def __init__(self, act: type[nn.Module] = nn.ReLU):
        super().__init__()
        self.one, self.other, self.last = unit(16, 32, act), unit(16, 48, act), unit(80, 64, act)

    def forward(self, x):
        return self.last(nn.functional.max_pool2d(torch.cat([self.one(x), self.other(x)], 1), 3, 2, 1))


@pytest.mark.parametrize("act", [nn.ReLU, nn.SiLU])
def test_a_maximum_behind_a_concatenation(act):
    torch.manual_seed(1234)
    found = errors(lambda: Branches(act), torch.randn(4, 16, 16, 16), 8)
    beside = ("one.1.weight", "other.1.weight", "one.1.bias", "other.1.bias")  # sums over windows that nearly cancel
    hold({name: error for name, error in found.items() if name not in beside}, slack=0.04)


def test_a_control_that_forgets_at_the_pieces(monkeypatch):
    monkeypatch.setattr(pieces, "of_piece", lambda *_: None)
    torch.manual_seed(1234)
    found = errors(Branches, torch.randn(4, 16, 16, 16), 4)
    with pytest.raises(AssertionError):
        hold({name: found[name] for name in ("one.1", "other.1")}, slack=0.2)


def test_functions_at_quantiles():
    """What is large where values are large stays there, whichever way the values run."""
    z = grid.Z_UNIT
    above = (z > 0).astype(float)[None]
    assert np.array_equal(pieces._at_quantiles(above, np.exp(z)[None]), above)
    assert np.array_equal(pieces._at_quantiles(above, -z[None]), above[:, ::-1])
    far = pieces._at_quantiles(above, np.abs(z)[None])[0]
    assert np.all(far[np.abs(z) > 0.72] == 1) and np.all(far[np.abs(z) < 0.62] == 0)  # the median of |z| is .674


class Mixed(nn.Module):
    """Kernels of two sizes, each for half of the channels, behind one batch norm."""

    def __init__(self):
        super().__init__()
        self.wide = nn.Sequential(nn.Conv2d(16, 96, 1, bias=False), nn.BatchNorm2d(96), nn.ReLU())
        self.narrow, self.deep = (nn.Conv2d(48, 48, k, groups=48, bias=False, padding=k // 2) for k in (3, 5))
        self.norm = nn.BatchNorm2d(96)

    def forward(self, x):
        one, other = self.wide(x).chunk(2, 1)
        return torch.relu(self.norm(torch.cat([self.narrow(one), self.deep(other)], 1)))


def test_kernels_of_two_sizes_behind_one_norm(monkeypatch):
    """Each piece is divided by its own deviations: of nine taps two ninths of the squared gradient are lost."""
    torch.manual_seed(1234)
    batch, rows = torch.randn(4, 16, 9, 9), ("/chunk", "/chunk_1", "narrow", "deep")
    found = errors(Mixed, batch, 8)
    hold({name: found[name] for name in rows}, slack=0.05)
    monkeypatch.setattr(Divided, "piece", lambda *_: None)
    assert errors(Mixed, batch, 8)["/chunk"][0] - found["/chunk"][0] > 0.02


class Cut(nn.Module):
    """One bias laid end to end of three, and cut apart again, each piece read at another scale."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(32, 32, bias=False) for _ in range(3))
        self.biases = nn.ParameterList(torch.zeros(32) for _ in range(3))

    def forward(self, x):
        pieces = torch.cat(list(self.biases)).chunk(3)
        y = [layer(x) + b for layer, b in zip(self.layers, pieces, strict=True)]
        return y[0] + 0.1 * y[1] + 0.01 * y[2]


@pytest.mark.parametrize("laid", [True, False])
def test_pieces_that_are_cut_apart_again_get_their_own(laid, monkeypatch):
    """Each is the root of the batch times its scale; a whole whose pieces are not told apart gives all the same."""
    if not laid:
        monkeypatch.setattr(
            places, "_scattered", lambda part, out, x, axis, _: places._shared_among_features(part, out, x, axis)
        )
    found = fanin.predict(Cut(), torch.randn(64, 32)).parameters
    said = [found[f"biases.{i}"]["grad_rms"] for i in range(3)]
    assert (said == pytest.approx([8, 0.8, 0.08], rel=1e-6)) == laid
