"""Backward through a norm over places whose channels are of several kinds, by gains and shifts of their own.

Each kind is divided by its own variance, and sends back what is left by its own mean and its own part along the
signal: a channel whose gradient is the same at all places keeps nothing, however the mean channel's places differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fanin.graph import Node
from fanin.theory import channels, gains
from fanin.theory.adjoint.cotangent import Cotangent, Part, fresh
from fanin.theory.contraction import axis_groups
from fanin.theory.law import FEATURE, Atom, Law, subsets
from fanin.theory.levels import relabel
from fanin.theory.records import replace
from fanin.theory.state import Value, as_law

Alone = Callable[[Node, Cotangent, tuple[Value, ...]], list[list[Part]]]


def by_kind(node: Node, g: Cotangent, inputs: tuple[Value, ...], alone: Alone) -> list[list[Part]] | None:
    """What ``alone`` says of every kind of channel, joined; None where all have one gain and one shift."""
    kinds = _kinds(node, g, inputs)
    if kinds is None:
        return None
    axis, x = node.attrs.get("feature_axes", (1,))[0], as_law(inputs[0])
    laws = [[_of_channels(as_law(v), axis if v is inputs[0] else 0, one) for v in inputs] for one in kinds]
    found = [alone(node, _of_one(g, axis, one), tuple(mine)) for one, mine in zip(kinds, laws, strict=True)]
    signals = [mine[0] for mine in laws]
    out: list[list[Part]] = [[_joined(x, axis, kinds, signals, [m[0] for m in found])]]
    for i in range(1, len(inputs)):
        out.append([_of_weight(x.shape[axis], kinds, [m[i] for m in found])] if found[0][i] else [])
    return out


def _of_one(g: Cotangent, axis: int, chosen: np.ndarray) -> Cotangent:
    """The cotangent at some channels, all of one kind."""
    levels, parts = _levels(g.law, axis, chosen), []
    for p in g.parts:
        values = None if p.values is None else p.values[levels]
        parts.append(replace(p, second=_taken(p.second, axis, chosen), values=values, orthogonal=None))
    return Cotangent(_of_channels(g.law, axis, chosen), tuple(parts), g.meets)


def _kinds(node: Node, g: Cotangent, inputs: tuple[Value, ...]) -> list[np.ndarray] | None:
    """The channels of every kind."""
    a = node.attrs
    over = {t for i in a["axes"] for t in axis_groups(g.law.axes[i])}
    feature = a.get("feature_axes", (1,))
    chosen = [inputs[a[key]] for key in ("weight", "bias") if a.get(key) is not None]
    told = any(gains.of_kinds(v) for v in chosen)
    if not told or FEATURE in over or len(feature) != 1 or not a.get("batch_stats", True):
        return None
    size, axis = g.law.shape[feature[0]], feature[0]
    rows = [channels.columns(law, axis, size) for law in (g.law, as_law(inputs[0]))]
    rows += [channels.columns(as_law(v), 0, size) for v in chosen]
    which = channels.unlike(np.concatenate(rows, 1))[1]
    return [np.flatnonzero(which == k) for k in range(which.max() + 1)]


def _levels(law: Law, axis: int, chosen: np.ndarray) -> np.ndarray:
    """Levels that channels of one kind have."""
    level = np.take(law.level, chosen[:1], axis) if law.level.shape[axis] > 1 else law.level
    return relabel(level.astype(np.int64), len(law.values))[0]


def _of_channels(law: Law, axis: int, chosen: np.ndarray) -> Law:
    """The law of some channels, all of one kind."""
    if law.level.shape[axis] == 1 and law.latent.pieces is None:
        return law  # of one law: what is known of its variance holds for every kind
    level = np.take(law.level, chosen[:1], axis) if law.level.shape[axis] > 1 else law.level
    used, level = relabel(level.astype(np.int64), len(law.values))
    shape, axes = list(law.shape), list(law.axes)
    shape[axis] = len(chosen)
    if axis_groups(axes[axis]) <= {FEATURE}:
        axes[axis] = (Atom(len(chosen), FEATURE),)
    latent = replace(law.latent, pieces=None) if law.latent.pieces is not None else law.latent
    return replace(
        law,
        shape=tuple(shape),
        axes=tuple(axes),
        values=law.values[used],
        level=level.astype(np.int32),
        latent=latent,
        loose=None,
        given={},
    )


def _taken(array: np.ndarray, axis: int, chosen: np.ndarray) -> np.ndarray:
    return np.take(array, chosen, axis).mean(axis, keepdims=True) if array.shape[axis] > 1 else array


def _joined(x: Law, axis: int, kinds: list[np.ndarray], laws: Sequence[Law], parts: Sequence[list[Part]]) -> Part:
    """One part of all channels: profiles channel by channel, pair moments in the mean.

    What a part follows of its own kind's latent is left out: what kinds pass differs by far more.
    """
    seconds = [np.asarray(sum(p.profile(law) for p in of)) for of, law in zip(parts, laws, strict=True)]
    whole, ratio = 1e-300, dict.fromkeys(subsets(x.groups), 0.0)
    for of, law, chosen in zip(parts, laws, kinds, strict=True):
        for p in of:
            energy = len(chosen) * p.mean_profile(law)
            whole += energy
            for s, r in p.ratio.items():
                ratio[s] = ratio.get(s, 0.0) + energy * r
    ratio = {s: r / whole for s, r in ratio.items()}
    places = np.broadcast_shapes(*(s.shape for s in seconds))
    second = np.zeros((*places[:axis], x.shape[axis], *places[axis + 1 :]))
    for s, chosen in zip(seconds, kinds, strict=True):
        second[(slice(None),) * axis + (chosen,)] = np.broadcast_to(s, places)
    alike = {p.balanced for of in parts for p in of}
    return fresh(second, ratio, balanced=alike.pop() if len(alike) == 1 else frozenset())


def _of_weight(size: int, kinds: list[np.ndarray], parts: Sequence[list[Part]]) -> Part:
    second = np.zeros(size)
    for of, chosen in zip(parts, kinds, strict=True):
        second[chosen] = sum(p.mean_second for p in of)
    return fresh(second, {})


__all__ = ["by_kind"]
