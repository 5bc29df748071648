"""Sums over prefixes of a sequence remember what they sum: the difference of two is a sum over what is between.

A scan in chunks decays by ``exp(A_i - A_j)``, with ``A_i = a_1 + ... + a_i`` a cumulative sum of negative numbers. As
two Gaussians the difference would now and then be positive, and its exponential a gain beyond all bounds; it is
``a_(j+1) + ... + a_i``. With known weights ``w = m_i + alpha m_j`` of the rows of the matrix that made both sums

    E y = sum_k w_k mu_k,   E y^2 = sum_k w_k^2 s_k + p (sum_kl w_k w_l r_k r_l - sum_k w_k^2 r_k^2),

``mu`` and ``s`` the means and mean squares along the sequence, ``r = sqrt(s)`` up to a factor, such that ``p`` is the
mean product of two places. Where all summands have one sign, and no weights of two, so has the sum: a lognormal.

Heads that each decay at a rate of their own are summed each by itself: of a slow one more is left than of another.
What two places of a head have in common is then Mehler's sum over the functions at both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fanin.graph import Node
from fanin.theory import grid
from fanin.theory.law import Axis, Groups, Law, gaussians, latent_for
from fanin.theory.records import cached_property, replace

LONGEST = 512
"""Places of a sequence beyond which sums over it are not told apart."""
MOST = 1 << 21
"""Places, over all heads, beyond which these are taken together."""
PAIRS = 1 << 25
"""Pairs of rows, over all heads, beyond which differences take heads together."""
FAINT = 1e-12
"""Share of a mean square."""


@dataclass(frozen=True, eq=False)
class Prefix:
    """What a tensor is a sum of.

    Attributes:
        source: the law of what was summed, along ``axis``.
        matrix: known weights (rows, places).
        row: of every place of the tensor its row of the matrix, of the k-th head k times their number further on; the
            tensor's axes, each full or one.
        heads: how many have levels of their own.
        factor: that the sums were multiplied by since.
    """

    source: Law
    axis: int
    matrix: np.ndarray
    row: np.ndarray
    heads: int = 1
    factor: float = 1.0

    @cached_property
    def along(self) -> Groups:
        """What tells summands apart."""
        return frozenset(a.group for a in self.source.axes[self.axis] if a.size > 1)

    @cached_property
    def profiles(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Means, mean squares, and sizes whose products have the mean product of two places, along the sequence."""
        n = self.matrix.shape[1]
        x = self.source
        means, seconds = (_along(x.profile(v), self.axis, n) for v in (x.means, x.seconds))
        size = np.sqrt(seconds)
        pairs = (size.sum() ** 2 - (size**2).sum()) / max(n * (n - 1), 1)
        return means, seconds, size / np.sqrt(max(pairs, 1e-300))

    @property
    def seconds(self) -> np.ndarray:
        """Mean squares of the sums themselves, at every place."""
        _, own, between = self.moments(self.row, self.row, 0.0)
        return np.maximum(own + between, 0.0)

    def moments(self, i: np.ndarray, j: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of sums with weights ``m_i + alpha m_j``: the mean, own squares, and what pairs add to the mean square."""
        if self.heads > 1:
            return self._of_heads(i, j, alpha)
        mean, second, size = self.profiles
        m = self.matrix
        line, reach = m @ mean, m @ size
        own, twice = (m * second) @ m.T, (m * size**2) @ m.T
        square = lambda q: q[i, i] + alpha**2 * q[j, j] + 2 * alpha * q[i, j]  # noqa: E731
        between = (reach[i] + alpha * reach[j]) ** 2 - square(twice)
        return line[i] + alpha * line[j], np.maximum(square(own), 0.0), self.source.pair(self.along) * between

    def _of_heads(self, i: np.ndarray, j: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        (h, i), j = np.divmod(i, len(self.matrix)), j % len(self.matrix)
        line, reach = self._by_head
        if not alpha:
            (own, twice), reached = (v[h, i] for v in self._squares), reach[h, i]
            return line[h, i], own, np.einsum("...d,...d->...", reached, reached) - twice
        own, twice = self._crossed
        square = lambda q: q[h, i, i] + alpha**2 * q[h, j, j] + 2 * alpha * q[h, i, j]  # noqa: E731
        whole = np.einsum("...d,...d->...", both := reach[h, i] + alpha * reach[h, j], both)
        return line[h, i] + alpha * line[h, j], np.maximum(square(own), 0.0), whole - square(twice)

    @cached_property
    def _levels(self) -> np.ndarray:
        """Level of every summand, (heads, places)."""
        levels = np.moveaxis(self.source.level, self.axis, -1).reshape(self.heads, -1)
        return np.broadcast_to(levels, (self.heads, self.matrix.shape[1]))

    @cached_property
    def _terms(self) -> np.ndarray:
        """Hermite coefficients by level, times powers of the root of what two places have in common."""
        x = self.source
        r = max(x.correlation(self.along), 0.0)
        terms = x.coefficients * np.sqrt(r) ** np.arange(x.coefficients.shape[1])
        return terms[:, (terms**2 > FAINT * np.maximum(x.seconds, 1e-300)[:, None]).any(0)]

    @cached_property
    def _by_head(self) -> tuple[np.ndarray, np.ndarray]:
        """Sums by head and row of means and of Hermite coefficients."""
        return self.source.means[self._levels] @ self.matrix.T, self.matrix @ self._terms[self._levels]

    @cached_property
    def _squares(self) -> tuple[np.ndarray, np.ndarray]:
        """Sums by head and row of mean squares and of squared coefficients."""
        square = (self.matrix**2).T
        return tuple(v[self._levels] @ square for v in (self.source.seconds, (self._terms**2).sum(1)))  # type: ignore[return-value]

    @cached_property
    def _crossed(self) -> tuple[np.ndarray, np.ndarray]:
        """The same by head and two rows."""
        m = self.matrix
        both = (v[self._levels][:, None] * m @ m.T for v in (self.source.seconds, (self._terms**2).sum(1)))
        return tuple(both)  # type: ignore[return-value]

    @property
    def together(self) -> Prefix:
        """The same of all heads as one."""
        return replace(self, row=self.row % len(self.matrix), heads=1)

    @property
    def sizes(self) -> np.ndarray:
        """Mean square of the summands of every head."""
        seconds = self.source.profile(self.source.seconds)
        return np.moveaxis(seconds, self.axis, -1).reshape(self.heads, -1).mean(1) if self.heads > 1 else np.ones(1)

    def by_term(self, numbers: np.ndarray) -> np.ndarray:
        """Numbers (heads, places) of the summands, with the axes of what was summed."""
        levels = self.source.level.shape if self.heads > 1 else (1,) * len(self.source.shape)
        others = [n for k, n in enumerate(levels) if k != self.axis]
        return np.moveaxis(numbers.reshape(*others, -1), -1, self.axis)

    def one_signed(self, i: np.ndarray, j: np.ndarray, alpha: float) -> bool:
        """Whether summands have one sign, and the weights of each sum, too."""
        if self.source.values.min() < 0 < self.source.values.max():
            return False
        count = len(self.matrix)
        for a, b in {(a % count, b % count) for a, b in zip(i.ravel().tolist(), j.ravel().tolist(), strict=True)}:
            w = self.matrix[a] + alpha * self.matrix[b]
            if w.min() < -1e-12 and w.max() > 1e-12:
                return False
        return True


def _along(profile: np.ndarray, axis: int, n: int) -> np.ndarray:
    others = tuple(i for i in range(profile.ndim) if i != axis)
    return np.broadcast_to(profile.mean(others), (n,)).astype(float)


def of(source: Law, axis: int, matrix: np.ndarray) -> Prefix | None:
    """Of a sum along one axis of places."""
    if source.deterministic or max(matrix.shape) > LONGEST:
        return None
    row = np.arange(len(matrix)).reshape([-1 if i == axis else 1 for i in range(len(source.shape))])
    others = [1 if i == axis else n for i, n in enumerate(source.level.shape)]
    heads = int(np.prod(others))
    if heads == 1 or heads * max(matrix.shape) > MOST:
        return Prefix(source, axis, matrix, row)
    return Prefix(source, axis, matrix, row + len(matrix) * np.arange(heads).reshape(others), heads)


def moved(prefix: Prefix | None, node: Node, law: Law, how: Callable) -> Prefix | None:
    """The same of a tensor whose elements were moved."""
    if prefix is None:
        return None
    return replace(prefix, row=how(node, replace(law, level=prefix.row))[1])


def times(prefix: Prefix | None, factor: float) -> Prefix | None:
    """The same of a multiple."""
    return prefix and replace(prefix, factor=prefix.factor * factor)


def difference(x: Law, y: Law, shape: tuple[int, ...], axes: tuple[Axis, ...]) -> Law | None:
    """x + y of two sums over one sequence, as one; None where they are none, or where some terms cancel others."""
    both = of_one(x, y)
    if both is None:
        return None
    a, b = both
    alpha = b.factor / a.factor
    lay = lambda row: row.reshape((1,) * (len(shape) - row.ndim) + row.shape)  # noqa: E731
    i, j = np.broadcast_arrays(lay(a.row), lay(b.row))
    if (i // len(a.matrix) != j // len(a.matrix)).any() or not a.one_signed(i, j, alpha):
        return None
    mean, own, between = (v * a.factor**n for v, n in zip(a.moments(i, j, alpha), (1, 2, 2), strict=True))
    variance = np.maximum(own + between - mean**2, 0.0)
    law = one_sign(gaussians(shape, axes, mean, variance, exponents=a.heads > 1))
    source, along = a.source, a.along
    alone = float(own.mean()) / max(source.second, 1e-300)
    apart = float(between.mean()) / max(abs(source.pair(along)), 1e-300)

    def pair(differ: Groups) -> float:
        same = alone * (source.pair(differ) if differ else source.second) if not differ & along else 0.0
        return same + apart * source.pair(differ | along)

    return replace(law, latent=latent_for(law, pair, law.groups), exact=x.exact and y.exact, note=x.note or y.note)


def of_one(x: Law, y: Law) -> tuple[Prefix, Prefix] | None:
    """What two tensors are sums of, where that is one sequence, with one matrix; else None. Too many heads are one."""
    a, b = x.prefix, y.prefix
    if a is None or b is None or a.source is not b.source or a.matrix is not b.matrix or not a.factor:
        return None
    if a.heads * len(a.matrix) ** 2 > PAIRS:
        return a.together, b.together
    return a, b


def one_sign(law: Law) -> Law:
    """Means and mean squares kept, as lognormals: sums of what is positive, or negative."""
    mean = law.means[:, None]
    width = np.sqrt(np.log1p(law.variances[:, None] / np.maximum(mean**2, 1e-300)))
    return law.with_values(mean * np.exp(width * grid.Z_UNIT - width**2 / 2))
