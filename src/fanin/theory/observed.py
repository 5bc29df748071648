"""Numbers that are known, as a law: what is said of them without saying which is where."""

from __future__ import annotations

import numpy as np

from fanin.theory import grid
from fanin.theory.combine import matched
from fanin.theory.law import Law, constant, fresh_latent
from fanin.theory.state import feature_axes


def observed_law(shape: tuple[int, ...], array: np.ndarray) -> Law:
    """A weight of known values: rows that are all alike are constants a column, others have the law of their values."""
    axes = feature_axes(tuple(shape))
    if array.size != max(array.shape):
        return constant(tuple(shape), axes, array)
    array = array.ravel()
    values = grid.quantile_grid(array, np.ones(array.size))
    values = matched(values, float(array.mean()), float(np.mean(array**2)))
    return Law(tuple(shape), axes, values[None], np.zeros((1,) * len(shape), np.int32), fresh_latent({}))


__all__ = ["observed_law"]
