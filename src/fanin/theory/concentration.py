"""Moments of a row of softmax weights over Gaussian logits: E[sum_j a_j^2], and what its Jacobian lets through.

With S = sum e^{l_j}, 1/S^p = int_0^inf u^{p-1} e^{-uS} du / (p - 1)!, so moments of the weights are integrals over u of
products of A_k(u) = E[(u e^l)^k e^{-u e^l}], one factor a key, taken in log u.

Keys whose length was divided out lie on a sphere of d dimensions: beside a given query their logits are cosines, of
the law of one coordinate (``(1 + cos)/2`` is Beta((d - 1)/2, (d - 1)/2)), whose tails end at ``sqrt(d)`` deviations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from math import factorial

import numpy as np
from scipy.special import betaincinv, ndtr

from fanin.theory import grid
from fanin.theory.records import cached_property
from fanin.theory.uneven import lengths

Table = Callable[[float, np.ndarray, float], np.ndarray]

SHARP = 40.0  # std of logits from which on the largest leads by far: 1 - E[sum a^2] falls as one over the std


STEP_IN_T = 0.25


def _gaussian_nodes(step: float) -> tuple[np.ndarray, np.ndarray]:
    """Evenly spaced nodes of a Gaussian and their weights: for smooth functions as exact as the numbers are."""
    z = np.arange(-grid.HALF_WIDTH, grid.HALF_WIDTH + step, step)
    weight = np.exp(-(z**2) / 2)
    return z, weight / weight.sum()


class _Grid:
    """On a grid of t = log u: t, nodes z and weights of a logit, and (u e^l)^k e^{-u e^l} at each for k up to 4.

    All are analytic within pi/2 of the real t and pi/(2 s) of the real z, so that the trapezoid rule with steps of a
    quarter and of a quarter over s is off by e^(-4 pi^2), 1e-17.
    """

    def __init__(self, s: float, longest: int, sphere: float):
        length, chance = lengths(-sphere) if sphere < 0 else (np.ones(1), np.ones(1))
        reach = s * float(length[-1])
        self.t = np.arange(-np.log(longest) - 6 * reach - 12, 6 * reach + 8, STEP_IN_T)
        self.squares = np.ones(1)
        if sphere < 0:
            each = [(a, c, *_gaussian_nodes(STEP_IN_T / max(s * a, 1.0))) for a, c in zip(length, chance, strict=True)]
            self.z = np.concatenate([a * z for a, _, z, _ in each])
            self.weight = np.concatenate([c * weight for _, c, _, weight in each])
            self.squares = np.concatenate([np.full(len(z), a**2) for a, _, z, _ in each])
        elif sphere > 1:
            self.z, self.weight = grid.refined(4 * s)
            self.z = coordinate(self.z, self.weight, sphere)
        else:
            self.z, self.weight = _gaussian_nodes(STEP_IN_T / max(s, 1.0))
        inner = np.exp(np.minimum(self.t[:, None] + s * self.z, 7.0))  # from exp(6.7) on nothing is left of e^-inner
        self.powers = [np.exp(-inner)]
        for _ in range(4):
            self.powers.append(self.powers[-1] * inner)

    @cached_property
    def log(self) -> dict[int, np.ndarray]:
        """Log A_k for k = 0, 2, 3, 4; for all row lengths."""
        with np.errstate(divide="ignore"):
            return {k: np.log(self.powers[k] @ self.weight) for k in (0, 2, 3, 4)}


def coordinate(z: np.ndarray, weight: np.ndarray, sphere: float) -> np.ndarray:
    """One coordinate of the sphere of that many dimensions and of mean square one, as a function of a latent z."""
    half = (sphere - 1) / 2
    at = np.sign(z) * (1 - 2 * betaincinv(half, half, ndtr(-np.abs(z))))
    return at / np.sqrt(weight @ at**2)


@lru_cache(maxsize=4)
def laplace(s: float, longest: int, sphere: float) -> _Grid:
    return _Grid(s, longest, sphere)


def _moments(variance: float, counts: np.ndarray, keys: tuple[int, ...], sphere: float) -> np.ndarray:
    """E of sum_j a_j^k, or of the sum over pairs of different keys of a_j^k a_j'^k' for two powers."""
    s, n = np.sqrt(variance), counts[:, None]
    found = laplace(float(min(s, SHARP)), int(counts[-1]), sphere)
    t, log = found.t, found.log
    ways = np.prod([np.maximum(n - i, 0.0) for i in range(len(keys))], axis=0)
    left = n - len(keys)
    with np.errstate(invalid="ignore"):
        integrand = np.exp(sum(log[k] for k in keys) + np.where(left > 0, left * log[0], 0.0))
    return ways[:, 0] * np.trapezoid(integrand, t, axis=-1) / factorial(sum(keys) - 1)


def _integrated(variance: float, counts: np.ndarray, sphere: float = 0.0) -> np.ndarray:
    """``concentration`` for row lengths in increasing order."""
    if variance <= 1e-12:
        return 1.0 / counts
    s = np.sqrt(variance)
    found = np.clip(_moments(variance, counts, (2,), sphere), 1.0 / counts, 1.0)
    return 1 - (1 - found) * min(SHARP / s, 1.0)


def concentration(variance: float, n: int) -> float:
    """E[sum_j a_j^2] of softmax over n independent Gaussian logits of the given variance.

    n int A_2 A_0^{n-1} d log u, see the module's docstring.
    """
    return float(_integrated(variance, np.array([max(n, 1.0)]))[0])


def concentrations(variance: float, counts: np.ndarray, sphere: float = 0.0) -> np.ndarray:
    """``concentration`` for many row lengths, interpolated in log n beyond a few dozen distinct ones.

    Args:
        sphere: dimensions of the sphere that keys lie on, 0 where logits are Gaussian, or what stands for long keys.
    """
    return for_many(_integrated, variance, counts, sphere)


STEP = 1 / 16  # of nodes in the log of the variance: cubics between them are good to six digits


def for_many(table: Table, variance: float, counts: np.ndarray, sphere: float) -> np.ndarray:
    counts = np.maximum(np.asarray(counts, float), 1)
    distinct, at, nodes = distinct_lengths(counts)
    found = np.exp(np.interp(at, nodes, _log_at(table, float(variance), distinct, sphere)))
    return found.reshape(counts.shape)


def distinct_lengths(counts: np.ndarray) -> tuple[tuple[float, ...], np.ndarray, np.ndarray]:
    """Row lengths that a table is asked for; logarithms of all lengths, and of these."""
    return _distinct(np.asarray(counts, float).tobytes())


@lru_cache(maxsize=64)
def _distinct(counts: bytes) -> tuple[tuple[float, ...], np.ndarray, np.ndarray]:
    """Row lengths that a table is asked for, the same in every layer; logarithms of all lengths, and of these."""
    lengths = np.frombuffer(counts)
    distinct = np.unique(lengths)
    if len(distinct) > 24:
        distinct = np.unique(np.round(np.geomspace(distinct[0], distinct[-1], 48)))
    return tuple(distinct), np.log(lengths), np.log(distinct)


def _log_at(table: Table, variance: float, distinct: tuple[float, ...], sphere: float = 0.0) -> np.ndarray:
    """Log of a table at a variance, by a cubic through those at four round ones: layers differ by little."""
    if variance <= 1e-6:
        return _log_node(table, 0.0, distinct, sphere)
    if sphere < 0:  # each layer has keys of its own
        return _log_node(table, round(variance, 6), distinct, sphere)
    at = np.log(variance) / STEP
    first = int(np.floor(at)) - 1
    if abs(at * STEP - 2 * np.log(SHARP)) < 4 * STEP:  # the tables have an edge there
        return _log_node(table, variance, distinct, sphere)
    rows = [_log_node(table, float(np.exp(STEP * (first + i))), distinct, sphere) for i in range(4)]
    x = at - first
    weights = [math.prod([(x - j) / (i - j) for j in range(4) if j != i]) for i in range(4)]
    return np.tensordot(weights, np.stack(rows), 1)


@lru_cache(maxsize=4096)
def _log_node(table: Table, variance: float, distinct: tuple[float, ...], sphere: float) -> np.ndarray:
    return np.log(np.maximum(table(variance, np.array(distinct), sphere), 1e-300))


def let_through(variance: float, counts: np.ndarray, sphere: float = 0.0) -> np.ndarray:
    """E[sum_j a_j^2 (1 - 2 a_j + R)], R = sum_k a_k^2: mean square of a row of a_j (t_j - sum_k a_k t_k), t i.i.d.

    From E R - 2 E sum a^3 + E R^2; (1 - 1/n)/n for equal weights, and zero for one that has it all.
    """
    return for_many(_jacobian, variance, counts, sphere)


def _jacobian(variance: float, counts: np.ndarray, sphere: float = 0.0) -> np.ndarray:
    if variance <= 1e-12:
        return (1 - 1 / counts) / counts
    powers = ((2,), (3,), (4,), (2, 2))
    second, third, fourth, pairs = (_moments(variance, counts, keys, sphere) for keys in powers)
    found = np.where(counts > 1, np.maximum(second - 2 * third + fourth + pairs, 0.0), 0.0)
    return found * min(SHARP / np.sqrt(variance), 1.0)


def unequal(variance: float, counts: np.ndarray) -> np.ndarray:
    """Relative variance over rows of R = sum_j a_j^2, from E R^2 = E sum a^4 + E sum_{j != k} a_j^2 a_k^2.

    2 s^4 / n for logits of a small variance s^2, and zero again where one key has it all.
    """
    return for_many(_unequal, variance, counts, 0.0)


def _unequal(variance: float, counts: np.ndarray, sphere: float = 0.0) -> np.ndarray:
    if variance <= 1e-6:
        return 2 * variance**2 / counts
    second, fourth, pairs = (_moments(variance, counts, keys, sphere) for keys in ((2,), (4,), (2, 2)))
    beyond = min((SHARP / np.sqrt(variance)), 1.0)
    return np.maximum((fourth + pairs) / second**2 - 1, 0.0) * beyond


def fluctuating(
    variance: float, counts: np.ndarray, wobble: float, fixed: float = 0.0, sphere: float = 0.0
) -> np.ndarray:
    """``concentrations`` where the variance differs from row to row.

    The logits of a query have a variance in proportion to its squared length, a sum over the d features of a head. That
    is lognormal with the relative variance ``wobble`` (2/d for Gaussian queries), in three nodes of Gauss and Hermite.

    Args:
        variance: of the logits, in the mean over rows.
        fixed: the part of the variance that all rows have alike, such as that of a drawn bias.
        sphere: dimensions of the sphere that keys lie on, 0 where logits are Gaussian, or what stands for long keys.
    """
    if wobble <= 0 or variance * wobble <= 1e-6:
        return concentrations(variance + fixed, counts, sphere)
    factors, weights = query_lengths(wobble)
    rows = [concentrations(variance * f + fixed, counts, sphere) for f in factors]
    return np.tensordot(weights, np.stack(rows), 1)


def query_lengths(wobble: float) -> tuple[np.ndarray, np.ndarray]:
    """Squared lengths of queries of mean one, and how many have them."""
    s = np.sqrt(np.log1p(max(wobble, 0.0)))
    factors = np.exp(s * np.sqrt(3) * np.array([-1.0, 0.0, 1.0]) - s**2 / 2)
    weights = np.array([1.0, 4.0, 1.0]) / 6
    return factors / (weights @ factors), weights


def along_logits(variance: float, counts: np.ndarray, sphere: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """What a row of a_j (t_j - sum_k a_k t_k) has along its logits, over what independence of the two would give.

    A query meets its gradient in ``sum_j a_j t_j (l_j - m)``, m the mean logit under the weights, and a key in each
    term of ``sum_i a_ij (t_ij - sum_k a_ik t_ik) l_ij``; the t are i.i.d. Large logits are where large weights are.

    Returns:
        E[sum_j a_j^2 (l_j - m)^2] and E[sum_j a_j^2 (1 - 2 a_j + R) l_j^2], over ``let_through`` times the variance.
    """
    variance = min(float(np.round(variance, 6)), SHARP**2)
    if variance <= 1e-6:
        return np.ones(len(counts)), np.ones(len(counts))
    base = for_many(_jacobian, variance, counts, sphere) * variance
    found = (for_many(table, variance, counts, sphere) for table in (along_query, _along_key))
    of_query, of_key = (np.where(counts > 1.0001, f / np.maximum(base, 1e-300), 1.0) for f in found)
    return of_query, of_key


def along_query(variance: float, counts: np.ndarray, sphere: float = 0.0) -> np.ndarray:
    """E sum a^2 l^2 - 2 E sum a^2 l m + E sum a^2 m^2, by which of the keys of a product are the same."""
    term = _Weighted(variance, counts, sphere)
    whole = term((2, 2)) - 2 * (term((3, 2)) + term((2, 1), (1, 1))) + term((4, 2)) + term((2, 0), (2, 2))
    return whole + 2 * term((3, 1), (1, 1)) + term((2, 0), (1, 1), (1, 1))


def _along_key(variance: float, counts: np.ndarray, sphere: float = 0.0) -> np.ndarray:
    term = _Weighted(variance, counts, sphere)
    return term((2, 2)) - 2 * term((3, 2)) + term((4, 2)) + term((2, 0), (2, 2))


def _in_common(moment: Table, variance: float, counts: np.ndarray, sphere: float) -> np.ndarray:
    """A moment of the weights and logits of rows; zero where there is one key, or no logits to speak of."""
    variance = min(float(np.round(variance, 6)), SHARP**2)
    if variance <= 1e-6:
        return np.zeros(len(counts))
    return np.where(counts > 1.0001, for_many(moment, variance, counts, sphere), 0.0)


def key_beside_value(variance: float, counts: np.ndarray, sphere: float = 0.0) -> np.ndarray:
    """E[sum_j a_j^2 (1 - a_j) l_j]: what keys and values have in common along their gradients."""
    return _in_common(_key_beside_value, variance, counts, sphere)


def _key_beside_value(variance: float, counts: np.ndarray, sphere: float) -> np.ndarray:
    term = _Weighted(variance, counts, sphere)
    return term((2, 1)) - term((3, 1))


def query_beside_result(variance: float, counts: np.ndarray, sphere: float = 0.0) -> np.ndarray:
    """E[sum_j a_j^2 (l_j - m)], m the mean logit under the weights: what queries have along the row's result."""
    return _in_common(_query_beside_result, variance, counts, sphere)


