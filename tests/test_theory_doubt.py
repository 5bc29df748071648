"""Bad input of the theory: a clear error, a row that says what it does not know, never a number without a warning."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import fanin  # noqa: E402
from fanin.errors import FaninError  # noqa: E402

X = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A layer and any function of it and the batch."""

    def __init__(self, forward: Callable, width: int = 16):
        super().__init__()
        self.layer, self.act = nn.Linear(16, width), forward

    def forward(self, x):
        return self.act(self.layer, x)


def predicted(forward: Callable, batch=X, width: int = 16) -> fanin.Signals:
    """Rows of a net, with every warning an error; they can be written as JSON."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        rows = fanin.predict(Net(forward, width), batch)
    json.loads(rows.to_json())
    return rows


UNMODELLED = {
    # forward, what the last row's note holds
    "no rule": (lambda layer, x: torch.linalg.svd(layer(x))[1], "linalg_svd has no rule"),
    "no rule, and on": (lambda layer, x: torch.fft.rfft(layer(x)).abs() + 1, "fft_rfft has no rule"),
    "logarithm below zero": (lambda layer, x: torch.log(layer(x)), "logarithm or root below zero"),
    "root below zero": (lambda layer, x: torch.sqrt(layer(x)), "logarithm or root below zero"),
    "times not a number": (lambda layer, x: layer(x) * float("nan"), "not a number"),
    "mean of nothing": (lambda layer, x: layer(x)[:, :0].mean() + layer(x), "over no elements"),
}


@pytest.mark.parametrize("name", UNMODELLED)
def test_what_is_not_known_is_said(name):
    forward, word = UNMODELLED[name]
    rows = predicted(forward).rows
    assert rows[0].rms is not None and rows[0].grad_rms is None  # what stands before is known, its gradient is not
    assert rows[-1].rms is None and not rows[-1].exact
    assert rows[-1].note.startswith("unmodelled: ") and word in rows[-1].note


RARE = {
    "reciprocal": lambda layer, x: 1 / layer(x),
    "large power": lambda layer, x: layer(x) ** 200,
    "exponentials of exponentials": lambda layer, x: torch.exp(torch.exp(10 * layer(x))),
}


@pytest.mark.parametrize("name", RARE)
def test_moments_that_rare_values_decide_are_marked(name):
    row = predicted(RARE[name]).rows[-1]
    assert row.rms is not None and not row.exact and "rare values" in row.note


@pytest.mark.parametrize("fn", [torch.relu, torch.exp, lambda y: y**3, torch.sigmoid, lambda y: torch.log1p(y**2)])
def test_tame_functions_are_not_marked(fn):
    row = predicted(lambda layer, x: fn(layer(x))).rows[-1]
    assert row.exact and row.note == ""


def test_infinities_stay_infinite():
    assert predicted(lambda layer, x: layer(x) + float("inf")).rows[-1].rms == math.inf
    assert predicted(lambda layer, x: layer(x) / 0).rows[-1].rms == math.inf


def test_weights_whose_products_overflow():
    net = nn.Sequential(*[nn.Linear(16, 16) for _ in range(4)])
    for p in net.parameters():
        p.data.mul_(1e12)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        rows = fanin.predict(net, X).rows
    assert rows[0].rms and math.isfinite(rows[0].rms) and rows[-1].rms == math.inf


@pytest.mark.parametrize(
    ("forward", "rms"),
    [
        (lambda layer, x: layer(x)[:0], 0.0),
        (lambda layer, x: torch.cat([layer(x)[:, :0], layer(x)], 1), None),
        (lambda layer, x: layer(x)[:, :0].sum(-1) + layer(x).mean(-1), None),
    ],
)
def test_tensors_without_elements(forward, rms):
    row = predicted(forward).rows[-1]
    assert (row.rms == rms) if rms is not None else (row.rms is None or row.rms > 0)


def test_layer_of_no_width():
    assert predicted(lambda layer, x: layer(x), width=0).rows[-1].rms == 0.0


def test_nothing_but_integers():
    with pytest.raises(FaninError, match="no floating-point tensor"):
        predicted(lambda layer, x: layer(x).argmax(-1))


def test_numbers_that_are_none_in_the_batch():
    bad = X.clone()
    bad[1, 2] = float("nan")
    row = predicted(lambda layer, x: layer(x), bad).rows[-1]
    assert row.rms is None and "1 of 128 values" in row.note and "not numbers" in row.note


@pytest.mark.parametrize("size", [1, 2, 3])
def test_batch_norm_of_hardly_any_samples(size):
    """One sample leaves nothing; the mean gradient of two and three is finite by eps alone."""
    net = nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        rows = fanin.predict(net, X[:size]).rows
    assert all(row.grad_rms is not None and math.isfinite(row.grad_rms) for row in rows)


class Angles(nn.Module):
    """Angles between two projections of tokens: of cosines, or of numbers that are now and then beyond one."""

    def __init__(self, unit: bool):
        super().__init__()
        self.unit = unit
        self.a, self.b = nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, x):
        a, b = (nn.functional.normalize(y, dim=-1) if self.unit else y for y in (self.a(x), self.b(x)))
        return torch.acos(a @ b.transpose(-1, -2))


def test_a_function_with_bounds_is_held_where_hardly_an_element_is():
    torch.manual_seed(0)
    x = torch.randn(8, 16, 64)
    said, seen = (verb(Angles(True), x).rows[-1] for verb in (fanin.predict, fanin.measure))
    assert said.rms is not None and abs(said.rms / seen.rms - 1) < 0.01
    assert fanin.predict(Angles(False), x).rows[-1].rms is None
