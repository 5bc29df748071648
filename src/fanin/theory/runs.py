"""Runs of neighbouring positions, each of which stands for all of its places in the matrix of a long sequence.

All positions up to ``LIMIT``, beyond that some ``LIMIT`` runs, short ones first: behind a causal mask early places
differ most. No run reaches across a seam, where two pieces were laid end to end (patches and tokens that start at
zero): what places of one piece have in common is nothing to those of another. A piece of several places has two runs at
least, since what two places of a run have is read off the run beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from types import MappingProxyType

import numpy as np

from fanin.graph import Graph, Kind

LIMIT = 96
SEAMS = 8  # of a sequence, from which on it is cut into alike pieces (windows, blocks) rather than laid end to end


@dataclass(frozen=True, eq=False)
class Runs:
    """Runs of neighbouring positions: the one in the middle stands for all, ``width`` says how many they are.

    Attributes:
        ends: whether a run is the first, and whether it is the last, of several of one piece.
    """

    size: int
    index: np.ndarray
    width: np.ndarray
    start: np.ndarray
    ends: tuple[np.ndarray, np.ndarray]


NONE: Mapping[int, tuple[int, ...]] = MappingProxyType({})
_seams: ContextVar[Mapping[int, tuple[int, ...]]] = ContextVar("seams", default=NONE)
"""Of the graph that is read: where sequences of a length are laid end to end."""


def follow(graph: Graph) -> None:
    """Let runs of a graph's sequences end at their seams."""
    found: dict[int, set[int]] = {}
    shapes = {node.id: node.shape for node in graph.nodes}
    for node in graph.nodes:
        if node.kind is not Kind.MOVE or node.attrs.get("how") != "cat" or not node.shape:
            continue
        axis = node.attrs["axis"] % len(node.shape)
        sizes = [shapes[i][axis] for i in node.inputs if len(shapes[i]) == len(node.shape)]
        if node.shape[axis] > LIMIT and sum(sizes) == node.shape[axis]:
            found.setdefault(node.shape[axis], set()).update(int(s) for s in np.cumsum(sizes)[:-1])
    _seams.set({size: tuple(sorted(at)) for size, at in found.items() if len(at) <= SEAMS})


def runs(size: int) -> Runs:
    """The runs of a sequence of a given length."""
    return _runs(size, _seams.get().get(size, ()))


def at_all(values: np.ndarray, size: int) -> np.ndarray:
    """Numbers by run at all positions, (size,): between the middles of two runs of one piece on a line."""
    along = runs(size)
    cuts = np.flatnonzero(np.isin(along.start, _seams.get().get(size, ())))
    ends = [0, *along.start[cuts], size]
    parts = zip(np.split(along.index, cuts), np.split(values, cuts), ends[:-1], ends[1:], strict=True)
    return np.concatenate([np.interp(np.arange(start, stop), at, of) for at, of, start, stop in parts])


@lru_cache(maxsize=64)
def _runs(size: int, seams: tuple[int, ...]) -> Runs:
    inner = np.zeros(0, int)
    if size <= LIMIT:
        edges = np.arange(size + 1)
    else:
        growing = np.geomspace(LIMIT // 3, size, LIMIT - LIMIT // 3 + 1)
        edges = np.unique(np.round(np.concatenate([np.arange(LIMIT // 3), growing])).astype(int))
        inner = np.array([s for s in seams if 0 < s < size], int)
        edges = _halved(np.union1d(edges, inner), np.concatenate([[0], inner, [size]]))
    start, stop = edges[:-1], edges[1:]
    first, last = np.isin(start, [0, *inner]), np.isin(stop, [size, *inner])
    several = ~(first & last)
    return Runs(size, (start + stop - 1) // 2, (stop - start).astype(float), start, (first & several, last & several))


def _halved(edges: np.ndarray, seams: np.ndarray) -> np.ndarray:
    """With one more edge in the middle of every piece that is one run."""
    pieces = [(a, b) for a, b in pairwise(seams.tolist()) if b - a > 1]
    middle = [(a + b) // 2 for a, b in pieces if not np.any((edges > a) & (edges < b))]
    return np.union1d(edges, np.array(middle, int))
