"""Weights whose own values count: decay rates that repeat a column, biases far from zero."""

from __future__ import annotations

import math
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import fanin  # noqa: E402
from fanin.frameworks.torch.parameters import parameter_records  # noqa: E402


class Decay(nn.Module):
    """The head of a state-space scan: exp(-dt A) with dt = softplus(W x + b), log dt uniform over two decades."""

    def __init__(self, width: int = 256, states: int = 16):
        super().__init__()
        self.step = nn.Linear(width, width)
        self.rate = nn.Parameter(torch.log(torch.arange(1.0, states + 1)).repeat(width, 1))
        dt = torch.exp(torch.rand(width) * math.log(100) + math.log(1e-3))
        self.step.bias.data = dt + torch.log(-torch.expm1(-dt))

    def forward(self, x: Any) -> Any:
        dt = nn.functional.softplus(self.step(x))
        return torch.exp(-dt[..., None] * torch.exp(self.rate))


def test_what_an_exponential_reads_is_the_values_themselves():
    squares: dict[str, list[tuple[float, float]]] = {}
    for seed in range(3):
        torch.manual_seed(seed)
        net, x = Decay(), torch.randn(64, 256)
        said, seen = fanin.predict(net, x), fanin.measure(net, x)
        for row in seen.rows:
            squares.setdefault(row.name, []).append((said[row.name].rms ** 2, row.rms**2))
    errors = {n: abs(math.sqrt(sum(p for p, _ in v) / sum(m for _, m in v)) - 1) for n, v in squares.items()}
    # 256 biases: chance of which large step meets which input, 0.5 % of the square, and 1/n
    assert max(errors.values()) < 0.02, errors


def test_which_weights_are_looked_at():
    torch.manual_seed(0)
    records = parameter_records(Decay())
    assert records["rate"].observed is not None and records["step.bias"].observed is not None
    assert records["step.weight"].observed is None
    plain = parameter_records(nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64)))
    assert [name for name, record in plain.items() if record.observed is not None] == []
