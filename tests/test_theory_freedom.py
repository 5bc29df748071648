"""Degrees of freedom of the variance that batch normalization divides by, against the Gram matrix of what is read.

The outputs of a channel are Gaussian given what is read, of covariance K over samples and places: with C for K about
its mean over either, the variance over them has the relative variance ``2 sum C_ij^2 / (sum C_ii)^2`` over weights.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import fanin  # noqa: E402
from fanin.theory import statistic  # noqa: E402
from fanin.theory.rules import norm  # noqa: E402

NETWORKS = 6
SHAPES = {
    "plane": (2, (8, 32, 16, 16), nn.MaxPool2d),
    "volume": (3, (8, 16, 8, 16, 16), nn.MaxPool3d),
    "small": (2, (16, 48, 8, 8), nn.MaxPool2d),
}


def net(dims: int, channels: int, pool: type[nn.Module]) -> nn.Sequential:
    """A convolution over positive maps, whose border has fewer taps; its biases make its law no longer Gaussian."""
    conv = getattr(nn, f"Conv{dims}d")
    norms = getattr(nn, f"BatchNorm{dims}d")
    first = conv(channels, channels, 3, padding=1), norms(channels), nn.ReLU(), pool(2)
    return nn.Sequential(*first, conv(channels, channels, 3, padding=1), norms(channels))


def predicted(case: str, monkeypatch: pytest.MonkeyPatch) -> float:
    dims, shape, pool = SHAPES[case]
    found, plain = [], norm.normalized

    def spy(x, axes, eps, **more):
        found.append(statistic.freedom(x, axes, 1, statistic.shared_moment(x, axes)))
        return plain(x, axes, eps, **more)

    monkeypatch.setattr(norm, "normalized", spy)
    torch.manual_seed(0)
    fanin.predict(net(dims, shape[1], pool), torch.randn(shape))
    return found[-1]


def of_gram(case: str, seed: int) -> float:
    dims, shape, pool = SHAPES[case]
    torch.manual_seed(seed)
    with torch.no_grad():
        read = net(dims, shape[1], pool)[:4](torch.randn(shape))
    read = nn.functional.pad(read, [1] * (2 * dims))
    for i in range(dims):
        read = read.unfold(2 + i, 3, 1)
    patches = read.permute(0, *range(2, 2 + dims), 1, *range(2 + dims, 2 + 2 * dims))
    patches = patches.reshape(math.prod(patches.shape[: 1 + dims]), -1).double()
    patches -= patches.mean(0)
    gram = patches.T @ patches  # of the same squares as that over places
    return float(gram.trace() ** 2 / (gram**2).sum())


@pytest.mark.parametrize("case", SHAPES)
def test_behind_convolutions_over_positive_maps(case, monkeypatch):
    measured = np.array([of_gram(case, seed) for seed in range(NETWORKS)])
    deviation = measured.std(ddof=1) / NETWORKS**0.5
    # channels are finitely many: what they agree by chance is known to a tenth (docs/theory.md, scatter)
    assert abs(predicted(case, monkeypatch) - measured.mean()) < 0.2 * measured.mean() + 4 * deviation


def test_a_control_that_counts_levels_twice(monkeypatch):
    """Means of levels in the joint fourth cumulant: what places of the border have beside the middle comes in twice."""

    def of_means(x, differ):
        about = x.with_values(x.values - x.mean)
        squares = about.with_values(about.values**2 - about.seconds[:, None])
        at = lambda law: law.moment_at(differ, law.correlation(differ)) if differ else law.second  # noqa: E731
        return at(squares) - 2 * at(about) ** 2

    monkeypatch.setattr(statistic, "_fourth_cumulant", of_means)
    assert predicted("plane", monkeypatch) < 0.5 * of_gram("plane", 0)
