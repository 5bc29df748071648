"""Maps whose neighbours are more alike than others: smooth images, pools that overlap, and what reads them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

import fanin  # noqa: E402
from fanin.theory import border, fields, lags  # noqa: E402
from fanin.theory.adjoint import lagged  # noqa: E402
from fanin.theory.state import Known, batch_axes  # noqa: E402
from fanin.theory.statistic import mean_inverse  # noqa: E402

NETWORKS = 10


def smooth(*shape: int, width: float = 3.0, seed: int = 0) -> torch.Tensor:
    """Noise through a Gaussian kernel along every axis but the first two, of mean square one."""
    x = torch.randn(*shape[:2], *(n + 24 for n in shape[2:]), generator=torch.Generator().manual_seed(seed))
    kernel = torch.exp(-(torch.arange(-12.0, 13.0) ** 2) / 2 / width**2)
    for i in range(2, len(shape)):
        rows = x.movedim(i, -1)
        x = (
            F.conv1d(rows.reshape(-1, 1, rows.shape[-1]), kernel[None, None])
            .reshape(*rows.shape[:-1], -1)
            .movedim(-1, i)
        )
    return x / x.std()


def compared(make, batch: torch.Tensor) -> dict[str, tuple[float, float, float]]:
    """Of the mean squares of modules' outputs and their gradients: predicted, mean over networks, standard error."""
    torch.manual_seed(0)
    seen: dict[str, list[float]] = {}
    for _ in range(NETWORKS):
        net, kept = make(), {}
        for name, module in net.named_children():
            module.register_forward_hook(lambda _m, _i, out, name=name, kept=kept: kept.__setitem__(name, out))
        out = net(batch)
        sent = torch.autograd.grad(out, list(kept.values()), torch.randn_like(out))
        for (name, value), g in zip(kept.items(), sent, strict=True):
            seen.setdefault(f"{name} rms", []).append(float(value.detach().pow(2).mean()))
            seen.setdefault(f"{name} grad_rms", []).append(float(g.pow(2).mean()))
    said = {f"{row.name} {key}": getattr(row, key) for row in fanin.predict(make(), batch).rows for key in KEYS}
    return {
        k: (said[k] ** 2, float(np.mean(v)), float(np.std(v)) / (NETWORKS - 1) ** 0.5)
        for k, v in seen.items()
        if said.get(k) is not None
    }


KEYS = "rms", "grad_rms"


def test_products_of_pixels():
    x = smooth(2, 3, 9, 12).numpy()
    found = lags.products(Known(x, batch_axes(x.shape)))
    for i, j in itertools.product(range(3), range(3)):
        one, other = x[:, :, i:, j:], x[:, :, : 9 - i, : 12 - j]
        crossed = (x[:, :, i:, : 12 - j] * x[:, :, : 9 - i, j:]).mean()
        assert found[i, j] == pytest.approx(((one * other).mean() + crossed) / 2, rel=1e-5)