def _query_beside_result(variance: float, counts: np.ndarray, sphere: float) -> np.ndarray:
    term = _Weighted(variance, counts, sphere)
    return term((2, 1)) - term((3, 1)) - term((2, 0), (1, 1))


def leaning(variance: float, counts: np.ndarray, sphere: float) -> np.ndarray:
    """What stands for ``(1 - A)^2`` in what weights lean to (``overlap``) where keys lie on a sphere.

    Of a key of length one the cosine is along the query, and the rest is less for it: over d features
    ``E|sum_j a_j k_j|^2`` exceeds ``A`` by the sum over *different* keys of ``E[a_j a_k cos_j cos_k]``.
    """
    return for_many(_crossed, variance, counts, sphere)


def _crossed(variance: float, counts: np.ndarray, sphere: float) -> np.ndarray:
    if variance <= 1e-12:
        return (1 - 1 / counts) ** 2
    found = _Weighted(min(variance, SHARP**2), counts, sphere)((1, 1), (1, 1))
    return found / variance**2


def turned_away(variance: float, counts: np.ndarray, sphere: float, width: float) -> np.ndarray:
    """By what the mean square of a logit's gradient is smaller for keys of one length, whose values know of them.

    A key that lies along the query has so much less across it, ``sin^2 = 1 - z^2 / d`` of a z that is d times a cosine
    squared, and what a value has of the key with it: of n features, of which keys see ``d / n``, the own part
    ``t_j - sum_k a_k t_k`` loses ``z_j^2 / n`` and gains ``(z_j - m)^2 / n`` along the query (see ``along_logits``).
    """
    of_query, of_key = along_logits(variance, counts, sphere)
    return np.clip(1 + (of_query - of_key) / width, 0.0, 1.0)


