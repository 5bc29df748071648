"""The specification of every element-wise draw, in NumPy: what the kernels must match bit for bit.

A stream is cut into blocks of 256 counters. In a block of float32 values (1024 of them) word j of counter k makes
value 256 j + k; words (0, 1) and (2, 3) are the pairs of Box and Muller. In a block of float64 values (512) words
(0, 1) make value k and words (2, 3) value 256 + k, and these two are the pair.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fanin.fill import arithmetic as single
from fanin.fill import arithmetic64 as double
from fanin.fill import laws, philox
from fanin.fill.keys import Key
from fanin.fill.laws import Law

COUNTERS = 256
BLOCK = {np.dtype(np.float32): 1024, np.dtype(np.uint32): 1024, np.dtype(np.float64): 512}
_AT_ONCE = 64  # blocks drawn together: large enough to spread NumPy's overhead, small enough for the cache


def fill(out: NDArray, law: Law, key: Key, start: int = 0) -> None:
    """Values ``start`` .. ``start + out.size`` of a stream, into a 1-D float32, float64 or (for words) uint32 array."""
    size = BLOCK[out.dtype]
    first, stop = start // size, -(-(start + out.size) // size)
    for block in range(first, stop, _AT_ONCE):
        values = _blocks(law, key, block, min(block + _AT_ONCE, stop), out.dtype)
        low = max(start - block * size, 0)
        at = block * size + low - start
        piece = values[low : low + out.size - at]
        out[at : at + piece.size] = piece


def _blocks(law: Law, key: Key, first: int, stop: int, dtype: np.dtype) -> NDArray:
    counters = np.arange(first * COUNTERS, stop * COUNTERS, dtype=np.uint64)
    words = philox.words(key, counters)  # (4, counters)
    if law.code == laws.BITS:
        rows = words
    else:
        with np.errstate(invalid="ignore"):  # a square root in the half of a choice that is not taken
            unit = _unit32(law, words) if dtype == np.float32 else _unit64(law, words)
        rows = unit * dtype.type(law.scale) + dtype.type(law.shift)
    return rows.reshape(len(rows), -1, COUNTERS).swapaxes(0, 1).reshape(-1)


def _unit32(law: Law, words: NDArray[np.uint32]) -> NDArray[np.float32]:
    if law.code == laws.NORMAL:
        r = single.radius32(words[::2])
        cos, sin = single.turn32(words[1::2])
        return np.stack([r * cos, r * sin], axis=1).reshape(words.shape)
    if law.code == laws.TRUNCATED:
        edge, tail, bound = (np.full(1, x, np.float32) for x in (law.edge, law.tail, law.bound))
        return single.quantile32(words, edge, tail, bound, law.bound > laws.FAR)
    return single.signed_unit32(words) if law.code == laws.UNIFORM else single.sign32(words)


def _unit64(law: Law, words: NDArray[np.uint32]) -> NDArray[np.float64]:
    bits = double.join(words[::2], words[1::2])  # (2, counters)
    if law.code == laws.NORMAL:
        r = double.radius64(bits[0])
        cos, sin = double.turn64(bits[1])
        return np.stack([r * cos, r * sin])
    if law.code == laws.TRUNCATED:
        edge, tail, bound = (np.full(1, x) for x in (law.edge, law.tail, law.bound))
        return double.quantile64(bits, edge, tail, bound, law.bound > laws.FAR)
    return double.signed_unit64(bits) if law.code == laws.UNIFORM else double.sign64(bits)
