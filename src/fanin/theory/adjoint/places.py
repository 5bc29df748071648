"""Backward through selections and everything that only moves elements."""

from __future__ import annotations

import numpy as np

from fanin.graph import Node
from fanin.theory import places as lengths
from fanin.theory import shifts, windows
from fanin.theory.adjoint import (
    copied,
    copies,
    orthogonal,
    picked,
    pieces,
    radial,
    ranks,
    roots,
    sequence,
    spelled,
    thinned,
    tied,
    write,
)
from fanin.theory.adjoint.cotangent import Cotangent, Part, fresh, identity
from fanin.theory.contraction import axis_groups
from fanin.theory.law import FEATURE, Law, subsets
from fanin.theory.records import replace
from fanin.theory.rules import move as forward
from fanin.theory.rules.route import ROW, SLOT
from fanin.theory.state import Value


def move(node: Node, g: Cotangent, inputs: tuple[Value, ...]) -> list[list[Part]]:
    """Every place gets what its copies got; places that went nowhere get nothing."""
    how = node.attrs["how"]
    if how in ("cat", "stack"):
        return _apart(node, g, inputs)
    if how == "put":
        return write.put(node, g, inputs)
    x = inputs[0]
    result: list[list[Part]] = [[] for _ in inputs]
    if not isinstance(x, Law):
        return result
    if (part := ranks.taken(node, g, inputs)) is not None:
        return [[part], *result[1:]]
    back, g = BACK[how], _in_words(g, x)
    if how not in ("index", "take"):
        g = replace(g, parts=tuple(_following(p, g.law, x) for p in g.parts))
    known = [picked.picked(node, part, g.law, x, inputs) if how in ("index", "take") else None for part in g.parts]
    result[0] = [k or back(node, part, g.law, x) for k, part in zip(known, g.parts, strict=True)]
    if how in ("roll", "flip"):  # what one place has along its signal is another's now
        result[0] = [replace(p, radial=p.radial and radial.elsewhere(p.radial)) for p in result[0]]
    if how != "slice" and _elsewhere(g.law, x):
        result[0] = [replace(part, matrix=None) for part in result[0]]
    result[0] = [tied.moved(part, g.law, x) for part in result[0]]
    if how in forward.ROWS and any(p.crossed for p in g.parts):
        result[0] = [replace(part, crossed=was.crossed) for part, was in zip(result[0], g.parts, strict=True)]
    return result


def _in_words(g: Cotangent, x: Law) -> Cotangent:
    """The cotangent with what two places have in common in the words of the input, where that tells windows apart."""
    if windows.in_words({}, g.law, x) is None:
        return g
    parts = [replace(p, ratio={**p.ratio, **(windows.in_words(p.ratio, g.law, x) or {})}) for p in g.parts]
    return Cotangent(g.law, tuple(parts), g.meets)


def _elsewhere(out: Law, x: Law) -> bool:
    """Whether the positions of a result are those of another sequence, or of none."""
    return lengths.length(x) is None or lengths.length(x) != lengths.length(out)


def _names(part: Part, out: Law, x: Law, pairs) -> dict:
    """Ratios in the words of the input: ``pairs`` lists the result's axis for every axis of the input."""
    ratio = {}
    for s in subsets(x.groups):
        named = set()
        for i, axis in enumerate(x.axes):
            if axis_groups(axis) & s:
                named |= axis_groups(out.axes[pairs[i]]) if pairs[i] is not None else set()
        ratio[s] = part.ratio.get(frozenset(named) & out.groups, 0.0) if named else part.ratio.get(s & out.groups, 0.0)
    return ratio


def _same_values(part: Part, out: Law, x: Law) -> np.ndarray | None:
    """The part's function, where the input has the levels of the result."""
    return part.values if part.values is None or len(out.values) == len(x.values) else None


def _following(part: Part, out: Law, x: Law) -> Part:
    """The part, or without a function that cannot follow to the levels of the input."""
    return part if part.values is None or len(out.values) == len(x.values) else orthogonal.folded(part, out)


def _flat(part: Part, out: Law, x: Law) -> tuple[np.ndarray, np.ndarray | None]:
    """Profile and function to move: a function that cannot follow is folded into the profile."""
    values = _same_values(part, out, x)
    return (part.second, values) if values is not None or part.values is None else (part.profile(out), None)


