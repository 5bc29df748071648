"""What a softmax lets through where keys are alike, some more than others.

``rows`` has the pair moments of keys and values position by position, with equal weights, and the softmax as one
factor: that of independent logits, which single out keys, ``E[a_j^2] ~ e^(s^2) E[a_j]^2``. Keys of a stream that is
made of means over what came before are alike from place to place, and so are their logits: a row then leans to a
stretch of the sequence, over which ``dq_i = s sum_j dl_ij k_j`` hardly changes. With logits of covariance ``L = s2 K``
the sums

    F(a) = sum_jj' a_j a_j' (V_jj' - U_j - U_j' + W)(K_jj' - X_j - X_j' + Y),    U = V a, W = a U, X = K a, Y = a X,

are averaged over weights ``a ~ p exp(l)``, at points of the latent Gaussians laid out evenly along the directions in
which L is largest. What comes of it is told as a factor on that of independent logits at the same points. A run of w
keys has of what each has by itself, of variance v, ``log(1 + (e^v - 1)/w)`` together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import ndtri

from fanin.theory.adjoint.rows import Logits, Pairs, Rows

POINTS = 128
"""And as many opposite ones."""
EVEN = 6
"""Directions along which points are laid out evenly; drawn once along all others."""
ROWS = 8
"""Rows that are looked at; the others lie between."""
SLIGHT = 0.01
"""Variance of logits below which weights are as good as equal."""
LARGEST = 30.0
"""Of a key's own variance, in exponents."""
STEP = 1 / 8
"""Of nodes in the log of a variance."""


