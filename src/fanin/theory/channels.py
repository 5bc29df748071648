"""Channels of different laws under one norm whose statistic holds one channel: each is divided by its own deviation.

Behind a concatenation, channels come from pieces of different scale and mean. The law of all is a mixture whose levels
tell the pieces apart; where a statistic spans samples and places alone, every kind of channel has its own variance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fanin.theory import prefix
from fanin.theory.latent import Latent, axis_groups
from fanin.theory.law import FEATURE, Atom, Axis, Law, compress, latent_for
from fanin.theory.records import remembered, replace

MOST = 64
"""Kinds that are told apart; trained or constant weights give each channel a law of its own, and the mean serves."""
SLIGHT = 1e-6
"""Changes of a mean square below are rounding."""

Pieces = tuple[int, tuple[tuple[int, Latent, float], ...]]
"""Of a concatenation: its axis; of every piece how many, the latent, and its mean square over that of its levels."""


@dataclass(frozen=True)
class Kinds:
    """Channels by their laws.

    Attributes:
        which: kind of every channel, an array that broadcasts over the tensor.
        laws: of a tensor whose channels are all of one kind.
        shares: of the channels.
    """

    which: np.ndarray
    laws: tuple[Law, ...]
    shares: np.ndarray


def pieces(out: Law, laws: Sequence[Law], axis: int) -> Pieces:
    """Those of a concatenation ``out`` of laws, some of which may have pieces themselves."""
    parts = [part for law in laws for part in _parts(law, axis)]
    found = tuple((law.shape[axis], law.latent, 1.0) for law in parts)
    read = _by_piece(out, axis, found).laws
    size = lambda law: law.second if 0 < law.second < np.inf else 1.0  # noqa: E731
    sizes = (size(law) / size(one) for law, one in zip(parts, read, strict=True))
    return axis, tuple((*piece[:2], ratio) for piece, ratio in zip(found, sizes, strict=True))


def _parts(law: Law, axis: int) -> tuple[Law, ...]:
    known = law.latent.pieces
    whole = known is not None and known[0] == axis and sum(n for n, *_ in known[1]) == law.shape[axis]
    return _by_piece(law, *known).laws if known is not None and whole and not law.latent.feature_view else (law,)


@remembered
def kinds(x: Law, axes: tuple[int, ...]) -> Kinds | None:
    """The kinds of channels of a norm over ``axes``; None where all are of one law, or a statistic holds several."""
    other = [i for i, n in enumerate(x.level.shape) if n > 1 and i not in axes]
    over = {t for i in axes for t in axis_groups(x.axes[i])}
    if FEATURE in over or any(not axis_groups(x.axes[i]) <= {FEATURE} for i in other):
        return None
    pieces = x.latent.pieces
    if pieces is not None and pieces[0] not in axes and sum(n for n, *_ in pieces[1]) == x.shape[pieces[0]]:
        return _by_piece(x, *pieces)
    return _by_level(x, other) if other else None


def _by_piece(x: Law, axis: int, pieces: tuple[tuple[int, Latent, float], ...]) -> Kinds:
    """Each piece of a concatenation with the pair moments that it had, and its mean square where levels were merged."""
    sizes = [n for n, *_ in pieces]
    varies = x.level.shape[axis] > 1
    laws = []
    for stop, (n, latent, ratio) in zip(np.cumsum(sizes), pieces, strict=True):
        level = np.take(x.level, range(stop - n, stop), axis) if varies else x.level
        shape, axes = list(x.shape), list(x.axes)
        shape[axis], axes[axis] = n, (Atom(n, FEATURE),)
        values = x.values if abs(ratio - 1) < SLIGHT else x.values * np.sqrt(ratio)
        laws.append(
            replace(x, shape=tuple(shape), axes=tuple(axes), values=values, level=level, latent=latent, loose=None)
        )
    which = np.repeat(np.arange(len(sizes)), sizes)
    return Kinds(np.expand_dims(which, [i for i in range(len(x.shape)) if i != axis]), tuple(laws), _shares(which))


def _by_level(x: Law, other: list[int]) -> Kinds | None:
    """Channels whose levels are the same at every place are of one kind."""
    level = np.moveaxis(x.level, other, range(len(other)))
    sizes, rest = level.shape[: len(other)], level.shape[len(other) :]
    rows, which = unlike(level.reshape(int(np.prod(sizes)), -1))
    if not 1 < len(rows) <= MOST:
        return None
    laws = tuple(replace(x, level=np.expand_dims(row.reshape(rest), tuple(other))) for row in rows)
    whole = [n if i in other else 1 for i, n in enumerate(x.level.shape)]
    return Kinds(which.reshape(whole), laws, _shares(which))


def unlike(level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows that differ, in lexical order, and which of them each is; to sort long rows takes far longer."""
    level = np.ascontiguousarray(level)
    first: dict[bytes, int] = {}
    seen = np.array([first.setdefault(row.tobytes(), len(first)) for row in level])
    rows, order = np.unique(level[np.unique(seen, return_index=True)[1]], axis=0, return_inverse=True)
    return rows, order.ravel()[seen]


