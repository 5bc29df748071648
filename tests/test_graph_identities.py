"""Differences with a maximum of one's own: stabilized exponentials against freshly drawn networks."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import fanin  # noqa: E402
from fanin.frameworks.torch.verbs import measure_signals, read_model  # noqa: E402

NETWORKS, SE = 6, 4.0


class Extreme(nn.Module):
    """``f(a, b)`` of two linear maps, the first of which has a bias."""

    def __init__(self, f):
        super().__init__()
        self.a, self.b, self.f = nn.Linear(256, 512), nn.Linear(256, 512), f

    def forward(self, x):
        return self.f(2 * self.a(x) + 0.7, 2 * self.b(x))


CASES = {
    "x - max": lambda a, b: torch.exp(a - torch.maximum(a, b)),
    "y - max": lambda a, b: torch.exp(b - torch.maximum(a, b)),
    "max - x": lambda a, b: torch.maximum(a, b) - a,
    "max - y": lambda a, b: torch.maximum(a, b) - b,
    "x - min": lambda a, b: a - torch.minimum(a, b),
    "y - min": lambda a, b: b - torch.minimum(a, b),
    "min - x": lambda a, b: torch.minimum(a, b) - a,
    "min - y": lambda a, b: torch.minimum(a, b) - b,
    "a sum written twice": lambda a, b: torch.exp((a + b) - torch.maximum(a + b, b.flip(0))),
    "both": lambda a, b: (
        torch.exp(a - torch.maximum(a, b)) / (torch.exp(a - torch.maximum(a, b)) + torch.exp(b - torch.maximum(a, b)))
    ),
}

RUNNING = {
    "of values of their own": lambda a, b: running(
        b.roll(3, 0), [a, a.roll(1, 0), a.flip(0), a.roll(2, 0)], [b, b.roll(1, 0), b.flip(0), b.roll(2, 0)]
    ),
    "of the keys again": lambda a, b: running(a.tanh(), [a, b, a.flip(0), b.flip(0)], [b, a.flip(0), b, a]),
}


def running(first, keys, values):
    """Softmax over keys so far of values, numerator and denominator carried on from step to step."""
    top, total, weight = keys[0], values[0] + first, torch.ones_like(first)
    for k, v in zip(keys[1:], values[1:], strict=True):
        larger = torch.maximum(top, k)
        old, new = torch.exp(top - larger), torch.exp(k - larger)
        total, weight, top = old * total + new * v, old * weight + new, larger
    return total / weight


def squares(f) -> tuple[float, np.ndarray]:
    """Mean square of the output, predicted and measured."""
    seen = []
    for seed in range(NETWORKS):
        torch.manual_seed(seed)
        model, batch = Extreme(f), torch.randn(32, 256)
        seen.append(measure_signals(read_model(model, batch), seed=seed).rows[-1].rms ** 2)
    return fanin.predict(model, batch).rows[-1].rms ** 2, np.array(seen)


def wrong(said: float, seen: np.ndarray) -> bool:
    error = SE * seen.std(ddof=1) / math.sqrt(NETWORKS) / seen.mean()
    return abs(said / seen.mean() - 1) > error + 0.01


@pytest.mark.parametrize("f", CASES.values(), ids=CASES)
def test_differences_with_an_extreme(f):
    said, seen = squares(f)
    assert not wrong(said, seen), (said, seen)


def test_a_third_tensor_is_noticed():
    """Negative control: the maximum is of other tensors than the difference that is measured."""
    said, _ = squares(CASES["max - x"])
    _, seen = squares(lambda a, b: torch.maximum(a, b) - b)
    assert wrong(said, seen)


def test_gradients_behind_a_stabilizer():
    """The gradient of a shift that cancels is not given; that of the output is, and what it was made of agrees."""
    torch.manual_seed(0)
    model, batch = Extreme(CASES["x - max"]), torch.randn(64, 256)
    said = fanin.predict(model, batch)
    seen = measure_signals(read_model(model, batch), seed=1)
    extreme = next(row for row in said.rows if row.op == "maximum")
    assert extreme.grad_rms is None
    for name in ("a", "b"):
        assert said[name].grad_rms == pytest.approx(seen[name].grad_rms, rel=0.05)


@pytest.mark.parametrize("name", RUNNING)
def test_running_softmax(name):
    """Numerator and denominator, carried on from step to step."""
    said, seen = squares(RUNNING[name])
    assert abs(math.sqrt(said / seen.mean()) - 1) < 0.05  # taken as three independent tensors 65 %


@pytest.mark.parametrize("name", RUNNING)
def test_running_softmax_is_marked_and_bounded(name):
    """It is followed on drawn channels, and the denominator, at least one, is never near zero."""
    torch.manual_seed(0)
    rows = fanin.predict(Extreme(RUNNING[name]), torch.randn(32, 256)).rows
    assert not rows[-1].exact and "drawn channels" in rows[-1].note
    assert all(row.grad_rms is None or row.grad_rms < 3 for row in rows)  # no quotient by next to nothing
