"""Depthwise kernels: gradients that places have in common follow the signal; channels of few taps have tails."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from networks import Networks  # noqa: E402
from test_theory_adjoint import errors, hold  # noqa: E402
from torch import nn  # noqa: E402

import fanin  # noqa: E402
from fanin.theory import contraction, grid  # noqa: E402
from fanin.theory.adjoint import coherent, linear  # noqa: E402

C = 128


class Depthwise(nn.Module):
    """A layer, a function, a depthwise kernel and its batch norm, a function, and the mean over the map or not."""

    def __init__(self, act: type[nn.Module], pooled: bool):
        super().__init__()
        self.wide, self.pooled = nn.Sequential(nn.Conv2d(32, C, 1, bias=False), nn.BatchNorm2d(C)), pooled
        self.act, self.deep = act(), nn.Conv2d(C, C, 3, padding=1, groups=C, bias=False)
        self.norm, self.last = nn.BatchNorm2d(C), act()

    def forward(self, x):
        x = self.last(self.norm(self.deep(self.act(self.wide(x)))))
        return x.mean((2, 3)) if self.pooled else x


def found(act: type[nn.Module], pooled: bool, nets: int = 10) -> dict[str, tuple[float, float]]:
    torch.manual_seed(1234)
    said = errors(lambda: Depthwise(act, pooled), torch.randn(4, 32, 9, 9), nets)
    return {name: said[name] for name in ("act", "wide.1", "wide.0", "deep")}


@pytest.mark.parametrize("act", [nn.ReLU, nn.SiLU])
def test_behind_a_mean_over_the_map(act):
    hold(found(act, True), slack=0.05)


def test_a_control_with_independent_taps(monkeypatch):
    monkeypatch.setattr(linear.coherent, "returned", lambda g, x, sent, *_: [sent])
    with pytest.raises(AssertionError):
        hold(found(nn.SiLU, True), slack=0.05)


def test_functions_that_are_steep_far_from_zero_send_more_to_large_inputs(monkeypatch):
    """Without it the gradient in front of the first function is 2.5 % too small (ten networks: half a percent)."""
    right = found(nn.SiLU, False)["wide.1"][0] - found(nn.SiLU, False)["act"][0]
    monkeypatch.setattr(coherent, "curvature", lambda g: 0.0)
    wrong = found(nn.SiLU, False)["wide.1"][0] - found(nn.SiLU, False)["act"][0]
    assert abs(right) < 0.017 < -wrong


def test_two_taps_on_one_input():
    """``E[w w' d(y) d(y')]`` of two outputs that read one input by two taps, by drawing: Stein's lemma for d = tanh."""
    rng = np.random.default_rng(0)
    n, x, draws = 36, 1.5, 4_000_000
    w, other = (rng.standard_normal((2, draws)) / scale for scale in (np.sqrt(n), 1.0))
    y = w * x + w[::-1] * other + rng.standard_normal((2, draws)) * np.sqrt((n - 2) / n)
    drawn = w[0] * w[1] * np.tanh(y[0]) * np.tanh(y[1])
    slope = grid.expectation(1 / np.cosh(np.sqrt((n - 1 + x**2) / n) * grid.Z_UNIT) ** 2)
    said = slope**2 * x**2 / n**2
    assert abs(drawn.mean() - said) < 4 * drawn.std() / np.sqrt(draws) + said * 2 / n


@pytest.mark.parametrize("act", [nn.SiLU, nn.Hardswish])
def test_channels_of_few_taps_have_tails(act, monkeypatch):
    """What a function makes of them behind a batch norm: as Gaussians their mean square is 1.5 to 4 % too small."""
    torch.manual_seed(1234)
    batch = torch.randn(4, 32, 14, 14)

    def off() -> tuple[float, float]:
        networks = Networks(batch)
        squares = [networks.measure(Depthwise(act, False))["last"].rms ** 2 for _ in range(12)]
        said = fanin.predict(Depthwise(act, False), batch)["last"].rms ** 2
        return said / np.mean(squares) - 1, float(np.std(squares) / np.mean(squares) / np.sqrt(len(squares)))

    error, noise = off()
    assert abs(error) < 4 * noise + 0.005
    monkeypatch.setattr(contraction.uneven, "summed", lambda law, *_: law)
    error, noise = off()
    assert error < -0.01 - 2 * noise