@pytest.mark.parametrize("n", [1, 2, 5, 17, 224])
def test_means_over_pairs_of_places(n):
    """Any table that is linear between knots has the mean over all pairs that its values say."""
    at = lags.knots(n)
    table = np.multiply.outer(1.0 * at, 2.0 * lags.knots(7) + 1)
    rows, columns = (np.abs(np.subtract.outer(np.arange(k), np.arange(k))).ravel() for k in (n, 7))
    whole = np.multiply.outer(1.0 * rows, 2.0 * columns + 1).sum() - 0.0
    assert lags.mean(table, (n, 7)) == pytest.approx(whole / (49 * n * n - 7 * n), rel=1e-9)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_windows_that_read_a_place(stride):
    """What means over windows send back, against the matrix of all windows."""
    n, kernel = 24, 3
    out = (n - kernel) // stride + 1
    reads = np.zeros((out, n))
    for p in range(out):
        reads[p, p * stride : p * stride + kernel] = 1
    near = 0.7 ** np.abs(np.subtract.outer(np.arange(out), np.arange(out)))
    sent = reads.T @ near @ reads
    made = lagged.gathered(n, out, kernel, stride, 0, 1) @ 0.7 ** lags.knots(out)
    for k, lag in enumerate(lags.knots(n)[:4]):
        inside = np.diag(sent, lag)[6 : 6 + 2 * stride * (n // (4 * stride))]
        assert made[k] == pytest.approx(inside.mean(), rel=0.02)  # knots are joined by lines


def test_the_largest_of_windows():
    """Independent elements: windows of three that begin at every second place share three of nine."""
    x = _law(np.random.default_rng(0).standard_normal((1, 1, 33, 33)))
    found = fields.maxima(x, [(3, 2, 0, 1)] * 2)
    assert found is not None
    tops = F.max_pool2d(torch.randn(200, 8, 65, 65, generator=torch.Generator().manual_seed(3)), 3, 2).numpy()
    beside = np.corrcoef(tops[..., 1:].ravel(), tops[..., :-1].ravel())[0, 1]
    assert found.alike == pytest.approx(0.0, abs=0.01)
    assert found.corr[0, 1] == pytest.approx(beside, abs=4 / fields.DRAWS**0.5)
    assert found.same[0, 1] == pytest.approx(3 / 15, abs=2 / fields.DRAWS**0.5)  # m / (2 n - m)


def _law(x: np.ndarray):
    from fanin.theory.law import Atom, gaussian

    axes = (
        *batch_axes(x.shape)[:1],
        (Atom(x.shape[1], "feature"),) if x.shape[1] > 1 else (),
        *batch_axes(x.shape)[2:],
    )
    return gaussian(x.shape, axes, np.ones((1,) * 4), lambda s: 0.0)


def test_the_largest_of_alike_elements():
    """Elements that all correlate by one number are what they are taken for."""
    x = _law(np.zeros((1, 1, 33, 33)))
    table = np.full((len(lags.knots(33)),) * 2, 0.4)
    table[0, 0] = 1.0
    found = fields.maxima(lags.with_correlations(x, table), [(3, 2, 0, 1)] * 2)
    assert found is not None and found.alike == pytest.approx(0.4, abs=0.01)


def pooled(pool):
    def make() -> nn.Module:
        block = lambda i, o: [nn.Conv2d(i, o, 3, bias=False), nn.BatchNorm2d(o), nn.ReLU(), pool()]  # noqa: E731
        return nn.Sequential(*block(3, 48), *block(48, 48), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 4))

    return make


POOLS = {
    "max": lambda: nn.MaxPool2d(2),
    "max, overlapping": lambda: nn.MaxPool2d(3, 2),
    "mean": lambda: nn.AvgPool2d(2),
    "mean, overlapping": lambda: nn.AvgPool2d(3, 1),
}


@pytest.mark.parametrize("pool", POOLS)
def test_pools_over_smooth_images(pool):
    found = compared(pooled(POOLS[pool]), smooth(6, 3, 34, 34))
    for name in ("3 rms", "7 rms", "3 grad_rms"):
        said, mean, error = found[name]
        assert abs(said - mean) < 4 * error + BEYOND * mean, (name, said / mean)


BEYOND = 0.06
"""Of mean squares: maxima that are more alike than their mean correlation says, and few places under one norm."""


def test_a_control_without_lags(monkeypatch):
    """All pixels taken for equally alike: the largest of four neighbours is far too large, their mean too small."""
    monkeypatch.setattr(lags, "read", lambda *args: None)
    said, mean, _ = compared(pooled(POOLS["max"]), smooth(6, 3, 34, 34))["3 rms"]
    assert said > 1.5 * mean
    said, mean, _ = compared(pooled(POOLS["mean"]), smooth(6, 3, 34, 34))["3 rms"]
    assert said < 0.8 * mean


def layer(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class Mixed(nn.Module):
    """Branches that are laid side by side, one of them behind a mean over windows that overlap."""

    def __init__(self, inputs: int):
        super().__init__()
        self.one, self.three, self.pooled = layer(inputs, 48, 1), layer(inputs, 48, 3), layer(inputs, 48, 1)

    def forward(self, x):
        return torch.cat([self.one(x), self.three(x), self.pooled(F.avg_pool2d(x, 3, 1, 1))], 1)


def test_branches_of_pools():
    """Gradients of three such blocks: without lags they grew by half a block, four times too large in front."""
    make = lambda: nn.Sequential(  # noqa: E731
        Mixed(48), Mixed(144), nn.MaxPool2d(3, 2), Mixed(144), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(144, 5)
    )
    batch = torch.randn(4, 48, 17, 17, generator=torch.Generator().manual_seed(1))
    found = compared(make, batch)
    for name in ("2 rms", "0 grad_rms", "1 grad_rms"):
        said, mean, error = found[name]
        assert abs(said - mean) < 4 * error + 0.1 * mean, (name, said / mean)


def test_one_pattern_in_what_is_divided_by():
    """A chi squared of one degree beside one of twelve, against draws."""
    rng = np.random.default_rng(0)
    s2 = 0.7 * rng.chisquare(1, 400_000) + 0.3 * rng.chisquare(12, 400_000) / 12
    each = 1 / (s2 + 1e-5)
    error = float(each.std()) / len(each) ** 0.5
    assert mean_inverse(1.0, 1e-5, 12.0, 0.7) == pytest.approx(float(each.mean()), abs=4 * error)
    assert mean_inverse(1.0, 1e-5, 2 / (2 * 0.49 + 2 * 0.09 / 12)) > 1.5 * each.mean()  # as one chi squared


@pytest.mark.parametrize("shape", [(2, 2, 60), (2, 2, 6, 8, 10), (2, 2, 1, 9)], ids=str)
def test_maps_of_other_shapes(shape):
    """Signals of one axis, volumes, and maps of one row."""
    dims = len(shape) - 2
    kernel = [min(n, 3) for n in shape[2:]]
    conv = getattr(nn, f"Conv{dims}d")(2, 16, kernel)
    pool = getattr(nn, f"AvgPool{dims}d")([min(n, 2) for n in shape[2:]])
    said = fanin.predict(nn.Sequential(conv, nn.ReLU(), pool, nn.Flatten(), nn.Sigmoid()), smooth(*shape))
    assert all(row.rms is not None and np.isfinite(row.rms) and np.isfinite(row.grad_rms) for row in said.rows)


def test_noise_tells_no_lags():
    x = np.random.default_rng(0).standard_normal((4, 3, 32, 32))
    assert lags.read(Known(x, batch_axes(x.shape)), (32, 32), (1, 1)) is None
    assert border.sizes_of(_law(x)) == (32, 32)


class Generalized(nn.Module):
    """The cubic mean over a map, as a window of its size."""

    def __init__(self):
        super().__init__()
        self.body, self.power = layer(3, 64, 3), nn.Parameter(torch.full((1,), 3.0))

    def forward(self, x):
        cubes = self.body(x).clamp(min=1e-6).pow(self.power)
        return F.avg_pool2d(cubes, x.shape[-2:]).pow(1 / self.power)


def test_a_root_of_a_mean_over_the_map():
    torch.manual_seed(0)
    batch = torch.randn(4, 3, 12, 12)
    said = fanin.predict(Generalized(), batch).rows[-1].rms
    with torch.no_grad():
        seen = [float(Generalized()(batch).square().mean()) for _ in range(40)]
    assert said**2 == pytest.approx(np.mean(seen), abs=4 * np.std(seen) / 39**0.5 + 0.01)
