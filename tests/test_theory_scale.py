"""Signals beyond the range of floating-point numbers: closed forms, and scale-free nets whose scale must not matter."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from fanin.frameworks.torch.verbs import read_model  # noqa: E402
from fanin.graph import Kind  # noqa: E402
from fanin.theory.engine import Interpreter  # noqa: E402
from fanin.theory.scale import held  # noqa: E402

WIDTH = 64
X = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(0))


def dense(gain: float, width: int = WIDTH) -> nn.Linear:
    """A layer with Var(w) exactly gain^2 2/n: the rms behind it and a ReLU is multiplied by the gain."""
    layer = nn.Linear(width, width, bias=False)
    signs = (torch.randperm(width * width) % 2 * 2 - 1).view(width, width)  # as many of each
    layer.weight = nn.Parameter(gain * math.sqrt(2 / width) * signs)
    return layer


def stack(gain: float, depth: int, *head: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*[m for _ in range(depth) for m in (dense(gain), nn.ReLU())], *head)


def interpreted(net: nn.Module, x: torch.Tensor = X):
    """Decimal logarithm of the true rms of every dense output, and the rows."""
    interpreter = Interpreter(read_model(net, x).graph)
    signals = interpreter.run()
    laws = [interpreter.values[n.id] for n in interpreter.graph.nodes if n.kind is Kind.DENSE]
    logs = [math.log10(law.rms) + law.exponent * math.log10(2) for law in laws]
    return np.array(logs), signals


@pytest.mark.slow
@pytest.mark.parametrize("gain", [0.3, 0.7, 1.5, 3.0])
def test_a_thousand_layers_follow_the_closed_form(gain):
    logs, signals = interpreted(stack(gain, 1000))
    assert np.allclose(np.diff(logs), math.log10(gain), atol=1e-6)
    rows = [r for r in signals.rows if r.op == "linear"]
    last = rows[-1]
    assert last.rms == (0.0 if gain < 1 else math.inf)
    assert f"the rms is 1e{logs[-1]:.1f}" in last.note
    grads = [r.grad_rms for r in rows if 0 < r.grad_rms < math.inf]
    assert np.allclose(np.diff(np.log10(grads)), -math.log10(gain), atol=1e-6)
    assert rows[0].grad_rms == (0.0 if gain < 1 else math.inf)


@pytest.mark.parametrize("gain", [1e-4, 1e4])
def test_signals_far_beyond_a_double(gain):
    """Eighty steps of 1e4: 1e320, and the last layers below a norm that restores the scale are those of a tame net."""
    head = lambda: (nn.LayerNorm(WIDTH, eps=0.0), dense(1.0), nn.ReLU())  # noqa: E731
    logs, signals = interpreted(stack(gain, 90, *head()))
    _, tame = interpreted(stack(1.0, 90, *head()))
    assert np.allclose(np.diff(logs[:90]), math.log10(gain), atol=1e-9)
    for a, b in zip(signals.rows[-3:], tame.rows[-3:], strict=True):
        assert math.isclose(a.rms, b.rms, rel_tol=1e-6) and math.isclose(a.grad_rms, b.grad_rms, rel_tol=1e-6)
    weights, same = (list(s.parameters.values()) for s in (signals, tame))
    assert math.isclose(weights[-1]["grad_rms"], same[-1]["grad_rms"], rel_tol=1e-6)
    assert math.isclose(weights[80]["grad_rms"] * gain, same[80]["grad_rms"], rel_tol=1e-6)


class Spelled(nn.Module):
    """An RMS norm from powers, a mean and a root, with an eps."""

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


@pytest.mark.parametrize("norm", [nn.LayerNorm(WIDTH), nn.BatchNorm1d(WIDTH), nn.RMSNorm(WIDTH), Spelled()])
def test_norms_restore_a_scale_beyond_squares(norm):
    """Far above eps a norm does not know the scale: forward the same, backward divided by it."""
    _, far = interpreted(stack(1e4, 70, norm, dense(1.0)))
    _, tame = interpreted(stack(1e2, 3, norm, dense(1.0)))
    for a, b in zip(far.rows[-2:], tame.rows[-2:], strict=True):
        assert math.isclose(a.rms, b.rms, rel_tol=0.02)  # samples are a little more alike behind 70 layers than 3
        assert a.grad_rms > 0


@pytest.mark.parametrize(
    ("function", "far", "near"),
    [(torch.tanh, 1.0, None), (torch.sigmoid, 2**-0.5, 0.5), (nn.functional.gelu, None, None)],
)
def test_functions_far_out_are_their_power_laws(function, far, near):
    class Net(nn.Module):
        def __init__(self, gain):
            super().__init__()
            self.body, self.head = stack(gain, 80), dense(1.0)

        def forward(self, x):
            return function(self.head(self.body(x)))

    for gain, wanted in ((1e4, far), (1e-4, near)):
        _, signals = interpreted(Net(gain))
        row = signals.rows[-1]
        if wanted is not None:
            assert math.isclose(row.rms, wanted, rel_tol=1e-2)
        else:
            assert row.rms == (math.inf if gain > 1 else 0.0) and "flows float32" in row.note


def test_residual_streams_and_biases_keep_what_is_large():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.last = stack(1e4, 80), nn.Linear(WIDTH, WIDTH)

        def forward(self, x):
            return self.last(x + self.body(x))

    _, signals = interpreted(Net())
    assert signals["last"].rms == math.inf
    body = signals.parameters["body.158.weight"]["grad_rms"]
    assert body == math.inf or body > 0


def test_float32_says_what_it_cannot_hold():
    assert held(1.0, 128, "float32")[0] == math.inf and held(1.0, 127, "float32") == (2.0**127, "")
    assert held(1.0, -150, "float32")[0] == 2.0**-150 and held(1.0, -151, "float32")[0] == 0.0
    assert held(1.0, 128, "float64") == (2.0**128, "") and held(1.0, 17, "float16")[0] == math.inf
    assert "1e602.1" in held(1.0, 2000, "float64")[1] and held(0.0, 2000, "float32") == (0.0, "")
