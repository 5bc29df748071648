"""Backward through functions of three tensors (where, addcmul)."""

from __future__ import annotations

import numpy as np

from fanin.theory import grid
from fanin.theory.adjoint import sequence
from fanin.theory.adjoint.binary import binary
from fanin.theory.adjoint.cotangent import Cotangent, Part, fresh
from fanin.theory.adjoint.slopes import Function, derivative
from fanin.theory.law import Law
from fanin.theory.records import replace
from fanin.theory.rules.pointwise import joined
from fanin.theory.state import Known


def ternary(fn: Function, g: Cotangent, laws: list[Law], inputs) -> list[list[Part]]:
    """Functions of three (where, addcmul): each operand in turn, the others as one that is known where it can be."""
    result: list[list[Part]] = [[] for _ in laws]
    for i, law in enumerate(laws):
        if isinstance(inputs[i], Known) or law.deterministic:
            continue
        others = [j for j in range(len(laws)) if j != i]
        bound = [j for j in others if laws[j].deterministic or laws[j].latent.aligned(law.latent)]
        if len(bound) == len(others):
            result[i] = binary(*_given(fn, g, laws, i, others))
        else:
            free = [j for j in others if j not in bound]
            apart = any(not laws[j].latent.aligned(laws[free[0]].latent) for j in free)
            if apart or any(len(laws[j].values) > 1 for j in bound if not laws[j].deterministic):
                raise NotImplementedError("the gradient of a function of three independent tensors")
            result[i] = _beside(fn, g, laws, i, free, bound)
    return result


def _given(fn: Function, g: Cotangent, laws: list[Law], i: int, others: list[int]):
    """The function of operand i and of a table of the others' values by joint level."""
    ndim = len(g.law.shape)
    of, level = joined([laws[j] for j in others], ndim)
    tables = {j: laws[j].values[rows] for j, rows in zip(others, of, strict=True)}

    def at(value, index):
        rows = np.broadcast_to(index, np.shape(value))[..., 0].astype(int)
        return fn(*[value if j == i else tables[j][rows] for j in range(len(laws))])

    whole = max((laws[j] for j in others), key=lambda law: np.prod(law.shape))
    index = np.repeat(np.arange(len(of[0]), dtype=float)[:, None], grid.POINTS, axis=1)
    return at, g, laws[i], replace(whole, shape=whole.shape, values=index, level=_cut(level, len(whole.shape)))


def _cut(level: np.ndarray, ndim: int) -> np.ndarray:
    return level.reshape(level.shape[level.ndim - ndim :]) if level.ndim > ndim else level


def _beside(fn: Function, g: Cotangent, laws: list[Law], i: int, free: list[int], bound: list[int]) -> list[Part]:
    """What operand i gets where others on one latent are independent: the mean of the slope squared, as a profile."""
    law = laws[i]
    if any(len(laws[j].values) > 1 for j in (*bound, i, *free)):
        raise NotImplementedError("the gradient of a function of three tensors whose places differ in law")
    z = grid.Z_COARSE
    shape = (grid.COARSE, grid.COARSE)
    mine = {j: np.broadcast_to(grid.at(laws[j].values[0], z)[:, None], shape) for j in (i, *bound)}
    mine |= {j: np.broadcast_to(grid.at(laws[j].values[0], z)[None, :], shape) for j in free}
    slot = lambda v, *rest: fn(*_inserted(rest, i, v))  # noqa: E731
    slope = derivative(slot, mine[i], *[mine[j] for j in range(len(laws)) if j != i])
    form = np.sqrt((slope**2) @ grid.WEIGHT_COARSE)
    values = np.interp(grid.Z_UNIT, z, form)[None]
    if law.shape != g.law.shape:
        raise NotImplementedError("the gradient of a broadcast operand of three")
    return [fresh(g.profile(), g.ratios(), values, sequence.correlation(g))]


def _inserted(rest, i: int, value) -> list:
    return [*rest[:i], value, *rest[i:]]
