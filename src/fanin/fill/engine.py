"""Where streams meet memory: chooses the compiled kernels or the NumPy reference, which give the same bits.

Kernels cost half a second to load (numba's import), so a process that draws little goes by the reference alone.
``FANIN_KERNELS=0`` always takes the reference, ``=1`` always the kernels.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fanin.fill import reference
from fanin.fill.formats import FORMATS, Format, encode
from fanin.fill.keys import Key
from fanin.fill.laws import Law

_PLAIN = {
    "float32": FORMATS["float32"],
    "float64": FORMATS["float64"],
    "uint32": Format("uint32", np.dtype(np.uint32), np.dtype(np.uint32)),
}
_NS_A_VALUE, _NS_A_PIECE = 60, 200_000  # what the reference costs
_PATIENCE = 0.5e9  # ns of reference work, over the life of the process, before the kernels are worth loading
_spent = 0.0


class Piece(NamedTuple):
    """Values ``start`` .. ``start + size`` of a stream, for ``size`` numbers of the format at ``address``.

    With ``count`` > 1, so many such runs, ``stride`` apart in the stream and one after the other in memory.
    An address, not an array: to wrap each of a model's thousands of tensors costs more than to fill them. Whoever
    makes a Piece keeps its memory alive.
    """

    address: int
    size: int
    law: Law
    key: bytes  # the sixteen bytes of a Key
    start: int
    format: Format
    count: int = 1
    stride: int = 0


def fill(out: NDArray, law: Law, key: Key, start: int = 0, format: Format | None = None) -> None:
    """One piece; float32, float64 and uint32 (raw words) name their own format."""
    fill_pieces([Piece(out.ctypes.data, out.size, law, key.packed(), start, format or _PLAIN[out.dtype.name])])


def fill_pieces(pieces: Sequence[Piece]) -> None:
    """Every piece, by whichever path is worth it; large work is shared among threads."""
    if kernels_wanted(sum(piece.size * piece.count for piece in pieces), sum(piece.count for piece in pieces)):
        from fanin.fill.table import fill_by_kernels

        return fill_by_kernels(pieces)
    for piece in pieces:
        _by_reference(piece)


def kernels_wanted(values: int, pieces: int) -> bool:
    """Whether the kernels can be had, and are loaded already or worth loading."""
    global _spent
    if not kernels_available():
        return False
    _spent += values * _NS_A_VALUE + pieces * _NS_A_PIECE
    return os.environ.get("FANIN_KERNELS") == "1" or _spent > _PATIENCE


@functools.cache
def _numba_installed() -> bool:
    return importlib.util.find_spec("numba") is not None


def kernels_available() -> bool:
    """Whether numba is installed and ``FANIN_KERNELS=0`` does not forbid it."""
    return os.environ.get("FANIN_KERNELS") != "0" and _numba_installed()


def _by_reference(piece: Piece) -> None:
    if piece.count > 1:
        for i in range(piece.count):
            at = piece.address + i * piece.size * piece.format.storage.itemsize
            _by_reference(piece._replace(address=at, start=piece.start + i * piece.stride, count=1))
        return None
    law, key, start, format = piece[2:6]
    out = memory(piece.address, piece.size, format)
    if format.storage == format.working:
        return reference.fill(out, law, Key.of(key), start)
    step = 1 << 16
    for at in range(0, out.size, step):
        values = np.empty(min(step, out.size - at), format.working)
        reference.fill(values, law, Key.of(key), start + at)
        out[at : at + step] = encode(values, format)


def memory(address: int, size: int, format: Format) -> NDArray:
    """``size`` numbers of a format's storage at an address, as a flat array that shares them."""
    count = size * format.storage.itemsize
    if not count:
        return np.empty(0, format.storage)
    return np.frombuffer((ctypes.c_char * count).from_address(address), format.storage)  # pyright: ignore


def status() -> dict[str, Any]:
    """Which path is taken and where compiled kernels are kept, for ``fanin env``."""
    from fanin.fill.threads import count

    found = kernels_available()
    where = str(importlib.import_module("fanin.fill.kernel_cache").cache_dir()) if found else None
    return {"kernels": found, "cache": where, "threads": count()}