def _kept(part: Part, second: np.ndarray, ratio, values) -> Part:
    return replace(part, second=second, ratio=ratio, values=values)


def same(node: Node, part: Part, out: Law, x: Law) -> Part:
    """Nothing moved."""
    second, values = _flat(part, out, x)
    return _kept(part, second, part.ratio, values)


def reshape(node: Node, part: Part, out: Law, x: Law) -> Part:
    """The view undone."""
    second, values = _flat(part, out, x)
    carrier = _Profile(out.shape, out.axes, second)
    undo = replace(node, shape=x.shape, attrs={"how": "reshape"})
    level = _reshaped(undo, carrier)
    return _kept(part, level, part.ratio, values)


class _Profile:
    """Something with a shape, axes and one number a place, for the moves of ``rules.move``."""

    def __init__(self, shape, axes, level):
        self.shape, self.axes, self.level = tuple(shape), axes, level


def _reshaped(node: Node, carrier: _Profile) -> np.ndarray:
    old, new, level = carrier.shape, node.shape, carrier.level
    if level.size == 1:
        return level.reshape((1,) * len(new))
    factors = forward._refine(carrier.axes, old, new)
    if factors is None:
        return np.broadcast_to(level, old).reshape(new)
    dims, _, of_old, of_new = factors
    small = [1 if level.shape[o] == 1 else d for d, o in zip(dims, of_old, strict=True)]
    fine = level.reshape(small)
    shape = []
    for i in range(len(new)):
        mine = [j for j in range(len(dims)) if of_new[j] == i]
        varied = any(small[j] > 1 for j in mine)
        shape.append(new[i] if varied else 1)
        for j in mine:
            if varied and small[j] == 1 and dims[j] > 1:
                fine = np.repeat(fine, dims[j], axis=j)
    return fine.reshape(shape)


def parts(node: Node, part: Part, out: Law, x: Law) -> Part:
    """Each part its own."""
    second, values = _flat(part, out, x)
    return _kept(part, second[..., None], part.ratio, values)


def whole(node: Node, part: Part, out: Law, x: Law) -> Part:
    """Both parts together."""
    second, values = _flat(part, out, x)
    return _kept(part, second.mean(-1), part.ratio, values)


def permute(node: Node, part: Part, out: Law, x: Law) -> Part:
    """The inverse order."""
    second, values = _flat(part, out, x)
    return _kept(part, second.transpose(np.argsort(node.attrs["perm"])), part.ratio, values)


def expand(node: Node, part: Part, out: Law, x: Law) -> Part:
    """The sum over all copies."""
    from fanin.theory.adjoint.broadcast import unbroadcast

    plain = part if part.values is None else replace(part, second=part.profile(out), values=None)
    return radial.over_copies(part, unbroadcast(plain, out, x), x, out)


def _scattered(part: Part, out: Law, x: Law, axis: int, index) -> Part:
    second, values = _flat(part, out, x)
    size = x.shape[axis]
    shape = list(second.shape)
    shape[axis] = size
    full = np.zeros(shape)
    full[(slice(None),) * axis + (index,)] = second
    ratio = {s: part.ratio.get(s, 0.0) * _pairs_kept(s & axis_groups(x.axes[axis]), out, x) for s in subsets(x.groups)}
    moved = replace(_kept(part, full, ratio, values), matrix=None if _elsewhere(out, x) else part.matrix)
    if axis_groups(x.axes[axis]) != {sequence.POSITION} or not isinstance(index, slice) or index.step not in (None, 1):
        return moved
    return sequence.in_whole(moved, part, out, x, index.start)


def _pairs_kept(groups, out: Law, x: Law) -> float:
    """Of all pairs of places that differ in these groups the share that is in a piece; elsewhere there is nothing."""
    share = 1.0
    for t in windows.roots(groups):
        inside, whole = (
            np.prod([a.size for axis in law.axes for a in axis if windows.root(a.group) == t]) for law in (out, x)
        )
        share *= min(max(inside - 1, 0.0) / max(whole - 1, 1.0), 1.0)
    return float(share)


