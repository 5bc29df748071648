"""Levels: places whose elements have one law are told apart from others by a number; those nearly alike are merged."""

from __future__ import annotations

import numpy as np

from fanin.theory import grid, placed
from fanin.theory.moments import moments_of

MAX_LEVELS = 160  # of known numbers, such as biases that grow with distance
MAX_VARIANCES = 48  # of random elements that differ in scale
MANY = 1024  # Gaussians that are laid out on the grid at a time
SMALLEST = 1e-3  # of exponents; one plus what is less is one
CELLS = 1 << 13  # of a range of very many numbers, before they are merged


def compress(
    values: np.ndarray, level: np.ndarray, limit: int | None = None, *, exponents: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Merge equal levels, and beyond ``limit`` near ones; mean squares are kept.

    Args:
        exponents: whether small numbers are to be told apart as well as large ones: an exponential follows.
    """
    count = len(values)
    if count == 1:
        return values, np.zeros((1,) * level.ndim, np.int32)
    weight = placed.counts(level, count).astype(float)
    with np.errstate(all="ignore"):
        own = moments_of(values)
        mean, second = own.means, own.seconds
        slope = own.slopes  # tells z from -z, whose laws agree but not their places' signs
        rms = np.sqrt(second)
        key = np.round(np.stack([np.log(np.maximum(rms, 1e-300)), mean / rms, slope / rms]), 5)  # to five digits each
    key = key if np.isfinite(key).all() else np.nan_to_num(key)
    group = _alike(key)
    if limit is None:
        finite = mean[np.isfinite(mean)]
        limit = MAX_LEVELS if finite.size and np.ptp(finite) > 0 else MAX_VARIANCES
    if group.max() + 1 > limit:
        group = _bins(mean, second, slope, weight, limit, exponents)
    if (group[1:] > group[:-1]).all() and weight.all():  # none are merged, or moved
        return values, _thin(level.astype(np.int32, copy=False))
    merged, group = _merge(values, second, weight, group)
    level = group[level].astype(np.int32)
    return merged, _thin(level)


def _alike(key: np.ndarray) -> np.ndarray:
    """Equal columns of (rows, K) numbered from zero; ``np.unique`` along an axis is much slower."""
    order = np.lexsort(key)
    ordered = key[:, order]
    new = np.concatenate([[False], (ordered[:, 1:] != ordered[:, :-1]).any(0)])
    group = np.empty(len(order), int)
    group[order] = np.cumsum(new)
    return group


def _bins(
    mean: np.ndarray,
    second: np.ndarray,
    slope: np.ndarray,
    weight: np.ndarray,
    limit: int,
    exponents: bool = False,
) -> np.ndarray:
    finite = np.isfinite(mean) & np.isfinite(second)
    if not finite.all():  # minus infinity of a mask is a level of its own, and so is plus infinity
        group = np.where(mean > 0, 1, 0)
        if finite.any():
            inner = _bins(mean[finite], second[finite], slope[finite], weight[finite], limit - 2, exponents)
            group[finite] = inner + 2
        return np.unique(group, return_inverse=True)[1]
    spread = np.sqrt(np.maximum(second - mean**2, 0)) * np.where(slope < 0, -1, 1)
    by = mean if np.ptp(mean) > np.ptp(spread) else spread
    order = np.argsort(by, kind="stable")
    cumulative = np.cumsum(weight[order])
    # half the bins by mass, half by value, so that neither a tail nor the bulk is smeared
    keys = [(cumulative - weight[order] / 2) / cumulative[-1], _of_range(by[order])]
    if exponents:
        keys.append(_of_range(np.arcsinh(by[order] / SMALLEST)))
    bins = limit // len(keys)
    cells = sum(np.minimum(key * bins, bins - 1).astype(int) for key in keys)
    _, joint = np.unique(cells, return_inverse=True)
    group = np.empty(len(mean), int)
    group[order] = joint.ravel()
    return group


def _of_range(numbers: np.ndarray) -> np.ndarray:
    """How far numbers in order are from the first to the last."""
    return (numbers - numbers[0]) / max(numbers[-1] - numbers[0], 1e-300)


def _merge(
    values: np.ndarray, second: np.ndarray, weight: np.ndarray, group: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    count = group.max() + 1
    mass = np.bincount(group, weights=weight, minlength=count)
    used = mass > 0
    share = weight / np.where(mass[group] > 0, mass[group], 1)
    order = np.argsort(group, kind="stable")
    with np.errstate(all="ignore"):
        weighted = values[order]
        weighted *= share[order, None]
        weighted[share[order] == 0] = 0  # also where a value is infinite
        starts = np.searchsorted(group[order], np.arange(count))
        merged = weighted if count == len(group) else np.add.reduceat(weighted, starts, axis=0)
        wanted = np.bincount(group, weights=share * second, minlength=count)
        got = grid.expectation(merged**2)
        factor = np.where((got > 1e-300) & np.isfinite(wanted) & np.isfinite(got), np.sqrt(wanted / got), 1.0)
    merged *= np.where(np.isfinite(factor), factor, 1.0)[:, None]
    renumber = np.cumsum(used) - 1
    return merged[used], renumber[group]


def sums_of(rows: np.ndarray, owner: np.ndarray, count: int) -> np.ndarray:
    """Sums of the rows of each owner, (count, columns); ``np.add.at`` is much slower."""
    found = np.zeros((count, rows.shape[1]))
    for row, of in zip(rows, owner.tolist(), strict=True):
        found[of] += row
    return found


def _thin(array: np.ndarray) -> np.ndarray:
    """Drop axes along which levels, or numbers, are constant to size one."""
    for axis in range(array.ndim):
        first = array.take([0], axis)
        if array.shape[axis] > 1 and (array.strides[axis] == 0 or (array == first).all()):
            array = first
    return array


def relabel(code: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes below ``count`` that occur, and the array in terms of their ranks (``np.unique`` without a sort)."""
    if code.size == 1:
        return code.reshape(1), np.zeros(code.shape, np.int32)
    seen = np.zeros(count, bool)
    seen[code.ravel()] = True
    rank = np.cumsum(seen, dtype=np.int32) - 1
    return np.flatnonzero(seen), rank[code]


def uniform_level(ndim: int) -> np.ndarray:
    """The level of a tensor whose places all have one law."""
    return np.zeros((1,) * ndim, np.int32)


def levels_of(array: np.ndarray, limit: int = MAX_LEVELS) -> tuple[np.ndarray, np.ndarray]:
    """Distinct numbers of an array as levels: (numbers (K,), level with its axes); near ones merged past the limit."""
    numbers, level = _distinct(_thin(array), limit)
    if len(numbers) <= limit:
        return numbers, _thin(level)
    weight = np.bincount(level.ravel(), minlength=len(numbers)).astype(float)
    group = _bins(numbers, numbers**2, np.zeros(len(numbers)), weight, limit)
    count = group.max() + 1
    mass = np.bincount(group, weights=weight, minlength=count)
    mean = np.bincount(group, weights=weight * numbers, minlength=count) / mass
    second = np.bincount(group, weights=weight * numbers**2, minlength=count) / mass
    return np.where(mean < 0, -1, 1) * np.sqrt(second), _thin(group[level].astype(np.int32))


def _distinct(array: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers that occur, in order, and which of them each element is.

    Where there are many more than the limit, those in one of CELLS parts of the range count as one: a sort of 400,000
    places (a map of every sample) takes longer than all that is done with them.
    """
    if array.size > CELLS and np.isfinite(low := array.min()) and np.isfinite(high := array.max()) and low < high:
        cells, level = relabel(((array - low) * ((CELLS - 1) / (high - low))).astype(np.int32), CELLS)
        sample = np.empty(len(cells))
        sample[level] = array
        if (sample[level] == array).all():
            return sample, level
        count = np.bincount(level.ravel())
        if len(cells) > 8 * limit and count.max() < array.size / limit / 4:
            square = np.bincount(level.ravel(), array.ravel() ** 2) / count
            return np.where(sample < 0, -1, 1) * np.sqrt(square), level
    numbers, level = np.unique(array, return_inverse=True)
    return numbers, level.reshape(array.shape).astype(np.int32)


def of_gaussians(
    mean: np.ndarray, variance: np.ndarray, *, exponents: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct means and variances, and the level of every place; very many are merged before they are laid out."""
    numbers, level = of_both(mean, variance)
    if len(numbers[0]) <= MANY:
        return *numbers, level
    weight = np.bincount(level.ravel()).astype(float)
    second = numbers[0] ** 2 + numbers[1]
    group = _bins(numbers[0], second, np.sqrt(numbers[1]), weight, MANY, exponents)
    mass = np.bincount(group, weights=weight)
    mean, second = (np.bincount(group, weights=weight * v) / mass for v in (numbers[0], second))
    return mean, np.maximum(second - mean**2, 0), group[level].astype(np.int32)


def of_both(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct pairs of numbers of two arrays: (pairs (2, K) in order, level); as complex ones they sort faster."""
    numbers, level = np.unique(a + 1j * b, return_inverse=True)
    return np.stack([numbers.real, numbers.imag]), level.reshape(a.shape).astype(np.int32)


def levels_of_squares(array: np.ndarray, limit: int = MAX_LEVELS) -> tuple[np.ndarray, np.ndarray]:
    """The same of numbers that are mean squares: where near ones are merged it is their mean that is kept."""
    numbers, level = levels_of(np.sqrt(np.maximum(array, 0)), limit)
    return numbers**2, level
