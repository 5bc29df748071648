"""Zeros beside tokens: sequences that are filled up to whole blocks, and rows of attention that do not look there."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from networks import Networks  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import fanin  # noqa: E402
from fanin.theory import places  # noqa: E402
from fanin.theory.adjoint import seen, thinned  # noqa: E402
from fanin.theory.rules import mix  # noqa: E402

N, TOKENS, ZEROS, SAMPLES, NETWORKS = 64, 16, 48, 4, 40
DRAWN = torch.Generator().manual_seed(0)
X = torch.randn(SAMPLES, 1, N, generator=DRAWN) + 0.6 * torch.randn(SAMPLES, TOKENS, N, generator=DRAWN)
FILLED = {
    "pad": lambda x: F.pad(x, (0, 0, 0, ZEROS)),
    "cat": lambda x: torch.cat([x, torch.zeros(SAMPLES, ZEROS, N)], 1),
}


class Pool(nn.Module):
    """A layer on a batch that is filled up, and the mean over all places."""

    def __init__(self, fill):
        super().__init__()
        self.fill, self.e = fill, nn.Linear(N, N, bias=False)

    def forward(self, x):
        return self.e(self.fill(x)).mean(1)


class Rows(nn.Module):
    """Learned queries look at tokens beside zeros that a mask hides."""

    def __init__(self, fill):
        super().__init__()
        self.fill, self.queries = fill, nn.Parameter(torch.randn(8, N))
        self.e, self.q, self.k, self.v, self.o = (nn.Linear(N, N, bias=False) for _ in range(5))

    def forward(self, x):
        x = self.fill(2 * self.e(x))
        hidden = torch.zeros(x.shape[1])
        hidden[TOKENS:] = -1e9
        scores = torch.einsum("qd,btd->bqt", self.q(self.queries) / 8, self.k(x))
        return self.o(torch.einsum("bqt,btd->bqd", (scores + hidden).softmax(-1), self.v(x)))


def compared(made):
    """Predicted, measured and standard error of the last signal's rms and of weights' gradients, by name."""
    squares, predicted = {}, None
    networks = Networks(X)
    for seed in range(NETWORKS):
        torch.manual_seed(seed)
        net = made()
        predicted = predicted or fanin.predict(net, X)
        found = networks.measure(net, seed=seed)
        squares.setdefault("out", []).append(found.rows[-1].rms ** 2)
        for name, row in found.parameters.items():
            squares.setdefault(name, []).append(row["grad_rms"] ** 2)
    result = {}
    for name, values in squares.items():
        mean = np.mean(values) ** 0.5
        error = np.std(values) / (2 * mean * NETWORKS**0.5)
        of = predicted.rows[-1].rms if name == "out" else predicted.parameters[name]["grad_rms"]
        result[name] = (of, mean, error)
    return result


def off(found):
    """Relative error, and its standard error."""
    predicted, measured, error = found
    return abs(predicted / measured - 1), error / measured


@pytest.mark.parametrize("fill", FILLED.values(), ids=FILLED)
def test_a_mean_over_tokens_and_zeros_keeps_what_tokens_have_in_common(fill):
    error, standard = off(compared(lambda: Pool(fill))["out"])
    assert error < 4 * standard + 0.01


def test_without_deviations_pairs_with_zeros_count_as_unlike_twice(monkeypatch):
    monkeypatch.setattr(places, "_deviations", lambda law, size: None)
    error, _ = off(compared(lambda: Pool(FILLED["pad"]))["out"])
    assert error > 0.5


@pytest.mark.parametrize("fill", FILLED.values(), ids=FILLED)
def test_rows_that_look_at_tokens_alone(fill):
    found = compared(lambda: Rows(fill))
    for name in ("out", "v.weight", "e.weight", "o.weight"):
        error, standard = off(found[name])
        assert error < 3 * standard + 0.04, name  # 1/16 of the queries' agreement


LEFT_OUT = [
    (mix, "_looked_at", lambda x, y, ndim: 1.0, "out"),
    (seen, "by_any_row", lambda weights: None, "v.weight"),
    (thinned, "cut", lambda part, before, after: part.ratio, "e.weight"),
]


@pytest.mark.parametrize(("module", "name", "neutral", "tensor"), LEFT_OUT, ids=[f"{row[1]}" for row in LEFT_OUT])
def test_with_any_of_it_left_out_zeros_count(monkeypatch, module, name, neutral, tensor):
    monkeypatch.setattr(module, name, neutral)
    error, _ = off(compared(lambda: Rows(FILLED["pad"]))[tensor])
    assert error > 0.3
