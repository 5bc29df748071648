"""Uniformly random (Haar) orthogonal matrices."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fanin.fill import engine
from fanin.fill.keys import Key
from fanin.fill.laws import NORMAL, Law


def orthogonal(rows: int, columns: int, gain: float, key: Key, dtype: np.dtype) -> NDArray:
    """gain times a matrix with orthonormal rows or columns, whichever are fewer; shape (rows, columns)."""
    tall, wide = max(rows, columns), min(rows, columns)
    normal = np.empty(tall * wide, np.float64)
    engine.fill(normal, Law(NORMAL, 1.0), key)
    q, r = np.linalg.qr(normal.reshape(tall, wide))
    q *= np.sign(np.diagonal(r)) * gain
    return (q if rows >= columns else q.T).astype(dtype)
