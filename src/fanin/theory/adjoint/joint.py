"""Joint levels: which laws of operands and of a result meet at one place, and how often."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from fanin.theory import grid
from fanin.theory.adjoint.cotangent import Part
from fanin.theory.law import Law, relabel
from fanin.theory.levels import sums_of

ALIKE = 0.05
"""Levels whose functions differ by less than this, relative to their rms, count as one: an error of its square."""


@lru_cache(maxsize=8)  # all parts of a cotangent ask for the same; nothing may be written to it
def levels_onto(out: Law, x: Law) -> np.ndarray | None:
    """For every level of x the level of the result at its places; None where one level of x has several."""
    if len(out.values) == 1:
        return np.zeros(len(x.values), int)
    if len(out.values) == len(x.values) and np.array_equal(out.level, x.level):
        return np.arange(len(x.values))
    shape = np.broadcast_shapes(out.level.shape, (1,) * (out.level.ndim - x.level.ndim) + x.level.shape)
    a, b = np.broadcast_to(out.level, shape), np.broadcast_to(x.level, shape)
    codes, _ = relabel(b.astype(np.int64) * len(out.values) + a, len(x.values) * len(out.values))
    owners = codes // len(out.values)
    if len(owners) != len(np.unique(owners)):
        return None
    onto = np.zeros(len(x.values), int)
    onto[owners] = codes % len(out.values)
    return onto


def joint_with(out: Law, x: Law) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Joint levels of an operand and the result: the level of each, and its share within its level of the operand."""
    shape = np.broadcast_shapes(out.level.shape, (1,) * (out.level.ndim - x.level.ndim) + x.level.shape)
    a, b = np.broadcast_to(out.level, shape), np.broadcast_to(x.level, shape)
    codes, level = relabel(b.astype(np.int64) * len(out.values) + a, len(x.values) * len(out.values))
    weight = np.bincount(level.ravel(), minlength=len(codes)) / level.size
    of_x = codes // len(out.values)
    return of_x, codes % len(out.values), weight / np.bincount(of_x, weights=weight, minlength=len(x.values))[of_x]


def one_a_level(values: np.ndarray, of_x: np.ndarray, share: np.ndarray, count: int) -> np.ndarray | None:
    """The mean function of each level of x, where joint levels differ by no more than what forward merged; else None.

    Forward merges levels that are nearly alike, after each operation anew: a factor may then have two levels where x
    has one. Their mean keeps the base, and with it the sign in which this part adds to others.
    """
    table = sums_of(share[:, None] * values, of_x, count)
    spread = grid.expectation((values - table[of_x]) ** 2)
    if np.all(spread <= ALIKE**2 * grid.expectation(values**2)):
        return table
    return None


def one_where_it_is(part: Part, out: Law, values: np.ndarray, of_out: np.ndarray) -> float | None:
    """The number that a function of joint levels is wherever the part is not zero (a mask took the rest); else None."""
    if part.second.size == 1 or len(out.values) == 1:
        return None
    shape = np.broadcast_shapes(part.second.shape, out.level.shape)
    largest = np.zeros(len(out.values))
    np.maximum.at(largest, np.broadcast_to(out.level, shape).ravel(), np.broadcast_to(part.second, shape).ravel())
    used = values[(largest > 1e-12 * largest.max())[of_out]]
    one = used.size > 0 and np.ptp(used) <= 1e-6 * np.abs(used).max()
    return float(used.mean()) if one else None


@lru_cache(maxsize=4)  # as with levels
def joint(out: Law, x: Law, y: Law) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Joint levels of x, y and the result: their levels, and each joint level's share within its level of x."""
    ndim = out.level.ndim
    lay = lambda lv: lv.reshape((1,) * (ndim - lv.ndim) + lv.shape)  # noqa: E731
    lx, ly, lo = lay(x.level), lay(y.level), out.level
    code = (lx.astype(np.int64) * len(y.values) + ly) * len(out.values) + lo
    count = len(x.values) * len(y.values) * len(out.values)
    codes, level = relabel(code, count) if count < 5_000_000 else np.unique(code, return_inverse=True)
    weight = np.bincount(level.ravel(), minlength=len(codes)) / level.size
    of_x, of_y, of_out = (
        codes // (len(y.values) * len(out.values)),
        codes // len(out.values) % len(y.values),
        codes % len(out.values),
    )
    mass = np.bincount(of_x, weights=weight, minlength=len(x.values))
    return of_x, of_y, of_out, weight / mass[of_x]


def factor_profile(out: Law, x: Law, y: Law, values, of_x, of_y, of_out) -> np.ndarray:
    """E of the squared factor at every place, from its values at joint levels."""
    ndim = out.level.ndim
    lay = lambda lv: lv.reshape((1,) * (ndim - lv.ndim) + lv.shape)  # noqa: E731
    code = (lay(x.level).astype(np.int64) * len(y.values) + lay(y.level)) * len(out.values) + out.level
    joint = (of_x * len(y.values) + of_y) * len(out.values) + of_out
    squares = grid.expectation(values**2)
    return squares[np.searchsorted(joint, code)]
