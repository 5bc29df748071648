"""Normalization by the axes it averages over, in training and evaluation mode, fused and spelled out."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
from test_theory_rules_contraction import Made  # noqa: E402
from test_theory_statistics import Comparison, compared, normal  # noqa: E402
from torch import nn  # noqa: E402

from fanin.distributions import Normal, Uniform  # noqa: E402

N, C = 256, 64
X, IMAGE = normal(8, N), normal(6, 16, 8, 8)


def dense(layer: nn.Module, act: nn.Module | None = None) -> nn.Module:
    return nn.Sequential(nn.Linear(N, N), act or nn.ReLU(), layer, nn.Linear(N, N))


def conv(layer: nn.Module, **options) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(16, C, 3, bias=False, **options),
        nn.ReLU(),
        layer,
        nn.ReLU(),
        nn.Conv2d(C, C, 3, bias=False, **options),
    )


# A statistic over s elements varies from one to the next; the theory divides by its mean and takes the result for a
# function of the latent as before. What is left out is of order 1/s: the slack of the cases whose s is small.
CASES = {
    "layer norm": (dense(nn.LayerNorm(N)), X, 0.0),
    "layer norm of something with a mean": (dense(nn.LayerNorm(N), nn.Sigmoid()), X, 0.0),
    "layer norm without affine": (dense(nn.LayerNorm(N, elementwise_affine=False)), X, 0.0),
    "layer norm over positions": (dense(nn.LayerNorm(N)), normal(3, 5, N), 0.0),
    "layer norm with a large eps": (dense(nn.LayerNorm(N, eps=0.5)), X, 0.0),
    "rms norm": (dense(nn.RMSNorm(N)), X, 0.0),
    "group norm": (conv(nn.GroupNorm(4, C), padding=1), IMAGE, 0.01),
    "one group": (conv(nn.GroupNorm(1, C), padding=1), IMAGE, 0.01),
    "batch norm of a vector": (dense(nn.BatchNorm1d(N)), normal(32, N), 0.0),
    "batch norm of an image": (conv(nn.BatchNorm2d(C)), IMAGE, 0.0),
    "batch norm of a padded image": (conv(nn.BatchNorm2d(C), padding=1), IMAGE, 0.0),
    "batch norm of few taps, with a large eps": (
        nn.Sequential(
            nn.Conv2d(16, C, 1, bias=False), nn.BatchNorm2d(C), nn.ReLU(),
            nn.Conv2d(C, C, 3, bias=False, groups=C), nn.BatchNorm2d(C, eps=0.3), nn.ReLU(),
            nn.Conv2d(C, C, 1, bias=False), nn.BatchNorm2d(C, eps=0.3),
        ), normal(4, 16, 16, 16), 0.01,
    ),
    "instance norm": (conv(nn.InstanceNorm2d(C)), IMAGE, 1 / 36),
    "instance norm, affine": (conv(nn.InstanceNorm2d(C, affine=True)), IMAGE, 1 / 36),
}  # fmt: skip
OPEN: dict[str, str] = {}


def cases(table: dict) -> list:
    return [
        pytest.param(*value, id=name, marks=pytest.mark.xfail(strict=True, reason=OPEN[name]) if name in OPEN else ())
        for name, value in table.items()
    ]


@pytest.mark.parametrize(("net", "batch", "slack"), cases(CASES))
def test_norm(net, batch, slack):
    assert compared(net, batch, networks=24).misses(slack) == []


@pytest.mark.parametrize("name", ["batch norm of a vector", "batch norm of an image", "layer norm", "group norm"])
def test_evaluation_mode(name):
    net, batch, slack = CASES[name]
    assert compared(net, batch, networks=24, training=False).misses(slack) == []


def test_batch_norm_does_not_normalize_in_evaluation_mode():
    """Healthy in training, twice the signal a layer in evaluation: the stored statistics are zero and one."""
    deep = nn.Sequential(*[m for _ in range(4) for m in (nn.Linear(N, N), nn.BatchNorm1d(N), nn.Tanh())])
    laws = {f"{3 * i}.weight": Normal(2 * N**-0.5) for i in range(4)}
    batch = normal(64, N)
    train, evaluation = (compared(deep, batch, laws, networks=12, training=t) for t in (True, False))
    assert train.misses(1 / 64) == [] and evaluation.misses() == []
    assert train.predicted["10"].rms == pytest.approx(1, abs=1e-3)
    strong = evaluation.predicted["10"].rms
    assert strong is not None and strong > 1.5


def test_learned_scale_and_shift():
    laws = {"2.weight": Uniform(0.4, mean=1.0), "2.bias": Normal(0.3)}
    assert compared(dense(nn.LayerNorm(N)), X, laws, networks=24).misses() == []


def test_alike_samples_lose_what_they_share():
    """Batch normalization takes away what samples have in common: on samples that are alike it blows up the rest."""
    alike = normal(1, N) + 0.2 * normal(32, N, seed=2)
    net = nn.Sequential(nn.Linear(N, N), nn.BatchNorm1d(N), nn.ReLU(), nn.Linear(N, N))
    assert compared(net, alike, networks=24).misses(1 / 32) == []


# --- spelled out ----------------------------------------------------------------------------------------------------


def rms_norm(x):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def layer_norm(x):
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt(centred.pow(2).mean(-1, keepdim=True) + 1e-5)


def by_var(x):
    return (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, unbiased=False, keepdim=True) + 1e-5)


def unit_length(x):
    return torch.nn.functional.normalize(x, dim=-1)


@pytest.mark.parametrize("fn", [rms_norm, layer_norm, by_var, unit_length], ids=lambda f: f.__name__)
def test_spelled_out(fn):
    net = Made(lambda m, x: fn(torch.relu(x @ m.w)) @ m.v, w=(N, N), v=(N, N))
    laws = {"w": Normal(2 * N**-0.5), "v": Normal(N**-0.5)}
    assert compared(net, X, laws, networks=24).misses(1 / N) == []  # of N features, N - 1 are free once centred


# --- control --------------------------------------------------------------------------------------------------------


def test_another_norm_is_missed():
    """Layer normalization removes the mean that RMS normalization keeps."""
    layer = compared(dense(nn.LayerNorm(N), nn.Sigmoid()), X, networks=12)
    other = compared(dense(nn.RMSNorm(N), nn.Sigmoid()), X, networks=12)
    swapped = layer.predicted.with_rows(
        [replace(row, mean=b.mean) for row, b in zip(layer.predicted.rows, other.predicted.rows, strict=True)]
    )
    assert Comparison(swapped, layer.squares, layer.means).misses()
