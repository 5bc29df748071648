"""The counter-based generator: Philox4x32-10, four random 32-bit words for each 128-bit counter.

Counter-based means that word j of counter c is a pure function of (key, c, j): any piece of any tensor is drawn
without drawing what comes before it. ``rounds`` is written so that the same lines run over NumPy arrays (the
reference) and, compiled, over single numbers (the kernels).

Source: Salmon, Moraes, Dror & Shaw 2011, Parallel random numbers: as easy as 1, 2, 3, doi:10.1145/2063384.2063405.
Ten rounds, the authors' recommendation: seven pass BigCrush, the other three are the safety margin.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fanin.fill.keys import Key

LOW = np.uint64(0xFFFFFFFF)
HIGH = np.uint64(32)
MULTIPLIER_0, MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
WEYL_0, WEYL_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)


def rounds(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> tuple[Any, Any, Any, Any]:
    """Ten rounds on 32-bit words held in uint64; the upper half of what comes back is rubbish, mask it with LOW.

    The rubbish is on purpose: a product takes only the lower halves anyway, so the vector code needs no masks.
    """
    for _ in range(10):
        p0 = (c0 & LOW) * MULTIPLIER_0
        p1 = (c2 & LOW) * MULTIPLIER_1
        c0 = (p1 >> HIGH) ^ c1 ^ k0
        c1 = p1
        c2 = (p0 >> HIGH) ^ c3 ^ k1
        c3 = p0
        k0 = (k0 + WEYL_0) & LOW
        k1 = (k1 + WEYL_1) & LOW
    return c0, c1, c2, c3


def words(key: Key, counters: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """The four words of each counter. Shape: (n,) -> (4, n).

    Args:
        key: from ``keys.key``; c2 and c3 are the upper 64 bits of every counter.
        counters: the lower 64 bits.

    Example:
        >>> [f"{w:08x}" for w in words(Key(0, 0, 0, 0), np.zeros(1, np.uint64))[:, 0]]
        ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    counters = np.atleast_1d(np.asarray(counters, np.uint64))
    c2, c3 = np.full_like(counters, key.c2), np.full_like(counters, key.c3)
    out = rounds(counters & LOW, counters >> HIGH, c2, c3, np.uint64(key.k0), np.uint64(key.k1))
    return np.stack([(word & LOW).astype(np.uint32) for word in out])
