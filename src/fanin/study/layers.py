"""What trained networks look like layer by layer: the first layer against the others, and the trend with depth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fanin.study.grid import Condition
from fanin.study.results import Results
from fanin.study.statistics import Interval, bca, sign_flip
from fanin.study.statistics.ranks import mid_ranks

LEAST = 4
"""Layers from which on there is a trend."""


@dataclass(frozen=True)
class LayerTrend:
    """Of one observer in the trained networks of one arm, each network once.

    Attributes:
        means: of each layer, over the runs.
        first: value of the first layer minus the mean of the others.
        depth: Spearman's rank correlation of value and layer; -1 where every layer lies below the one before.
        deeper: the same without the first layer.
        p_first, p_depth, p_deeper: exact sign-flip tests over the runs, not corrected for their number.
        runs: networks that trained.
    """

    condition: Condition
    arm: str
    name: str
    means: tuple[float, ...]
    first: Interval
    depth: Interval
    deeper: Interval
    p_first: float
    p_depth: float
    p_deeper: float
    runs: int


def trends(results: Results, *, when: str = "end") -> Iterator[LayerTrend]:
    """A record for each condition, arm and observer of four layers or more, where two runs or more trained."""
    for condition in results.conditions:
        for arm in results.study.arms:
            for name, values in _observed(results, condition, arm.name, when).items():
                if len(values) > 1 and values.shape[1] >= LEAST:
                    yield _trend(condition, arm.name, name, values)


def _trend(condition: Condition, arm: str, name: str, values: np.ndarray) -> LayerTrend:
    first = values[:, 0] - values[:, 1:].mean(1)
    depth = np.array([with_depth(row) for row in values])
    deeper = np.array([with_depth(row[1:]) for row in values])
    p_first, p_depth, p_deeper = (sign_flip(d).p for d in (first, depth, deeper))
    means = tuple(float(value) for value in values.mean(0))
    return LayerTrend(
        condition, arm, name, means, bca(first), bca(depth), bca(deeper), p_first, p_depth, p_deeper, len(values)
    )


def with_depth(values: np.ndarray) -> float:
    """Spearman's rank correlation of values with their place; 0 where all are equal.

    Example:
        >>> with_depth(np.array([0.6, 0.3, 0.2, 0.1])), with_depth(np.array([0.6, 0.1, 0.2, 0.3]))
        (-1.0, -0.2)
    """
    ranks, places = mid_ranks(values), np.arange(len(values), dtype=float)
    a, b = ranks - ranks.mean(), places - places.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return round(float(a @ b) / size, 12) if size > 0 else 0.0


def _observed(results: Results, condition: Condition, arm: str, when: str) -> dict[str, np.ndarray]:
    """Observer -> (runs, layers), of runs that trained and whose numbers are all finite."""
    found: dict[str, list[list[float]]] = {}
    for trial in results.compared(condition, arm):
        seen = (trial.outcome.observed or {}).get(when) or {}
        for name, value in seen.items() if trial.outcome.status == "trained" else ():
            if isinstance(value, (list, tuple)) and value and all(isinstance(v, (int, float)) for v in value):
                found.setdefault(name, []).append([float(v) for v in value])
    return {name: np.array(rows) for name, rows in found.items() if len({len(row) for row in rows}) == 1}