def across(variance: float, counts: np.ndarray, sphere: float) -> np.ndarray:
    """``(1 - E[sum_j a_j z_j^2] / d)^2``: the squared share across the query that keys on a sphere are left with."""
    found = np.stack([_mean_square(variance, np.array([n]), sphere) for n in np.atleast_1d(counts)])[:, 0]
    return np.clip(1 - found / sphere, 0.0, 1.0) ** 2


def _mean_square(variance: float, counts: np.ndarray, sphere: float) -> np.ndarray:
    if variance <= 1e-6:
        return np.ones(len(counts))
    return _Weighted(min(variance, SHARP**2), counts, sphere)((1, 2)) / variance


class _Weighted:
    """E of the sum over different keys of products of a_j^k l_j^m, from A_km(u) = E[(u e^l)^k l^m e^{-u e^l}]."""

    def __init__(self, variance: float, counts: np.ndarray, sphere: float):
        self.s, self.n = float(np.sqrt(variance)), counts[:, None]
        self.grid = laplace(self.s, int(counts[-1]), sphere)
        self.means: dict[tuple[int, int], np.ndarray] = {}
        self.t, self.none = self.grid.t, self.grid.log[0]

    def __call__(self, *powers: tuple[int, int]) -> np.ndarray:
        ways = np.prod([np.maximum(self.n - i, 0.0) for i in range(len(powers))], axis=0)[:, 0]
        factors = np.prod([self._mean_power(*p) for p in powers], axis=0)
        with np.errstate(over="ignore", invalid="ignore"):
            rest = np.where(self.n > len(powers), np.exp((self.n - len(powers)) * self.none), 1.0)
            rest = np.where(self.n >= len(powers), rest, 0.0)
        return ways * np.trapezoid(factors * rest, self.t, axis=-1) / factorial(sum(k for k, _ in powers) - 1)

    def _mean_power(self, k: int, m: int) -> np.ndarray:
        """A_km on the grid of ``laplace``."""
        if (k, m) not in self.means:
            self.means[k, m] = self.grid.powers[k] @ (self.grid.weight * (self.s * self.grid.z) ** m)
        return self.means[k, m]
