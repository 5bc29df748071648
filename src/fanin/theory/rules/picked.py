"""The largest few of a row, together: their sum, and each over their sum, as routers weigh experts.

The largest of n is at the quantile ``V_1^(1/n)``, the next at that times ``V_2^(1/(n-1))``, and so on, with independent
uniform V (Renyi). Weights of a softmax sum to one over all n: there whole rows of Gaussian logits are drawn. What is
left is chance of the rows, half a percent.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from fanin.theory import grid
from fanin.theory.combine import matched
from fanin.theory.contraction import axis_groups
from fanin.theory.law import FEATURE, Axis, Law, fresh_latent
from fanin.theory.records import replace

ROWS = 8192


def axis_of(x: Law) -> int | None:
    """The axis of the slots, one level each, largest first; None where there is none."""
    k = len(x.values)
    if not x.latent.picked or k < 2 or x.level.size != k or not (np.diff(x.values, axis=1) >= 0).all():
        return None
    axis = next(i for i, n in enumerate(x.level.shape) if n == k)
    ranked = axis_groups(x.axes[axis]) == {FEATURE} and (x.level.ravel() == np.arange(k)).all()
    return axis if ranked and x.shape[axis] == k else None


@lru_cache(maxsize=4)
def rows(n: int, variance: float) -> tuple[np.ndarray, np.ndarray]:
    """(rows, n) latents of logits, and softmax weights."""
    z = np.random.default_rng(0).standard_normal((max(ROWS * 8 // max(n, 8), 16), n))
    logits = z * np.sqrt(variance)
    weights = np.exp(logits - logits.max(1, keepdims=True))
    return z, weights / weights.sum(1, keepdims=True)


@lru_cache(maxsize=16)
def drawn(n: int, k: int, variance: float) -> np.ndarray:
    """(rows, k) the largest weights of softmax rows over n logits, largest first."""
    return -np.sort(-rows(n, variance)[1], axis=1)[:, :k]


@lru_cache(maxsize=16)
def _latents(n: int, k: int, variance: float) -> np.ndarray:
    """(rows, k): for each slot the latent of its own law."""
    if variance > 0:
        return _ranked(drawn(n, k, variance))
    v = np.random.default_rng(0).random((ROWS, k))
    u = np.cumprod(v ** (1 / np.arange(n, n - k, -1)), axis=1)
    return _ranked(u)


def _ranked(samples: np.ndarray) -> np.ndarray:
    """Latents by rank within every column."""
    ranks = np.argsort(np.argsort(samples, axis=0), axis=0)
    return grid.ndtri((ranks + 0.5) / len(samples))


def of_softmax(x: Law) -> float:
    """Variance of the logits of rows of softmax weights; 0 where these are none."""
    source = x.latent.source
    return source.variance if source is not None else 0.0


def together(x: Law) -> np.ndarray:
    """(rows, k) values of the slots of one row."""
    at = _latents(x.latent.picked, len(x.values), of_softmax(x))
    return np.stack([grid.at(row, at[:, j]) for j, row in enumerate(x.values)], 1)


def total(x: Law, axis: int, factor: float, shape: tuple[int, ...], axes: tuple[Axis, ...]) -> Law:
    """Sum over the slots times a factor; it knows of what it is one."""
    sums = together(x).sum(1) * factor
    latent = fresh_latent({s: x.correlation(s) for s in x.latent.corr})
    of = (x.latent.id, x.latent.feature_view, x.latent.place_view, 0.0)
    level = np.zeros((1,) * len(shape), np.int32)
    return Law(shape, axes, formed(sums)[None], level, replace(latent, mean_of=of), x.exact, x.note)


def over_total(fn: Callable[..., np.ndarray], x: Law, y: Law) -> Law | None:
    """A function of the slots and of their own sum; None where y is not that."""
    of = y.latent.mean_of
    axis = axis_of(x)
    mine = (x.latent.id, x.latent.feature_view, x.latent.place_view)
    if axis is None or of is None or of[:3] != mine or len(y.values) > 1 or len(y.shape) != len(x.shape):
        return None
    slots = together(x)
    sums = slots.sum(1)
    sums = grid.at(y.values[0], _ranked(sums))
    values = np.stack([formed(np.asarray(fn(slot, sums), float)) for slot in slots.T])
    latent = fresh_latent({s: x.correlation(s) for s in x.latent.corr})
    return Law(x.shape, x.axes, values, x.level, latent, x.exact, x.note)


def of_open(x: Law, axis: int) -> Law:
    """Softmax over a row of which some entries, nobody knows which, are minus infinity: a router's few experts.

    The others are taken as independent; those that are shut out have weight zero, at the same part of the latent.
    """
    open_ = np.isfinite(x.values[0])
    n = x.shape[axis]
    share = float(grid.WEIGHT @ open_)
    k = max(round(n * share), 1)
    if not open_.any():
        raise NotImplementedError("a softmax over nothing")
    above = (grid.CDF[open_] - grid.CDF[open_][0]) / max(grid.CDF[open_][-1] - grid.CDF[open_][0], 1e-300)
    u = np.random.default_rng(0).random((max(ROWS * 8 // k, 16), k))
    order = np.argsort(x.values[0][open_])
    logits = np.interp(u, above, x.values[0][open_][order])
    weights = np.exp(logits - logits.max(1, keepdims=True))
    weights = np.sort((weights / weights.sum(1, keepdims=True)).ravel())
    values = np.zeros_like(x.values)
    values[0, open_] = np.interp(above, np.linspace(0, 1, weights.size), weights)[np.argsort(order)]
    law = x.with_values(matched_to_zero(values, open_, 1 / n, k / n * float(np.mean(weights**2))))
    return law.marked("softmax over independent entries")


def matched_to_zero(values: np.ndarray, open_: np.ndarray, mean: float, second: float) -> np.ndarray:
    """Values that are zero where nothing is open, of that mean and mean square."""
    share = float(grid.WEIGHT @ open_)
    inner = values[0, open_]
    weight = grid.WEIGHT[open_] / share
    centre = float(weight @ inner)
    spread = float(np.sqrt(max(weight @ (inner - centre) ** 2, 0)))
    wanted = float(np.sqrt(max(second / share - (mean / share) ** 2, 0)))
    found = values.copy()
    found[0, open_] = mean / share + (inner - centre) * (wanted / spread if spread > 0 else 0)
    return found


def formed(samples: np.ndarray) -> np.ndarray:
    values = grid.quantile_grid(samples, np.ones(len(samples)))
    return matched(values, float(samples.mean()), float(np.mean(samples**2)))