def slice_(node: Node, part: Part, out: Law, x: Law) -> Part:
    """Zero outside the slice."""
    a = node.attrs
    axis = a["axis"] % len(x.shape)
    if out.shape == x.shape:
        return same(node, part, out, x)
    laid = x.latent.pieces is not None and x.latent.pieces[0] == axis  # of pieces each has its own
    if axis_groups(x.axes[axis]) == {FEATURE} and x.level.shape[axis] == 1 and not laid:
        return _shared_among_features(part, out, x, axis)
    sent = _scattered(part, out, x, axis, slice(a["start"], a["stop"], a["step"]))
    rows = axis == len(x.shape) - 1 and a["step"] in (None, 1)
    return spelled.in_longer_rows(sent, part, a["start"]) if rows else replace(sent, chosen=None)


def _shared_among_features(part: Part, out: Law, x: Law, axis: int) -> Part:
    """Features are drawn alike: a part of them got the gradient, which is kept as the mean over all."""
    second, values = _flat(part, out, x)
    mean = second.mean(axis, keepdims=True) if second.shape[axis] > 1 else second
    share = fresh(mean * (out.shape[axis] / x.shape[axis]), part.ratio, values, part.matrix, part.balanced)
    if values is not part.values:
        return replace(share, met=part.met)
    known = part.orthogonal  # each channel is in one piece: what pieces know adds up as their mean squares do
    kept = known if known is None or known.values is None or len(known.values) == len(x.values) else None
    return replace(share, met=part.met, radial=part.radial, orthogonal=kept)


def select(node: Node, part: Part, out: Law, x: Law) -> Part:
    """Zero but at one index."""
    axis = node.attrs["axis"] % len(x.shape)
    second, values = _flat(part, out, x)
    wide = replace(part, second=np.expand_dims(second, axis), values=values)
    shape = (*out.shape[:axis], 1, *out.shape[axis:])
    axes = (*out.axes[:axis], (), *out.axes[axis:])
    holder = replace(out, shape=shape, axes=axes, level=np.expand_dims(out.level, axis))
    return _scattered(wide, holder, x, axis, slice(node.attrs["index"], node.attrs["index"] + 1))


def pad(node: Node, part: Part, out: Law, x: Law) -> Part:
    """The border's gradient is lost, where it is no copy of the signal."""
    widths, matrix = node.attrs["widths"], None
    if not any(map(any, widths)):
        return same(node, part, out, x)
    if node.attrs.get("value") is None and min(map(min, widths)) >= 0:
        return copied.returned(part, out, x, widths, node.attrs.get("mode", ""))
    second = part.profile(out)
    along = [i for i, w in enumerate(widths) if any(w)]
    for i in along:
        if min(widths[i]) < 0 and second.shape[i] == 1:  # what is taken from an end gets nothing
            second = np.repeat(second, out.shape[i], axis=i)
    if part.values is None and len(along) == 1 and axis_groups(x.axes[along[0]]) == {sequence.POSITION}:
        matrix = shifts.moved(part.matrix, -widths[along[0]][0], x.shape[along[0]])
    for i, (before, after) in enumerate(widths):
        if second.shape[i] > 1 and (before or after):
            low, high = max(before, 0), second.shape[i] - max(after, 0)
            second = second[(slice(None),) * i + (slice(low, high),)]
            if before < 0 or after < 0:
                second = np.pad(
                    second, [(max(-before, 0), max(-after, 0)) if j == i else (0, 0) for j in range(second.ndim)]
                )
    kept = part.orthogonal if part.values is None else None
    ratio = part.ratio
    if part.values is None and any(part.second.shape[i] > 1 for i in along):
        ratio = thinned.cut(part, (part.second, out), (second, x))
    sent = replace(fresh(second, ratio, matrix=matrix), white=part.white * part.straight(out), orthogonal=kept)
    if part.values is not None or (by := shifts.mark(node, x)) is None:
        return sent
    return roots.shifted(part, sent, by[1])


def flip(node: Node, part: Part, out: Law, x: Law) -> Part:
    """Reversed again."""
    second, values = _flat(part, out, x)
    for axis in node.attrs["axes"]:
        second = np.flip(second, axis)
    return _kept(part, second, part.ratio, values)


def roll(node: Node, part: Part, out: Law, x: Law) -> Part:
    """Rolled back."""
    second, values = _flat(part, out, x)
    for axis, shift in zip(node.attrs["axes"], node.attrs["shifts"], strict=True):
        second = np.roll(second, -shift, axis) if second.shape[axis] > 1 else second
    shifts = dict(zip(node.attrs["axes"], node.attrs["shifts"], strict=True))
    across = windows.laid(x.axes, shifts) if out.groups == x.groups else None
    ratio = windows.across({s: part.ratio.get(s, 0.0) for s in subsets(x.groups)}, across) if across else part.ratio
    return _kept(part, second, ratio, values)


