"""Backward through attention: y_i = sum_j a_ij v_j with a = softmax(s q k^T), rows a_ij around a mean share.

Values get the transpose, dv_j = sum_i a_ij g_i. With t_ij = g_i v_j the gradient of a logit is a_ij (t_ij - sum_k a_ik
t_ik); t is Gaussian with E[t_ij t_i'j'] = d G_ii' V_jj' (d features a head), so

    E[dl_ij dl_i'j'] = d G_ii' a_ij a_i'j' (V_jj' - U_i'j - U_ij' + W_ii'),    U = a V,  W = a V a^T,

and dq_i = s sum_j dl_ij k_j, dk_j = s sum_i dl_ij q_i follow with the pair moments K of keys and Q of queries. Sums
over positions run over the runs of ``theory.places``: a run has its own mean square and a pair moment between
neighbours. Where rows and places are all alike, one run stands for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fanin.theory import places


@dataclass(frozen=True)
class Pairs:
    """Pair moments along a sequence by run: ``own`` mean squares, ``between`` different places (neighbours inside)."""

    own: np.ndarray
    between: np.ndarray

    @property
    def extra(self) -> np.ndarray:
        """What a place has with itself beyond its neighbour."""
        return self.own - np.diag(self.between)

    def __mul__(self, other: Pairs) -> Pairs:
        """Pair moments of the product of two independent tensors."""
        return Pairs(self.own * other.own, self.between * other.between)


def of_matrix(pairs: np.ndarray, size: int) -> Pairs:
    """From a matrix whose diagonal is the mean square."""
    between = pairs.copy()
    np.fill_diagonal(between, places.neighbours(pairs, size))
    return Pairs(np.diag(pairs).copy(), between)


def of_numbers(own: float, between: float) -> Pairs:
    """One run for all places."""
    return Pairs(np.array([own]), np.array([[between]]))


@dataclass(frozen=True)
class Rows:
    """Rows of weights by run of queries and run of keys.

    Attributes:
        share: sum of a row's mean weights over each run of keys.
        queries, keys: width of every run.
        counts, concentrated: effective number of keys of a row, and E[sum_j a_j^2].
        alike: correlation of the logits between rows.
        keep: share of weights that dropout keeps.
        through: E[sum_j a_j^2 (1 - 2 a_j + sum_k a_k^2)], what the softmax lets through of independent t_j; None where
            a row's weights are equal.
        sphere: dimensions of the sphere that keys lie on; 0 where logits are Gaussian.
        heads: what the mean square of a weight is larger by where heads have mean weights of their own.
        longer: of keys, by what the squared gradient is larger where long queries have chosen.
        facing: of queries, what is left of the squared gradient where keys that are chosen face the query.
        tilted: of queries and of keys, what ``turned`` is to be multiplied by where keys are alike (``tilted``).
        two: whether these are the rows of two samples, so that products at one place may be negative.
    """

    share: np.ndarray
    queries: np.ndarray
    keys: np.ndarray
    counts: np.ndarray
    concentrated: np.ndarray
    alike: np.ndarray
    keep: float = 1.0
    through: np.ndarray | None = None
    sphere: float = 0.0
    facing: np.ndarray | float = 1.0
    longer: np.ndarray | float = 1.0
    heads: np.ndarray | float = 1.0
    tilted: tuple[np.ndarray | float, np.ndarray | float] = (1.0, 1.0)
    two: bool = False

    @property
    def weight(self) -> np.ndarray:
        """Mean weight of one key."""
        return self.share / self.keys

    @property
    def boost(self) -> np.ndarray:
        """E[a_j^2] over the square of the mean."""
        return np.maximum(self.concentrated * self.counts, 1.0) * self.heads

    @property
    def apart(self) -> np.ndarray:
        """E[a_j a_j'] of two keys of one row over the product of the means: a row sums to one."""
        return np.where(self.counts > 1.0001, (1 - self.concentrated) / np.maximum(1 - 1 / self.counts, 1e-12), 0.0)

    @property
    def turned(self) -> np.ndarray:
        """What the softmax lets through over what it would with equal weights: a row that has chosen does not turn."""
        if self.through is None:
            return np.ones_like(self.counts) * self.heads
        turned = self.through * self.counts / np.maximum(1 - 1 / self.counts, 1e-12)
        return np.where(self.counts > 1.0001, turned, 0.0) * self.heads

    @property
    def dropped(self) -> np.ndarray:
        """What dropout adds to ``a_j (m_j t_j - sum_k a_k m_k t_k)``, over what equal weights let through.

        The ``(m_j - 1) t_j`` are independent whatever the t_j have in common, and a row that has chosen lets as little
        of them through.
        """
        return self.turned * (1 / self.keep - 1)

    def plain(self) -> Rows:
        """The same rows of two samples: their weights are independent."""
        ones = 1 / self.counts
        apart = np.zeros_like(self.alike)
        return Rows(self.share, self.queries, self.keys, self.counts, ones, apart, heads=self.heads, two=True)

    def at_one_place(self, own: np.ndarray) -> np.ndarray:
        """Products at one place: squares, but of two samples."""
        return own if self.two else np.maximum(own, 0)

    def both(self, pairs: np.ndarray) -> np.ndarray:
        """Pair moments of queries, weighted by how many there are of each run."""
        return self.queries[:, None] * pairs * self.queries[None, :]

    def met(self, alone: np.ndarray) -> np.ndarray:
        """Of two rows, what ``alone`` is of one over equal weights: what their logits share."""
        alone = np.maximum(alone, 1e-300)
        return (alone[:, None] * alone[None, :]) ** (np.clip(self.alike, 0, 1) / 2)


def met(rows: Rows, lean: np.ndarray) -> float:
    """What values' gradients meet of the tokens that weights lean to, in units of their mean square (``Part.met``).

    ``E|sum_j a_j x_j|^2`` beyond that of independent weights, over ``E[sum_j a_j^2]``, in the mean over rows.
    """
    whole = float(rows.queries @ rows.concentrated) / rows.keep
    return float(rows.queries @ np.broadcast_to(lean, rows.counts.shape)) / whole if whole > 0 else 0.0


def values(rows: Rows, g: Pairs) -> Pairs:
    """dv: sums of the cotangents of all queries that look at a key."""
    s, w = rows.weight, rows.queries
    near = np.diag(g.between)
    apart = s.T @ rows.both(g.between) @ s + s.T @ ((w * (g.own * rows.apart - near))[:, None] * s)
    met = rows.met(rows.boost)
    own = np.einsum("ij,ik,kj->j", s, rows.both(g.between) * met, s, optimize=True)
    own = own + (w * (g.own * rows.boost / rows.keep - near * np.diag(met))) @ s**2
    return Pairs(rows.at_one_place(own), apart)


@dataclass(frozen=True)
class Logits:
    """What the gradient of logits is made of: V, and its means over rows U (rows, keys) and W (rows, rows)."""

    v: Pairs
    u: np.ndarray
    w: Pairs


def logits(rows: Rows, v: Pairs) -> Logits:
    """Means of the values' pair moments over rows of weights."""
    u = rows.share @ v.between + rows.weight * v.extra
    w = u @ rows.share.T
    own = np.einsum("ij,ij->i", u, rows.share)
    return Logits(v, u, Pairs(own, w))


def queries(rows: Rows, g: Pairs, inner: Logits, k: Pairs, overlap: float | np.ndarray) -> Pairs:
    """dq without scale^2 and features: G_ii' sum_jj' a a' (V - U - U' + W) K.

    Args:
        overlap: chance that two tokens' values meet as their keys do, 1/width: both are read off one input; row by row.
    """
    s, share = rows.weight, rows.share
    x = share @ k.between + s * k.extra
    y = x @ share.T
    mixed = share @ (inner.v.between * k.between) @ share.T
    squares = inner.v.own * k.own - np.diag(inner.v.between) * np.diag(k.between)
    mixed = mixed + (share * squares) @ s.T
    cross = share @ (inner.u * x).T
    total = mixed - cross - cross.T + inner.w.between * y
    y_own = np.einsum("ij,ij->i", x, share)
    exact = np.diag(mixed) - 2 * np.diag(cross) + inner.w.own * y_own
    k_own = k.own - 2 * x + y_own[:, None]
    by_chance = overlap * (1 - rows.concentrated) * (share @ inner.v.extra) * (share @ k.extra)
    own = g.own * (rows.turned * rows.tilted[0] * rows.facing * exact + by_chance)
    own = own + g.own * rows.dropped * ((share * s * k_own) @ inner.v.own)
    return Pairs(rows.at_one_place(own), g.between * total)


def keys(rows: Rows, g: Pairs, inner: Logits, q: Pairs) -> Pairs:
    """dk without scale^2 and features: sum_ii' G Q a_ij a_i'j' (V_jj' - U_i'j - U_ij' + W_ii')."""
    s, h = rows.weight, g * q
    w, turned = rows.queries, rows.turned * rows.tilted[1] * rows.longer
    near = np.diag(h.between)
    apart = _sandwich(rows.both(h.between), inner.v.between, inner.u, inner.w.between, s)
    once = w * (h.own * turned - near)
    apart = apart + _sandwich(np.diag(once), inner.v.between, inner.u, np.diag(inner.w.own), s)
    met = rows.met(turned)
    at_one = np.diag(inner.v.own)
    own = np.diag(_sandwich(rows.both(h.between) * met, at_one, inner.u, inner.w.between, s))
    once = w * (h.own * turned - near * np.diag(met))
    own = own + np.diag(_sandwich(np.diag(once), at_one, inner.u, np.diag(inner.w.own), s))
    own = own + (w * h.own * rows.dropped * (1 - 1 / rows.counts)) @ s**2 * inner.v.own
    return Pairs(rows.at_one_place(own), apart)


def _sandwich(h: np.ndarray, v: np.ndarray, u: np.ndarray, w: np.ndarray, s: np.ndarray) -> np.ndarray:
    """sum_ii' h_ii' s_ij s_i'j' (v_jj' - u_i'j - u_ij' + w_ii')."""
    once = (u * (h @ s)).T @ s
    return v * (s.T @ h @ s) - once - once.T + s.T @ (h * w) @ s
