"""Keys that no row looks at, behind a mask: they get nothing, the others so much more than the mean over all keys.

Where one row stands for all, sums over rows are means over keys. A mask that hides the same keys from every row (blocks
that are filled up, padding) tells the keys apart again; pairs of places of which one gets nothing have nothing.
"""

from __future__ import annotations

import numpy as np

from fanin.theory.adjoint.cotangent import Part
from fanin.theory.adjoint.thinned import thinned
from fanin.theory.law import Law
from fanin.theory.records import replace


def by_any_row(weights: Law) -> np.ndarray | None:
    """Which keys rows of weights (..., queries, keys) look at at all; None where that is all of them."""
    mean = weights.profile(weights.means)
    there = np.any(mean.reshape(-1, mean.shape[-1]) > 0, axis=0)
    return None if there.size == 1 or np.all(there) or not np.any(there) else there


def alone(part: Part, law: Law, there: np.ndarray | None, axis: int) -> Part:
    """The part of keys or values, along an axis of whose places only those have a gradient."""
    if there is None or part.second.shape[axis] != 1 or len(there) != law.shape[axis]:
        return part
    shape = [1] * part.second.ndim
    shape[axis] = len(there)
    second = part.second * (there / there.mean()).reshape(shape)
    return replace(part, second=second, ratio=thinned(part, second, law))