def gather(node: Node, part: Part, out: Law, x: Law) -> Part:
    """Sum over the copies that were taken of each place: of each by itself where it is known which were taken."""
    times = float(np.prod(out.shape)) / float(np.prod(x.shape))
    slots = part.ratio.get(frozenset((ROW if ROW in out.groups else SLOT,)), 0.0)
    index, axis = node.attrs.get("index"), node.attrs.get("axis", 0) % len(x.shape)
    moved = axis_groups(x.axes[axis])
    ratio = {s: part.ratio.get(s, 0.0) * (min(times, 1.0) if s & moved else 1.0) for s in subsets(x.groups)}
    if node.attrs["how"] == "gather" and index is not None and FEATURE not in moved:
        second = np.moveaxis(part.profile(out), axis, 0)
        given = np.broadcast_to(second, (len(index), *second.shape[1:]))
        total = np.zeros((x.shape[axis], *second.shape[1:]))
        np.add.at(total, np.asarray(index), given)
        taken = np.bincount(index, minlength=x.shape[axis]).reshape([-1] + [1] * (second.ndim - 1))
        return fresh(np.moveaxis(total * (1 + np.maximum(taken - 1, 0) * slots), 0, axis), ratio)
    mean = float(np.mean(part.profile(out)))
    gain = times * (1 + max(times - 1, 0) * slots)
    sent = fresh(np.full((1,) * len(x.shape), mean * gain), ratio)
    if SLOT not in out.groups or FEATURE in moved:
        return sent
    given = replace(sent, radial=part.radial)
    return given if SLOT in x.groups else copies.met(given, times, gain)


def _apart(node: Node, g: Cotangent, inputs: tuple[Value, ...]) -> list[list[Part]]:
    """Each piece of a concatenation gets its own."""
    axis = node.attrs["axis"] % len(node.shape)
    result, start = [], 0
    profile, ratios = g.profile(), g.ratios()
    features, rest = axis_groups(g.law.axes[axis]) == {FEATURE}, identity()
    cut = bool(g.balanced & axis_groups(g.law.axes[axis]))  # what all pieces sum to zero over none does alone
    for value in inputs:
        if 0 in value.shape:  # an empty cache
            result.append([])
            continue
        stacked = node.attrs["how"] == "stack"
        size = 1 if stacked else value.shape[axis]
        piece = profile
        if profile.shape[axis] > 1:
            piece = profile[(slice(None),) * axis + (slice(start, start + size),)]
        start += size
        piece = piece.squeeze(axis) if stacked else piece
        if not isinstance(value, Law):  # no gradient is sent to it
            result.append([])
            continue
        followed = None if stacked else pieces.of_piece(g, value, axis, start - size)
        if followed is not None:
            result.append(followed)
            continue
        words = {s: ratios.get(pieces.forward_words(s, value, g.law), 0.0) for s in subsets(value.groups)}
        matrix = sequence.correlation(g, value)
        if axis_groups(g.law.axes[axis]) == {sequence.POSITION} and not stacked:
            found = sequence.of_piece(g, value, start - size)
            if found is not None:
                matrix, words[frozenset((sequence.POSITION,))] = found
        balanced = frozenset() if cut and size < node.shape[axis] else g.balanced & value.groups
        part = fresh(piece, words, matrix=matrix, balanced=balanced)
        part = replace(part, met=g.met * _pairs_kept(axis_groups(g.law.axes[axis]) - {FEATURE}, value, g.law))
        if len(g.parts) == 1 and axis == len(node.shape) - 1 and not stacked:
            part = spelled.of_piece(part, g.parts[0], start - size, size)
        if len(g.parts) == 1 and g.parts[0].divided is not None and not stacked:
            part = replace(part, divided=g.parts[0].divided.piece(value.latent.id))
        if features and len(inputs) == 2:
            part = radial.piece(g, part, size / node.shape[axis], (rest, 1.0 if not result else -1.0))
        result.append([part])
    return result


BACK = {
    "same": same,
    "parts": parts,
    "whole": whole,
    "reshape": reshape,
    "permute": permute,
    "expand": expand,
    "slice": slice_,
    "select": select,
    "pad": pad,
    "flip": flip,
    "roll": roll,
    "gather": gather,
    "index": gather,
    "take": gather,
}