def columns(law: Law, axis: int, size: int) -> np.ndarray:
    """Levels of every channel at all its places, (channels, places)."""
    level = np.moveaxis(law.level, axis, 0)
    level = np.broadcast_to(level, (size, *level.shape[1:])) if len(level) == 1 else level
    return level.reshape(size, -1)


def _shares(which: np.ndarray) -> np.ndarray:
    return np.bincount(which.ravel()) / which.size


def joined(x: Law, told: Kinds, made: Sequence[Law]) -> Law:
    """The law of all channels from that of each kind, which may have come to differ by place."""
    starts = np.cumsum([0, *(len(law.values) for law in made)])
    spanned = [i for i, n in enumerate(told.which.shape) if n > 1]
    alone = [tuple(1 if i in spanned else n for i, n in enumerate(law.level.shape)) for law in made]
    level = np.zeros(np.broadcast_shapes(told.which.shape, *alone), np.int32)
    for k, (law, start) in enumerate(zip(made, starts, strict=False)):
        of_kind = np.broadcast_to(told.which == k, level.shape)
        sizes = [law.level.shape[i] if i in spanned else n for i, n in enumerate(level.shape)]
        whole = level.shape if all(law.level.shape[i] == 1 for i in spanned) else sizes
        found = np.broadcast_to(law.level, whole)
        level[of_kind] = start + (found[of_kind] if found.shape == level.shape else found.ravel())
    values, level = compress(np.concatenate([law.values for law in made]), level)
    law = replace(x, values=values, level=level, loose=None)
    pair = lambda s: float(told.shares @ [one.pair(s) for one in made])  # noqa: E731
    return replace(law, latent=replace(latent_for(law, pair, law.groups), uneven=x.latent.uneven))


Mean = Callable[[Law, tuple[int, ...], tuple[int, ...], tuple[Axis, ...]], Law]


def reduced(rule: Mean, x: Law, dims: tuple[int, ...], shape: tuple[int, ...], axes: tuple[Axis, ...]) -> Law | None:
    """Means of channels of several kinds, each about a mean of its own; None where all have one law.

    Args:
        rule: the mean of a tensor of one kind over ``dims``; shape, axes: of what is made.
    """
    told = kinds(x, dims) if FEATURE in x.level_groups and x.latent.pieces is None else None
    if told is None:
        return None
    axis = next(i for i, n in enumerate(told.which.shape) if n > 1)
    made = []
    for one in told.laws:
        law = rule(one, dims, _with(shape, axis, one.shape[axis]), _with(axes, axis, one.axes[axis]))
        made.append(prefix.one_sign(law) if one.values.min() >= 0 > law.values.min() else law)
    return joined(replace(x, shape=shape, axes=axes), told, made)


def _with(words: tuple, axis: int, one) -> tuple:
    return (*words[:axis], one, *words[axis + 1 :])
