"""Rows added up at known places, several at one: messages to the nodes of a graph, the words of a bag.

A place that c rows come to has

    E[y] = c E[v],      E[y^2] = c E[v^2] + c (c - 1) E[v v'],

with two rows' mean product ``E[v v']``; one that none comes to has nothing. Backward every row gets the gradient of its
place, so that rows of one place get the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fanin.theory.combine import with_rest
from fanin.theory.contraction import axis_groups
from fanin.theory.law import Axis, Groups, Law, gaussians, latent_for
from fanin.theory.records import replace


@dataclass(frozen=True, eq=False)
class Tally:
    """Where rows go.

    Attributes:
        to: for every row its place.
        axis: of the rows in what is added.
        count: of places.
    """

    to: np.ndarray
    axis: int
    count: int

    def added(self, rows: np.ndarray) -> np.ndarray:
        """Sums at the places of numbers of rows, (rows or 1, ...) -> (places, ...)."""
        rows = np.broadcast_to(rows, (len(self.to), *rows.shape[1:]))
        total = np.zeros((self.count, *rows.shape[1:]))
        np.add.at(total, self.to, rows)
        return total

    @property
    def met(self) -> float:
        """Share of pairs of rows that come to one place."""
        times, n = np.bincount(self.to, minlength=self.count), len(self.to)
        return float((times * (times - 1)).sum()) / (n * (n - 1)) if n > 1 else 0.0


def sums(v: Law, where: Tally, shape: tuple[int, ...], axes: tuple[Axis, ...]) -> Law:
    """The law of what comes to each place.

    Args:
        shape, axes: of the result; the place is along the axis that the rows were along.
    """
    rows = axis_groups(v.axes[where.axis])
    laid = lambda numbers: np.moveaxis(v.profile(numbers), where.axis, 0)  # noqa: E731
    back = lambda table: np.moveaxis(table, 0, where.axis)  # noqa: E731
    mean, second, root = where.added(laid(v.means)), where.added(laid(v.seconds)), where.added(laid(np.sqrt(v.seconds)))
    size = float(np.mean(np.sqrt(v.seconds)[v.level]))
    alike = v.pair(rows) / size**2 if size > 0 else 0.0
    square = second + (root**2 - second) * alike
    law = gaussians(shape, axes, back(mean), back(np.maximum(square - mean**2, 0)))
    times = np.bincount(where.to, minlength=where.count).astype(float)
    n, total = where.count, float(len(where.to))
    apart = (total**2 - float(times @ times)) / (n * (n - 1)) if n > 1 else 0.0
    along = axis_groups(axes[where.axis])

    def pair(differ: Groups) -> float:
        beside = differ - along
        if differ & along:
            return apart * v.pair(beside | rows)
        return float(times.mean()) * v.pair(beside) + float(np.mean(times * (times - 1))) * v.pair(beside | rows)

    latent = latent_for(law, pair, law.groups)
    terms = with_rest(latent, _read(v, rows, law, times))
    return replace(law, latent=replace(latent, terms=terms), exact=v.exact, note=v.note)


def _read(v: Law, rows: Groups, law: Law, times: np.ndarray) -> dict[tuple, float]:
    """Correlation with the tensor that the rows were read off, at the same place: rows correlate as its places do."""
    view, spread = v.latent.place_view, law.second - law.mean**2
    if not view or view[-1][0] != "index" or spread <= 0:
        return {}
    slope = float(v.level_weight @ v.slopes)
    rho = float(np.clip(times.mean() * v.correlation(rows) * slope / np.sqrt(spread), -1, 1))
    before = replace(v.latent, place_view=view[:-1])
    return {key: rho * c for key, c in before.made_of.items()}
