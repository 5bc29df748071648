"""Derivatives at kinks and ties, where many values lie: behind branches that start at zero, and between two ReLUs."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from networks import Networks  # noqa: E402
from torch import nn  # noqa: E402

import fanin  # noqa: E402

WIDTH = 128


class Block(nn.Module):
    """relu(x + branch(x)) with a branch that ends in a batch norm of a given gain."""

    def __init__(self, gain: float):
        super().__init__()
        self.first, self.branch = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.norm, self.out = nn.BatchNorm1d(WIDTH), nn.Linear(WIDTH, WIDTH)
        nn.init.constant_(self.norm.weight, gain)

    def forward(self, x):
        x = torch.relu(self.first(x))
        return self.out(torch.relu(x + self.norm(self.branch(x))))


FUNCTIONS = {
    "relu": torch.relu,
    "relu6": nn.functional.relu6,
    "clamp": lambda x: torch.clamp(x, min=0),
    "leaky relu": lambda x: nn.functional.leaky_relu(x, 0.25),
    "absolute value": torch.abs,
    "elu": nn.functional.elu,
    "larger of two": lambda x: torch.maximum(x, torch.zeros_like(x)),
    "rounding": torch.round,
}


def passed(model: nn.Module, x, behind: str, front: str, networks: int = 12) -> tuple[float, float, float]:
    """Predicted ratio of squared gradients, and measured with its standard error."""
    found = []
    drawn = Networks(x)
    for seed in range(networks):
        torch.manual_seed(seed)
        for m in model.modules():
            if isinstance(m, nn.Linear):
                m.reset_parameters()
        rows = drawn.measure(model)
        found.append((rows[front].grad_rms / rows[behind].grad_rms) ** 2)
    rows = fanin.predict(model, x)
    said = (rows[front].grad_rms / rows[behind].grad_rms) ** 2
    return said, float(np.mean(found)), float(np.std(found, ddof=1) / np.sqrt(networks))


@pytest.mark.parametrize("gain", [0.0, 1.0], ids=["starts at zero", "control"])
def test_the_relu_of_a_residual_block(gain):
    said, found, error = passed(Block(gain), torch.randn(256, WIDTH), "/relu_1", "/add")
    assert abs(said - found) < 4 * error + 0.01 * found
    assert said == pytest.approx(0.5, abs=0.02) if gain == 0 else said > 0.56


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_what_a_relu_made(name):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

        def forward(self, x):
            return self.out(FUNCTIONS[name](torch.relu(self.first(x))))

    behind = [r.name for r in fanin.predict(Twice(), torch.randn(4, WIDTH)).rows][-2]
    said, found, error = passed(Twice(), torch.randn(256, WIDTH), behind, "/relu")
    assert abs(said - found) < 4 * error + 0.01 * found + 1e-12
