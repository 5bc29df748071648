"""Whether curves collapse: do outcomes depend on scale and learning rate through rate / scale^power alone?

Where nothing depends on the scale of the weights (a norm behind every matrix), a gradient is inversely proportional to
that scale, and a step turns the weights by rate / scale^2: the effective learning rate.

Sources: van Laarhoven 2017, arXiv:1706.05350; Hoffer et al. 2018, arXiv:1803.01814.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fanin.errors import ArgumentError
from fanin.study.statistics.bootstrap import stratified
from fanin.study.statistics.interval import Interval

POWERS = np.linspace(-1, 4, 101)
"""Among which the best one is sought."""
TIE = 1e-9
"""Of logarithms of effective rates."""


@dataclass(frozen=True)
class Collapse:
    """How well one curve describes all scales.

    Attributes:
        by_rate: share of the variance of log outcome explained by the learning rate.
        by_effective: by rate / scale^2.
        power: p of the rate / scale^p that explains most.
        best: the share that it explains.
        runs: seeds.
    """

    by_rate: Interval
    by_effective: Interval
    power: Interval
    best: Interval
    runs: int


def collapse(
    scales: Sequence[float], rates: Sequence[float], outcomes: np.ndarray, *, confidence: float = 0.95, seed: int = 0
) -> Collapse:
    """The curve of each scale, told from those of the others.

    The share explained is 1 - sum (y - y')^2 / sum (y - mean y)^2 over scales and rates, y the mean of log outcome over
    seeds and y' interpolated between the values of the *other* scales at the nearest effective rates; cells beyond the
    reach of the others are left out. It is 1 where all curves are one, and below 0 where the mean would tell more.

    Args:
        outcomes: (seeds, scales, rates), positive; NaN, a diverged run, counts as the largest one seen.

    Example:
        >>> scales, rates = [0.3, 1.0, 3.0], np.geomspace(1e-3, 10, 9)
        >>> u = np.log(rates / np.square(scales)[:, None])
        >>> found = collapse(scales, rates, np.exp(np.stack([u**2, u**2 + 0.1])))
        >>> found.power.estimate, round(found.by_effective.estimate, 2), found.by_rate.estimate < 0.5
        (2.0, 1.0, True)
    """
    y = _logarithms(outcomes, len(scales), len(rates))
    u, v = np.log(np.asarray(rates, float)), np.log(np.asarray(scales, float))
    weights = np.stack([_told_by_others(u - power * v[:, None]) for power in (0.0, 2.0, *POWERS)])

    def interval(read: Callable[[np.ndarray], np.ndarray]) -> Interval:
        return stratified([y], lambda drawn: read(_explained(drawn[0], weights)), confidence=confidence, seed=seed)

    return Collapse(
        by_rate=interval(lambda shares: shares[0]),
        by_effective=interval(lambda shares: shares[1]),
        power=interval(lambda shares: POWERS[shares[2:].argmax(0)]),
        best=interval(lambda shares: shares[2:].max(0)),
        runs=len(y),
    )


def _logarithms(outcomes: np.ndarray, scales: int, rates: int) -> np.ndarray:
    """(seeds, scales x rates)."""
    values = np.asarray(outcomes, float)
    if values.shape[1:] != (scales, rates) or scales < 2 or not len(values):
        raise ArgumentError(
            f"outcomes of shape {values.shape} for {scales} scales and {rates} rates", remedy="give two scales or more"
        )
    fine = np.isfinite(values)
    if not fine.any() or (values[fine] <= 0).any():
        raise ArgumentError("outcomes are not positive", remedy="give losses, of which at least one is finite")
    return np.log(np.where(fine, values, values[fine].max())).reshape(len(values), -1)


def _explained(drawn: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(draws, seeds, cells) and (powers, cells, cells) -> shares (powers, draws)."""
    y = drawn.mean(1)
    return np.stack([_share(y, w) for w in weights])


def _share(y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Of the cells that the others reach; nothing is told where these are fewer than half."""
    reached = np.flatnonzero(weights.any(axis=1))
    if 2 * reached.size < len(weights):
        return np.full(len(y), -np.inf)
    seen, told = y[:, reached], (y @ weights.T)[:, reached]
    whole = ((seen - seen.mean(-1, keepdims=True)) ** 2).sum(-1)
    return 1 - ((seen - told) ** 2).sum(-1) / np.where(whole > 0, whole, np.inf)


def _told_by_others(u: np.ndarray) -> np.ndarray:
    """(cells, cells): row i interpolates cell i from the cells of other scales; zeros where these do not reach."""
    flat, scale = u.ravel(), np.repeat(np.arange(len(u)), u.shape[1])
    weights = np.zeros((flat.size, flat.size))
    for i, place in enumerate(flat):
        others = np.flatnonzero(scale != scale[i])
        below, above = others[flat[others] <= place + TIE], others[flat[others] >= place - TIE]
        if not len(below) or not len(above):
            continue
        low, high = float(flat[below].max()), float(flat[above].min())
        part = (place - low) / (high - low) if high - low > 2 * TIE else 0.0
        for end, share in ((low, 1 - part), (high, part)):
            at = others[np.abs(flat[others] - end) <= 2 * TIE]  # where rates and scales meet there are several
            weights[i, at] += share / len(at)
    return weights
