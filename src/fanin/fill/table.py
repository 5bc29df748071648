"""Pieces of storage as the table that the kernels read: rows of bounded size, shared among threads."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

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
    address, size, laws, keys, begin, formats, runs, stride = zip(*pieces, strict=True)
    size, begin = np.array(size, np.int64), np.array(begin, np.int64)
    run, nth, index, start, count = _rows(begin, size, np.array(runs, np.int64), np.array(stride, np.int64))
    width = np.array([format.storage.itemsize for format in formats], np.int64)[index]
    store = np.array([_STORE.get(format.name, kernels.FLOAT32) for format in formats])[index]
    law = np.fromiter(chain.from_iterable(laws), np.float64, 6 * len(laws)).reshape(-1, 6)[index]
    skipped = (start - run + nth * size[index]) * width
    address = np.array(address, np.uint64)[index] + skipped.astype(np.uint64)
    key = np.frombuffer(b"".join(keys), "<u4").reshape(-1, 4)[index].astype(np.uint32)
    return address, start, count, store, law[:, 0].astype(np.int64), key, np.ascontiguousarray(law[:, 1:])


def _rows(begin: NDArray, size: NDArray, runs: NDArray, stride: NDArray) -> tuple[NDArray, ...]:
    """(begin of its run, number of its run, piece, start, size) of each row: runs cut at the multiples of ``_ROW``."""
    piece, nth = _repeat(runs)
    begin, size = begin[piece] + nth * stride[piece], size[piece]
    first = begin // _ROW
    run, part = _repeat(np.where(size > 0, (begin + size - 1) // _ROW - first + 1, 0))
    low = np.maximum(begin[run], (first[run] + part) * _ROW)
    high = np.minimum((begin + size)[run], (first[run] + part + 1) * _ROW)
    return begin[run], nth[run], piece[run], low, high - low


def _repeat(counts: NDArray) -> tuple[NDArray, NDArray]:
    """(which, nth): item i ``counts[i]`` times, with 0, 1, .. beside it."""
    which = np.repeat(np.arange(len(counts)), counts)
    return which, np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
