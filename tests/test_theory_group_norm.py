"""Instance and group norms, backward: places of two samples are each less the mean of their own statistic."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from networks import Networks  # noqa: E402
from torch import nn  # noqa: E402

import fanin  # noqa: E402

WIDTH, NETWORKS = 40, 16
NORMS = {
    "instance": lambda: nn.InstanceNorm2d(WIDTH, affine=True),
    "groups of four": lambda: nn.GroupNorm(WIDTH // 4, WIDTH),
    "one group": lambda: nn.GroupNorm(1, WIDTH),
    "batch": lambda: nn.BatchNorm2d(WIDTH),
}


def chain(norm) -> nn.Sequential:
    """Three convolutions, each with a norm and a ReLU, and the mean over all places."""
    layers: list[nn.Module] = []
    for width in (3, WIDTH, WIDTH):
        layers += [nn.Conv2d(width, WIDTH, 3, padding=1), norm(), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH, WIDTH))


@pytest.mark.parametrize("name", NORMS)
def test_gradients_of_parameters_are_sums_over_samples(name):
    torch.manual_seed(0)
    x = torch.randn(8, 3, 12, 12) + torch.randn(8, 3, 1, 1)
    names = ["1.weight", "1.bias", "3.weight", "4.weight", "4.bias", "6.weight"]
    runs, end = [], "10"
    networks = Networks(x)
    for seed in range(NETWORKS):
        torch.manual_seed(seed + 1)
        rows = networks.measure(chain(NORMS[name]))
        runs.append([(rows.parameters[n]["grad_rms"] / rows[end].grad_rms) ** 2 for n in names])
    rows = fanin.predict(chain(NORMS[name]), x)
    said = np.array([(rows.parameters[n]["grad_rms"] / rows[end].grad_rms) ** 2 for n in names])
    mean, error = np.mean(runs, 0), np.std(runs, 0, ddof=1) / np.sqrt(NETWORKS)
    # With one mean for all samples they are 150 times too large behind instance norms, and nothing behind small
    # groups. What is left is known (the accuracy notes): statistics of few elements, a fifth of the rms two norms back.
    few = {"instance": 0.45, "groups of four": 0.35}
    assert (np.abs(said - mean) < 4 * error + few.get(name, 0.15) * mean).all()
