"""Patches that are merged into features (hierarchical transformers): their places are read by weights of their own."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import fanin  # noqa: E402

NETWORKS, WIDTH, SIDE = 24, 48, 8


class Merging(nn.Module):
    """A mean over all places is added, then 2 x 2 places become features, or stay places (``merge=False``)."""

    def __init__(self, merge: bool):
        super().__init__()
        self.merge = merge
        self.inner, self.value = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.reduce = nn.Linear(4 * WIDTH if merge else WIDTH, 2 * WIDTH, bias=False)
        self.head = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x):
        x = self.inner(x)
        n, c = len(x), x.shape[-1]
        x = x + self.value(x).mean((1, 2), keepdim=True)
        if self.merge:
            x = x.reshape(n, SIDE // 2, 2, SIDE // 2, 2, c).permute(0, 1, 3, 4, 2, 5).flatten(3)
        return self.head(self.reduce(x).mean((1, 2)))


def passed(merge: bool) -> tuple[float, float, float]:
    """Predicted gradient of the values over that of the sum; measured, with its standard error."""
    x = torch.randn(16, SIDE, SIDE, WIDTH)
    ratios = []
    for seed in range(NETWORKS):
        torch.manual_seed(seed)
        model = Merging(merge)
        rows = fanin.measure(model, x)
        ratios.append((rows["value"].grad_rms / rows["/add"].grad_rms) ** 2)
    rows = fanin.predict(Merging(merge), x)
    said = (rows["value"].grad_rms / rows["/add"].grad_rms) ** 2
    return said, float(np.mean(ratios)), float(np.std(ratios, ddof=1) / np.sqrt(NETWORKS))


def test_of_merged_patches_a_quarter_of_all_pairs_of_places_share_their_weights():
    said, found, error = passed(True)
    assert abs(said - found) < 4 * error + 0.02 * found
    share, n = (SIDE**2 / 4 - 1) / (SIDE**2 - 1), SIDE**2  # of pairs; the mean of n gradients, of squares and pairs
    assert said == pytest.approx((1 + (n - 1) * share) / n, rel=0.02)


def test_control_places_that_stay_places_share_them_all():
    said, found, error = passed(False)
    assert abs(said - found) < 4 * error + 0.02 * found
    assert said == pytest.approx(1.0, rel=1e-6)
