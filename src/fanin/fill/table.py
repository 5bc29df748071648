"""Pieces of storage as the table that the kernels read: rows of bounded size, shared among threads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fanin.fill import kernels, threads
from fanin.fill.engine import Piece

_ROW = 1 << 17  # values of a stream that one row may hold: a multiple of every block size
_STORE = {"bfloat16": kernels.BFLOAT16, "float16": kernels.FLOAT16}


def fill_by_kernels(pieces: Sequence[Piece]) -> None:
    """Fill every piece; a row never straddles two multiples of ``_ROW``, so few blocks are drawn twice."""
    double = [piece for piece in pieces if piece.format.working == np.float64]
    single = [piece for piece in pieces if piece.format.working != np.float64]
    for kernel, group in ((kernels.table32, single), (kernels.table64, double)):
        if group:
            columns = _columns(group)
            threads.share(lambda first, stop, k=kernel, c=columns: k(*c, first, stop), columns[2], _ROW)


def _columns(pieces: Sequence[Piece]) -> tuple[NDArray, ...]:
    """(address, start, size, store, code, key, law), a row for each run of at most ``_ROW`` values."""
    rows = np.array([row for i, piece in enumerate(pieces) for row in _rows(i, piece)], np.int64).reshape(-1, 3)
    index, start, size = (np.ascontiguousarray(column) for column in rows.T)
    base = np.array([piece.out.ctypes.data for piece in pieces], np.uint64)
    begin = np.array([piece.start for piece in pieces], np.int64)
    width = np.array([piece.out.itemsize for piece in pieces], np.int64)
    store = np.array([_STORE.get(piece.format.name, kernels.FLOAT32) for piece in pieces])
    code = np.array([piece.law.code for piece in pieces])
    key = np.array([piece.key for piece in pieces], np.uint32)
    law = np.array([piece.law[1:] for piece in pieces], np.float64)
    address = base[index] + ((start - begin[index]) * width[index]).astype(np.uint64)
    return address, start, size, store[index], code[index], key[index], law[index]


def _rows(index: int, piece: Piece) -> Iterator[tuple[int, int, int]]:
    at, stop = piece.start, piece.start + piece.out.size
    while at < stop:
        size = min(_ROW - at % _ROW, stop - at)
        yield index, at, size
        at += size
