"""Places of a tensor by level, counted and summed once for an array of levels, however many laws and parts have it.

A view of a tensor, its cast or another latent keeps the array of levels, and parts of a cotangent that came through one
operation one array of mean squares. Maps of many samples have hundreds of thousands of places and some dozens of
levels: a mean over places of a number of each level is one over levels. Neither array is ever written to.
"""

from __future__ import annotations

import weakref

import numpy as np

_known: dict[tuple[int, int], tuple[tuple[weakref.ref[np.ndarray], ...], np.ndarray]] = {}


def _forget(key: tuple[int, int], pop=_known.pop) -> None:
    pop(key, None)


def _kept(arrays: tuple[np.ndarray, ...], key: tuple[int, int], found: np.ndarray) -> np.ndarray:
    _known[key] = tuple(weakref.ref(a, lambda _: _forget(key)) for a in arrays), found
    return found


def counts(level: np.ndarray, count: int) -> np.ndarray:
    """How many places there are of each of ``count`` levels."""
    key = id(level), 0
    found = _known.get(key)
    if found is not None and found[0][0]() is level and len(found[1]) == count:
        return found[1]
    return _kept((level,), key, np.bincount(level.ravel(), minlength=count))


def sums(numbers: np.ndarray, level: np.ndarray, count: int) -> tuple[np.ndarray, int]:
    """Sums over the places of each level of what places have, and of how many places in all.

    Args:
        numbers: of places, with the axes of the level, each full or of size one.
    """
    if numbers.size == 1:
        return counts(level, count) * numbers.item(), level.size
    shape = numbers.shape if numbers.shape == level.shape else np.broadcast_shapes(numbers.shape, level.shape)
    size = int(np.prod(shape))
    key = id(level), id(numbers)
    found = _known.get(key)
    if found is not None and found[0][0]() is level and found[0][1]() is numbers and len(found[1]) == count:
        return found[1], size
    of, what = (np.broadcast_to(a, shape).ravel() for a in (level, numbers))
    return _kept((level, numbers), key, np.bincount(of, what, minlength=count)), size


__all__ = ["counts", "sums"]
