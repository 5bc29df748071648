"""Means over windows that overlap or reach beyond a border: what places share, and what an input hears."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from networks import Networks  # noqa: E402
from torch import nn  # noqa: E402

import fanin  # noqa: E402

NETWORKS, WIDTH = 16, 64
POOLS = {
    "overlapping, padded": nn.AvgPool2d(3, 1, 1),
    "overlapping, padding not counted": nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    "overlapping, strided": nn.AvgPool2d(3, 2, 1),
    "control: side by side": nn.AvgPool2d(2),
}


def branch(pool: nn.Module) -> nn.Sequential:
    """The pooled branch of an inception block: norm, ReLU, mean pool, 1 x 1 convolution, norm."""
    return nn.Sequential(
        *(nn.Conv2d(3, WIDTH, 3, padding=1, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU(), pool),
        *(nn.Conv2d(WIDTH, WIDTH, 1, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU()),
        *(nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )


@pytest.fixture(scope="module", params=POOLS)
def runs(request):
    """Prediction, and squares of networks: forward at the pool and the norm behind, backward before them."""
    torch.manual_seed(0)
    x, pool = torch.randn(6, 3, 12, 12), POOLS[request.param]
    said, found = fanin.predict(branch(pool), x), []
    networks = Networks(x)
    for seed in range(NETWORKS):
        torch.manual_seed(seed + 1)
        rows = networks.measure(branch(pool))
        found.append([rows["3"].rms, rows["5"].rms, *(rows[n].grad_rms / rows["6"].grad_rms for n in ("3", "2", "1"))])
    end = said["6"].grad_rms
    expected = [said["3"].rms, said["5"].rms, *(said[n].grad_rms / end for n in ("3", "2", "1"))]
    return np.square(expected), np.square(found)


def test_forward_and_backward_are_as_measured(runs):
    said, found = runs
    mean, error = found.mean(0), found.std(0, ddof=1) / np.sqrt(NETWORKS)
    # Neighbours behind one kernel agree by chance (test_sums_over_overlapping_windows): 6 % of what is pooled, a
    # quarter of what a norm leaves of it. With pairs that forget the padding its gradient is six times as large.
    assert (np.abs(said - mean) < 4 * error + [0.06, 0.02, 0.35, 0.35, 0.35] * mean).all()


def test_an_input_hears_all_windows_that_read_it():
    """Of a gradient that is the same everywhere nine overlapping windows send all, not a ninth of its square."""
    x = torch.randn(4, 8, 6, 6)
    model = nn.Sequential(nn.Conv2d(8, 16, 1), nn.AvgPool2d(3, 1), nn.AdaptiveAvgPool2d(1))
    said, found = fanin.predict(model, x), fanin.measure(model, x)
    for rows in (said, found):
        weights = rows["0"].grad_rms / rows["2"].grad_rms
        taps = np.convolve(np.ones(4), np.ones(3))
        assert weights == pytest.approx(np.sqrt(np.mean(np.outer(taps, taps) ** 2)) / 9 / 16, rel=1e-5)
