"""Patches that are merged into features (hierarchical transformers): their places are read by weights of their own."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from networks import Networks  # noqa: E402
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
    networks = Networks(x)
    for seed in range(NETWORKS):
        torch.manual_seed(seed)
        model = Merging(merge)
        rows = networks.measure(model)
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


class Windows(nn.Module):
    """Attention in windows, patches merged behind a norm: gains and shifts of what four places were made of."""

    def __init__(self, windows: bool):
        super().__init__()
        self.windows = windows
        self.inner, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.norm, self.reduce = nn.LayerNorm(4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x):
        x = self.inner(x)
        n, half = len(x), SIDE // 2
        if self.windows:
            y = x.view(n, 2, half, 2, half, WIDTH).permute(0, 1, 3, 2, 4, 5).reshape(-1, half * half, WIDTH)
            heads = [v[:, None] for v in (y, y, self.value(y))]
            y = self.out(nn.functional.scaled_dot_product_attention(*heads)[:, 0])
            y = y.view(n, 2, 2, half, half, WIDTH).permute(0, 1, 3, 2, 4, 5).reshape(n, SIDE, SIDE, WIDTH)
            x = x + torch.nn.functional.pad(y, (0, 0, 0, 0, 0, 0))
        x = x.reshape(n, half, 2, half, 2, WIDTH).permute(0, 1, 3, 4, 2, 5).flatten(3)
        return self.reduce(self.norm(x)).mean((1, 2))


@pytest.mark.parametrize("windows", [True, False], ids=["windows", "control"])
def test_parameters_in_front_of_and_in_the_merging_norm(windows):
    """Their gradients are sums over all places: pairs of two windows count like those of one."""
    x, names = torch.randn(8, SIDE, SIDE, WIDTH), ["norm.bias", "norm.weight", "inner.bias", "inner.weight"]
    names = [*names, "out.bias", "value.bias"] if windows else names
    runs = []
    networks = Networks(x)
    for seed in range(NETWORKS):
        torch.manual_seed(seed)
        rows = networks.measure(Windows(windows))
        runs.append([(rows.parameters[n]["grad_rms"] / rows["reduce"].grad_rms) ** 2 for n in names])
    rows = fanin.predict(Windows(windows), x)
    said = np.array([(rows.parameters[n]["grad_rms"] / rows["reduce"].grad_rms) ** 2 for n in names])
    mean, error = np.mean(runs, 0), np.std(runs, 0, ddof=1) / np.sqrt(NETWORKS)
    assert (np.abs(said - mean) < 4 * error + 0.1 * mean).all()
