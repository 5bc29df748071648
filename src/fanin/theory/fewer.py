"""Joint levels of two tensors, too many for a quadrature over each: those whose operands are alike are merged."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fanin.theory import given, grid
from fanin.theory.law import FEATURE, Law
from fanin.theory.levels import sums_of
from fanin.theory.records import replace

Function = Callable[..., np.ndarray]

PAIRS = 24  # joint levels for which the quadrature over pairs of latents is done
KINDS = 64  # the same where levels tell features apart, as kinds of channels do


def most(shared: Law) -> int:
    """Joint levels for which the quadrature over pairs of latents is done."""
    return KINDS if FEATURE in shared.level_groups else PAIRS


def fewer(both: given.Operands, shared: Law, fn: Function) -> tuple[given.Operands, Law, np.ndarray]:
    """Merge joint levels whose operands are alike before the quadrature over pairs; and which each is one of."""
    fx, fy = both.fx, both.fy
    weight = np.bincount(shared.level.ravel(), minlength=len(fx)).astype(float)
    second = fn(*both.sizes)
    group = _bins(np.abs(second), weight, most(shared))
    mass = np.bincount(group, weights=weight)
    out = []
    for f, size in zip((fx, fy), both.sizes, strict=True):
        sums = sums_of((weight / mass[group])[:, None] * f, group, len(mass))
        wanted = np.bincount(group, weights=weight / mass[group] * size)
        got = grid.expectation(sums**2)
        out.append(sums * np.sqrt(np.where(got > 0, wanted / np.where(got > 0, got, 1), 1))[:, None])
    merged = both.merged(out[0], out[1], group, weight)
    return merged, replace(shared, level=group[shared.level].astype(np.int32)), group


def each(values: np.ndarray, group: np.ndarray, own: given.Operands, merged: given.Operands) -> np.ndarray:
    """Of merged levels of a product those that were merged: of the same form, each of its own size."""
    size, of_group = np.multiply(*own.sizes), np.multiply(*merged.sizes)[group]
    return values[group] * np.sqrt(np.divide(size, of_group, out=np.ones_like(size), where=of_group > 0))[:, None]


def _bins(size: np.ndarray, weight: np.ndarray, limit: int) -> np.ndarray:
    """Half the bins by mass, half by the size's logarithm: a class token is one place of many, and small beside them.

    What divides by a deviation, as gradients through a norm do, sees most of the smallest places.
    """
    half = limit // 2
    order = np.argsort(size, kind="stable")
    mass = (np.cumsum(weight[order]) - weight[order] / 2) / weight.sum()
    log = np.log(np.maximum(size[order], 1e-12 * max(float(size.max()), 1e-288)))
    value = (log - log[0]) / max(float(log[-1] - log[0]), 1e-300)
    bins = sum(np.minimum(part * half, half - 1).astype(int) for part in (mass, value))
    group = np.empty(len(size), int)
    group[order] = np.unique(bins, return_inverse=True)[1].ravel()
    return group
