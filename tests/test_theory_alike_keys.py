"""Attention whose keys are alike from place to place: what its softmax lets through, against what is drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fanin
from fanin.frameworks import front_end
from fanin.theory.adjoint import rows as sums
from fanin.theory.adjoint import tilted
from fanin.theory.adjoint.rows import Rows
from fanin.theory.concentration import concentrations, let_through

PLACES, GAIN, WIDTH, HEADS = 24, 2.0, 128, 2


def _means(own: float) -> np.ndarray:
    """Pair moments of running means over independent tokens, of a mean square of one, and what tokens have alone."""
    at = np.arange(1.0, PLACES + 1)
    return (1 - own) * np.sqrt(np.minimum.outer(at, at) / np.maximum.outer(at, at)) + own * np.eye(PLACES)


def _rows() -> Rows:
    counts = np.arange(1.0, PLACES + 1)
    share = np.tril(np.ones((PLACES, PLACES))) / counts[:, None]
    ones, variance = np.ones(PLACES), GAIN**2 * 0.4
    return Rows(
        share, ones, ones, counts, concentrations(variance, counts), np.eye(PLACES), 1.0, let_through(variance, counts)
    )


def _drawn(values: np.ndarray, keys: np.ndarray, seen: int) -> tuple[float, float, float, float]:
    """Mean squares of a row's gradients of queries and of keys, over drawn logits, with their standard errors."""
    v, k = values[:seen, :seen], keys[:seen, :seen]
    size, along = np.linalg.eigh(GAIN**2 * k)
    drawn = np.random.default_rng(seen).standard_normal((4000, seen))
    a = np.exp(drawn @ (along * np.sqrt(np.maximum(size, 0))).T)
    a /= a.sum(1, keepdims=True)
    u, x = a @ v, a @ k
    w, y = (a * u).sum(1), (a * x).sum(1)
    queries = ((a @ (v * k)) * a).sum(1) - 2 * (a * u * x).sum(1) + w * y
    of_keys = (a**2 * (np.diag(v) - 2 * u + w[:, None])).sum(1)
    both = np.array([queries, of_keys])
    error = both.std(1) / np.sqrt(both.shape[1]) / both.mean(1)
    return (*both.mean(1), *error)


@pytest.mark.parametrize("own", [0.0, 0.3])
@pytest.mark.parametrize("seen", [3, 8, PLACES])
def test_factors_are_those_of_drawn_logits(own, seen):
    keys, values = _means(own), _means(0.1)
    rows, pairs = _rows(), (sums.of_matrix(values, PLACES), sums.of_matrix(keys, PLACES))
    inner = sums.logits(rows, pairs[0])
    factors = tilted.factors(rows, inner, pairs[1], GAIN**2, GAIN**2 * 0.4)
    equal = np.full((1, seen), 1 / seen)
    v, k = values[:seen, :seen], keys[:seen, :seen]
    u, x = equal @ v, equal @ k
    w, y = (equal * u).sum(), (equal * x).sum()
    base = (equal @ (v * k) @ equal.T).item() - 2 * (equal * u * x).sum() + w * y, (equal**2 * (1 - 2 * u + w)).sum()
    queries, of_keys, *errors = _drawn(values, keys, seen)
    for found, level, factor, error in zip((queries, of_keys), base, factors, errors, strict=True):
        said = level * rows.turned[seen - 1] * factor[seen - 1]
        assert said == pytest.approx(found, rel=4 * error + 0.03)  # and what 256 points leave
    if seen == PLACES:  # control: independent logits let twice as much through to queries
        assert base[0] * rows.turned[-1] > 1.4 * queries


class Attending(nn.Module):
    """Attention with queries and keys of length one, over running means of tokens."""

    def __init__(self):
        super().__init__()
        self.value, self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        self.norm, self.of_q, self.of_k = (nn.RMSNorm(WIDTH) for _ in range(3))

    def forward(self, x):
        heads = lambda t: t.view(*t.shape[:2], HEADS, -1).transpose(1, 2)  # noqa: E731
        value = heads(self.value(x))
        y = F.scaled_dot_product_attention(0.01 * value, 0.01 * value, value, is_causal=True)
        y = self.norm(y.transpose(1, 2).reshape(x.shape))
        q, k = self.of_q(self.q(y)) * GAIN, self.of_k(self.k(y))
        return F.scaled_dot_product_attention(heads(q), heads(k), heads(self.v(y)), is_causal=True)


def _measured(count: int = 10) -> dict[str, tuple[float, float]]:
    found: dict[str, list[float]] = {"q": [], "k": []}
    for seed in range(count):
        torch.manual_seed(seed)
        model, frontend = Attending(), front_end(Attending())
        x = torch.randn(6, PLACES, WIDTH)
        rows = {r.name: r for r in frontend.measure_signals(frontend.read_model(model, (x,)), seed=seed).rows}
        for name, squares in found.items():
            squares.append(rows[name].grad_rms ** 2)
    return {n: (np.mean(s) ** 0.5, np.std(s) / np.sqrt(count) / np.mean(s) / 2) for n, s in found.items()}


def test_gradients_of_queries_whose_keys_are_alike(monkeypatch):
    torch.manual_seed(0)
    x = torch.randn(6, PLACES, WIDTH)
    predicted = {n: fanin.predict(Attending(), x)[n].grad_rms for n in ("q", "k")}
    found = _measured()
    for name, (rms, error) in found.items():
        assert predicted[name] == pytest.approx(rms, rel=3 * error + 0.03)
    monkeypatch.setattr(tilted, "factors", lambda *_: (1.0, 1.0))
    assert fanin.predict(Attending(), x)["q"].grad_rms > 1.15 * found["q"][0]  # control
