"""Numbers that tell a tensor's places apart: one for all, or one for every run of positions (``theory.places``).

They are kept by position whatever the axes, so that moves need not turn them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fanin.theory import places
from fanin.theory.adjoint import sequence
from fanin.theory.law import Law
from fanin.theory.moments import mean_of

Amount = float | np.ndarray
"""One number, or one for every run of positions."""
APART = 1e-2
"""Spread of positions, over their mean, below which one number stands for all."""


class Amounts(Mapping[Any, Amount]):
    """Coefficients by name, as one table: deep chains remember hundreds.

    Attributes:
        names: of the rows.
        rows: (names, runs of positions or 1).
    """

    __slots__ = ("_row", "names", "rows")

    def __init__(self, names: tuple[Any, ...], rows: np.ndarray):
        self.names, self.rows = names, rows
        self._row: dict[Any, int] | None = None

    def __getitem__(self, name: Any) -> Amount:
        if self._row is None:
            self._row = {n: i for i, n in enumerate(self.names)}
        row = self.rows[self._row[name]]
        return row if len(row) > 1 else float(row[0])

    def __iter__(self) -> Iterator[Any]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __or__(self, other: Mapping[Any, Amount]) -> Amounts:
        more = table(other)
        if any(name in other for name in self.names):
            return table({**self, **more})
        rows = [self.rows, more.rows]
        if self.rows.shape[1] != more.rows.shape[1]:
            wide = max(self.rows.shape[1], more.rows.shape[1])
            rows = [np.broadcast_to(t.rows, (len(t), wide)) for t in (self, more)]
        return Amounts(self.names + more.names, np.concatenate(rows))

    def times(self, factor: Amount) -> Amounts:
        """Every coefficient, by the same number or place by place."""
        return Amounts(self.names, self.rows * factor)

    def kept(self, rows: np.ndarray) -> Amounts:
        """Those that are told by an array of truth values."""
        return Amounts(tuple(n for n, k in zip(self.names, rows.tolist(), strict=True) if k), self.rows[rows])

    def power(self) -> Amount:
        """Sum of their squares."""
        found = np.einsum("ij,ij->j", self.rows, self.rows)
        return found if len(found) > 1 else float(found[0])


def table(amounts: Mapping[Any, Amount]) -> Amounts:
    """Coefficients as one table."""
    if isinstance(amounts, Amounts):
        return amounts
    if all(isinstance(v, float) for v in amounts.values()):
        return Amounts(tuple(amounts), np.array([*amounts.values()], float)[:, None])
    wide = max((np.size(v) for v in amounts.values()), default=1)
    rows = np.array([np.broadcast_to(v, wide) for v in amounts.values()], float).reshape(len(amounts), wide)
    return Amounts(tuple(amounts), rows)


def summed(tables: Sequence[Amounts]) -> Amounts:
    """Those of one name added."""
    first = tables[0]
    if all(t.names == first.names for t in tables):
        return Amounts(first.names, sum((t.rows for t in tables[1:]), first.rows))
    at = {name: i for i, name in enumerate(dict.fromkeys(name for t in tables for name in t.names))}
    rows = np.zeros((len(at), max(t.rows.shape[1] for t in tables)))
    for t in tables:
        rows[[at[name] for name in t.names]] += t.rows
    return Amounts(tuple(at), rows)


def by_place(law: Law, profile: np.ndarray) -> Amount:
    """The mean of a profile of the tensor, or that of every run of positions where these differ."""
    size = places.length(law)
    if size is None or profile.size == 1:
        return mean_of(profile)
    found = sequence.by_position(profile, law.axes, size)
    return found if found.max() - found.min() > APART * mean_of(found) else mean_of(profile)


def as_profile(amount: Amount, law: Law) -> Amount:
    """To multiply a profile of the tensor by."""
    size = places.length(law)
    if np.ndim(amount) == 0 or size is None:
        return float(np.mean(amount))
    return sequence.laid_out(np.asarray(amount), law, size)


def fitting(amounts: Mapping[Any, Amount], law: Law) -> Amounts:
    """Of positions that the tensor does not have one number."""
    found = table(amounts)
    if found.rows.shape[1] == 1:
        return found
    size = places.length(law)
    if size is not None and found.rows.shape[1] == len(places.runs(size).index):
        return found
    root, sign = np.sqrt((found.rows**2).mean(1)), found.rows.mean(1)
    return Amounts(found.names, np.copysign(root, sign)[:, None])


def one_number(value: Amount) -> float:
    """For all positions, of the same mean square."""
    return float(np.copysign(np.sqrt(np.mean(np.square(value))), np.mean(value)))


def level_weights(x: Law) -> np.ndarray:
    """Shares of a law's levels, or those at every run of positions where positions are of different levels."""
    size = places.length(x)
    if size is None or len(x.values) == 1 or places.POSITION not in x.level_groups:
        return x.level_weight
    return places.weights(x, size)


def correlation(form2: np.ndarray, weight: np.ndarray, a: np.ndarray, b: np.ndarray) -> Amount | None:
    """Of ``a g`` and ``b g``, element by element; None where one of them is nothing, or beyond all bounds.

    Args:
        form2: squared function of the gradient times the weights of the grid, (levels or one, points).
        weight: of levels.
    """
    mean = lambda a, b: weight @ np.einsum("...i,...i->...", a, b)  # noqa: E731
    beside = form2 * a
    scale = np.sqrt(np.maximum(mean(beside, a) * mean(form2 * b, b), 0.0))
    return np.clip(mean(beside, b) / scale, -1, 1) if np.all((scale > 0) & (scale < np.inf)) else None


def grown(law: Law, was: np.ndarray, now: np.ndarray) -> Amount:
    """By what one mean square is larger than another, as one number or place by place."""
    return by_place(law, now) / np.maximum(by_place(law, was), 1e-300)