def factors(
    rows: Rows, inner: Logits, k: Pairs, per: float, variance: float, drawn: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Of every row: of what queries get and of what keys get, over that of independent logits.

    Args:
        k: pair moments of keys.
        per: variance of logits to the mean square of keys.
        variance: of logits as ``rows.turned`` has it, of what the mean key has by itself, and of drawn biases.
        drawn: of biases alone.
    """
    count = len(rows.counts)
    if count == 1 or variance < SLIGHT or not np.ptp(k.between) > SLIGHT * np.mean(k.own):
        return np.ones(count), np.ones(count)
    at = np.unique(np.round(np.geomspace(1, count, min(ROWS, count))).astype(int)) - 1
    found = np.array([_of_row(_seen(rows, i, inner, k), per, variance, drawn) for i in at]).T
    of_queries, of_keys = (np.interp(np.log1p(np.arange(count)), np.log1p(at), f) for f in found)
    return of_queries, of_keys


@dataclass(frozen=True)
class _Row:
    """Of one row: shares and widths of runs, and pair moments of values and keys, between places and of each alone."""

    share: np.ndarray
    width: np.ndarray
    v: np.ndarray
    k: np.ndarray
    v_own: np.ndarray
    k_own: np.ndarray

    def sums(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """What queries and keys get of weights (points, runs), of which each key has ``b``: shape (2, points)."""
        u, x = a @ self.v + b * self.v_own, a @ self.k + b * self.k_own
        v, k = self.v.diagonal(), self.k.diagonal()
        both, over = a * b, a * u
        mixed = np.einsum("pi,pi->p", a @ (self.v * self.k), a)
        mixed += both @ (self.v_own * self.k_own + self.v_own * k + self.k_own * v)
        w, y = over.sum(1), np.einsum("pi,pi->p", a, x)
        of_keys = both @ (v + self.v_own) - 2 * np.einsum("pi,pi->p", both, u) + w * both.sum(1)
        return np.array([mixed - 2 * np.einsum("pi,pi->p", over, x) + w * y, of_keys])

    def passed(self, per: float, drawn: float) -> np.ndarray:
        """Mean of the sums over logits, over those of equal weights."""
        own = np.minimum(per * self.k_own + drawn, LARGEST)
        p = self.share[None]
        equal = self.sums(p, p / self.width)[:, 0]
        together = self.k - (x := self.k @ self.share)[:, None] - x + x @ self.share
        covariance = per * together + np.diag(np.log1p(np.expm1(own) / self.width))
        size, along = np.linalg.eigh(covariance)
        logits = _points(len(size)) @ (along * np.sqrt(np.maximum(size, 0.0)))[:, ::-1].T
        a, b = self.weights(logits, own)
        return self.sums(a, b).mean(1) / np.where(equal > 0, equal, np.inf)

    def weights(self, logits: np.ndarray, own: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        """Of runs, and of which each key has what it has by itself."""
        a = self.share * np.exp(logits - logits.max(1, keepdims=True))
        a /= a.sum(1, keepdims=True)
        return a, a * np.exp(own) / (self.width - 1 + np.exp(own))

    def alone(self, variance: float) -> np.ndarray:
        """The same of keys and values that have nothing in common: ``sums`` of ones by themselves.

        By a cubic through round variances, in logarithms: layers look at the same runs, and their logits differ little.
        """
        at = np.log(min(variance, LARGEST)) / STEP
        first = int(np.floor(at)) - 1
        rows = [np.log(_alone(self.share.tobytes(), self.width.tobytes(), first + i)) for i in range(4)]
        x = at - first
        weights = [math.prod([(x - j) / (i - j) for j in range(4) if j != i]) for i in range(4)]
        return np.exp(np.tensordot(weights, np.stack(rows), 1))


@lru_cache(maxsize=256)
def _alone(share: bytes, width: bytes, step: int) -> np.ndarray:
    """``_Row.alone`` at a round variance."""
    row = _Row(np.frombuffer(share), np.frombuffer(width), *(np.zeros(0),) * 4)
    own = float(np.exp(STEP * step))
    size = np.sqrt(np.log1p(np.expm1(own) / row.width))
    order, logits = np.argsort(size)[::-1], np.empty((2 * POINTS, len(size)))
    logits[:, order] = _points(len(size)) * size[order]
    a, b = row.weights(logits, own)
    equal = _independent(row.share[None], (row.share / row.width)[None])[:, 0]
    return np.maximum(_independent(a, b).mean(1) / np.where(equal > 0, equal, np.inf), 1e-300)


def _independent(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``sums`` of keys and values that have a mean square of one each, by themselves."""
    each = a * b
    w = each.sum(1)
    of_keys = w - 2 * (each * b).sum(1) + w**2
    return np.array([of_keys, of_keys])


def _seen(rows: Rows, i: int, inner: Logits, k: Pairs) -> _Row | None:
    """A row's keys; None where it sees one."""
    seen = rows.share[i] > 0
    if not (rows.counts[i] > 1.0001 and seen.sum() > 1):
        return None
    pick = np.ix_(seen, seen)
    moments = inner.v.between[pick], k.between[pick], inner.v.extra[seen], k.extra[seen]
    return _Row(rows.share[i][seen], rows.keys[seen], *moments)


def _of_row(row: _Row | None, per: float, variance: float, drawn: float) -> np.ndarray:
    if row is None:
        return np.ones(2)
    alone, found = row.alone(variance), row.passed(per, drawn)
    return np.divide(found, alone, out=np.ones(2), where=(alone > 1e-300) & (found > 0))


@lru_cache(maxsize=64)
def _points(dims: int) -> np.ndarray:
    """Points of a Gaussian of that many dimensions, mean zero and variance one: multiples of powers of a golden ratio.

    ``x^(d + 1) = x + 1`` has the root whose powers are furthest from fractions of each other.
    """
    golden = 2.0
    for _ in range(60):
        golden = (1 + golden) ** (1 / (EVEN + 1))
    even = (0.5 + np.outer(np.arange(1, POINTS + 1), golden ** -np.arange(1.0, EVEN + 1))) % 1
    drawn = np.random.default_rng(0).random((POINTS, max(dims - EVEN, 0)))
    z = ndtri(np.concatenate([even, drawn], 1)[:, :dims])
    z = np.concatenate([z, -z])
    return z / np.sqrt((z**2).mean(0))
