"""Lags along the axes of a map that are told apart, and what is known of each: tables of knots, and of known pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from fanin.theory.records import remembered
from fanin.theory.state import Known

KNOTS = (0, 1, 2, 3, *(k << n for n in range(1, 30) for k in (2, 3)))
"""Lags that are told apart: twice a knot is one, so that strides of two read what is known."""

READ = 1 << 23
LARGEST = 1 << 26
"""Numbers of maps with their padding that are read of a batch (two maps at least), and of one map."""


@lru_cache(maxsize=256)
def knots(n: int) -> np.ndarray:
    """Lags along an axis of n places that are told apart; the largest is the last."""
    return np.array([*(k for k in KNOTS if k < n - 1), n - 1]) if n > 1 else np.zeros(1, int)


def between(n: int, lags: np.ndarray) -> np.ndarray:
    """Weights of an axis' knots for lags of either sign, (lags, knots): linear, and the last knot's beyond it."""
    left, share, count = _placed(n, lags)
    found, rows = np.zeros((len(left), count)), np.arange(len(left))
    found[rows, left] = 1 - share
    found[rows, np.minimum(left + 1, count - 1)] += share
    return found


def _placed(n: int, lags: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Of lags of either sign the knot before, how far it is to the next, and how many knots there are."""
    own = knots(n)
    at = np.minimum(np.abs(lags), n - 1)
    left = np.clip(np.searchsorted(own, at, "right") - 1, 0, max(len(own) - 2, 0))
    width = own[np.minimum(left + 1, len(own) - 1)] - own[left]
    return left, np.where(width > 0, (at - own[left]) / np.maximum(width, 1), 0.0), len(own)


def along(table: np.ndarray, matrices: Sequence[np.ndarray]) -> np.ndarray:
    """A table of knots with a matrix (new, old) for each of its axes."""
    for i, m in enumerate(matrices):
        table = np.moveaxis(np.tensordot(m, table, (1, i)), 0, i)
    return table


@lru_cache(maxsize=256)
def _counts(sizes: tuple[int, ...]) -> np.ndarray:
    """Share of each knot among the pairs of different places."""
    whole = np.ones(())
    for n in sizes:
        at = np.arange(n)
        often = np.where(at > 0, 2.0, 1.0) * (n - at) / n**2
        left, share, count = _placed(n, at)
        row = np.bincount(left, often * (1 - share), count + 1) + np.bincount(left + 1, often * share, count + 1)
        whole = np.multiply.outer(whole, row[:count])
    alone = 1 / np.prod(sizes)
    whole[(0,) * len(sizes)] -= alone
    return whole / (1 - alone)


def mean(table: np.ndarray, sizes: tuple[int, ...]) -> float:
    """Mean over pairs of different places of what is known by lag."""
    return float((_counts(sizes) * table).sum())


def levelled(table: np.ndarray, own: float, pair: float, sizes: tuple[int, ...]) -> np.ndarray:
    """A table whose deviations from what a place has with itself are in proportion, with this mean over pairs."""
    left = own - mean(table, sizes)
    factor = (own - pair) / left if left > 1e-12 * abs(own) else 1.0
    return own - (own - table) * factor


@remembered
def products(x: Known) -> np.ndarray | None:
    """Mean product of two pixels of a channel by lag, over lags of either sign; None of what is too large.

    Of many maps every few are read.
    """
    sizes = x.shape[2:]
    padded = [1 << (2 * n - 1).bit_length() for n in sizes]
    if x.array.size == 0 or np.iscomplexobj(x.array) or math.prod(padded) > LARGEST:
        return None
    maps = x.array.reshape(-1, *sizes)
    maps = maps[:: -(-len(maps) // max(READ // math.prod(padded), 2))]
    axes = tuple(range(len(sizes)))
    spectrum = sum((np.abs(np.fft.rfftn(np.asarray(one, float), padded, axes)) ** 2 for one in maps), np.zeros(()))
    found = np.fft.irfftn(spectrum, padded, axes) / len(maps)  # sums of products of a map and its shifts
    for i, n in enumerate(sizes):
        both = (np.take(found, np.arange(n), i) + np.take(found, -np.arange(n), i)) / 2
        found = both / (n - np.arange(n)).reshape((-1,) + (1,) * (found.ndim - i - 1))  # places that are so far apart
        found = np.take(found, knots(n), i)
    return found


__all__ = ["along", "between", "knots", "levelled", "mean", "products"]
