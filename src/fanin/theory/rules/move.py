"""Where elements go: views, transposes, slices, padding, gathers. Laws stay, their places move."""

from __future__ import annotations

import numpy as np

from fanin.graph import Node
from fanin.theory import border, given, lags, overlap, places, prefix, shifts
from fanin.theory.across import permuted
from fanin.theory.contraction import axis_groups
from fanin.theory.law import FEATURE, Atom, Axis, Law, compress, relabel
from fanin.theory.parts import cut
from fanin.theory.records import replace
from fanin.theory.state import Hidden, Known, Modelled, Value, as_law
from fanin.theory.windows import forgotten, shifted, touched

STAYING = ("reshape", "permute", "expand", "same")
"""Moves that leave places what they are."""

ROWS = (*STAYING, "slice", "select", "flip")
"""Moves that leave sums over prefixes what they are."""


def move(node: Node, *inputs: Modelled) -> Value:
    """Dispatch on ``how``; known arrays were evaluated before this is asked."""
    how = node.attrs["how"]
    value = as_law(inputs[0]) if isinstance(inputs[0], Known) else inputs[0]
    if isinstance(value, Law) and shifts.idle(node, value):
        return value
    if isinstance(value, Law) and how == "roll":
        value = shifted(value, dict(zip(node.attrs["axes"], node.attrs["shifts"], strict=True)))
    elif isinstance(value, Law) and (_across(node, value) if how == "reshape" else _moved(node, value)):
        value = forgotten(value)
    axes, level = HOW[how](node, value)
    if isinstance(value, Hidden):
        return Hidden(node.shape, axes)
    return _viewed(node, value, axes, level)


def _moved(node: Node, law: Law) -> bool:
    return node.attrs["how"] not in STAYING and touched(node, law)


def _across(node: Node, law: Law) -> bool:
    """Whether a view cuts places other than windows do (pairs of fourteen that are two windows of seven)."""
    return _refine(law.axes, law.shape, node.shape) is None


def _viewed(node: Node, law: Law, axes: tuple[Axis, ...], level: np.ndarray) -> Law:
    how, latent = node.attrs["how"], permuted(node, law)
    if how in ("slice", "select", "gather", "roll", "flip", "pad", "diagonal", "take"):
        axis = node.attrs.get("axis", 0)
        mark = shifts.mark(node, law) or (how, *(str(v) for k, v in sorted(node.attrs.items()) if k != "how"))
        along_feature = FEATURE in axis_groups(law.axes[axis % len(law.axes)])
        if along_feature:
            latent = replace(latent, feature_view=(*latent.feature_view, mark))
        else:
            kept = _padded(node, law) if how == "pad" else None
            matrix = shifts.padded(law, node.attrs["widths"]) if how == "pad" else None
            latent = replace(cut(node, law, latent, mark), matrix=matrix, border=kept, lags=lags.moved(node, law))
            latent = shifts.named(latent) if mark[0] == shifts.SHIFT else latent
        source = overlap.cut(latent.source) if how == "slice" and node.shape != law.shape else latent.source
        latent = replace(latent, mirrored=0.0, source=source)
    values, known = law.values, given.stored(law)
    if latent.place_view != law.latent.place_view:
        known = given.elsewhere(known)
    used, left = relabel(level, len(values))
    if len(used) < len(values):  # else it keeps the array of values, and with it what was worked out of them
        values, level, known = values[used], left, {key: g.at(used) for key, g in known.items()}
        law = replace(law, loose=None if law.loose is None else law.loose[used])
    law = replace(law, given=known, prefix=prefix.moved(law.prefix, node, law, HOW[how]) if how in ROWS else None)
    out = replace(law, shape=node.shape, axes=axes, values=values, level=level, latent=latent)
    if how == "pad" and node.attrs.get("value", None) is not None:
        return _filled(node, out, law)
    return out


def _padded(node: Node, law: Law) -> border.Border | None:
    """The border of a padded map: places keep what they have in common, those that are filled have no law."""
    spatial = [i for i, axis in enumerate(law.axes) if axis_groups(axis) == {places.POSITION}]
    if node.attrs.get("value") is None or border.carried(law) is None or any(len(law.axes[i]) > 1 for i in spatial):
        return None
    sizes = tuple(node.shape[i] for i in spatial)
    return border.moved(law.latent, sizes, [np.arange(node.shape[i]) - node.attrs["widths"][i][0] for i in spatial])


def axes_after(node: Node, axes: tuple[Axis, ...], shape: tuple[int, ...]) -> tuple[Axis, ...]:
    """Axes of the result of a move of a tensor that has no law (known arrays, hidden integers)."""
    dummy = Hidden(shape, axes)
    moved, _ = HOW[node.attrs["how"]](node, dummy)
    return moved


def _level(value: Law | Hidden) -> np.ndarray:
    return value.level if isinstance(value, Law) else np.zeros((1,) * len(value.shape), np.int32)


def reshape(node: Node, value) -> tuple[tuple[Axis, ...], np.ndarray]:
    """Split and merge axes by their atoms; row-major, the slowest factor first."""
    level, old, new = _level(value), value.shape, node.shape
    factors = _refine(value.axes, old, new)
    if factors is None:
        group = next((g for a in value.axes for g in sorted(axis_groups(a)) if g != FEATURE), FEATURE)
        return tuple((Atom(n, group),) if n > 1 else () for n in new), _flat_level(level, old, new)
    dims, groups, of_old, of_new = factors
    small = [1 if level.shape[o] == 1 else d for d, o in zip(dims, of_old, strict=True)]
    fine = level.reshape(small)
    axes, shape = [], []
    for i in range(len(new)):
        mine = [j for j in range(len(dims)) if of_new[j] == i]
        axes.append(_merge_atoms([Atom(dims[j], groups[j]) for j in mine if dims[j] > 1]))
        varied = any(small[j] > 1 for j in mine)
        shape.append(new[i] if varied else 1)
        for j in mine:
            if varied and small[j] == 1 and dims[j] > 1:
                fine = np.repeat(fine, dims[j], axis=j)
    return tuple(axes), fine.reshape(shape)


def _flat_level(level, old, new) -> np.ndarray:
    return np.zeros((1,) * len(new), np.int32) if level.size == 1 else np.broadcast_to(level, old).reshape(new)


def _merge_atoms(atoms: list[Atom]) -> Axis:
    merged: list[Atom] = []
    for atom in atoms:
        if merged and merged[-1].group == atom.group:
            merged[-1] = Atom(merged[-1].size * atom.size, atom.group)
        else:
            merged.append(atom)
    return tuple(merged)


def _refine(axes: tuple[Axis, ...], old, new):
    """Common factors of the old and the new shape: sizes, groups, and which old and new axis each belongs to."""
    stack: list[list] = []
    for i, (axis, n) in enumerate(zip(axes, old, strict=True)):
        atoms = (
            axis
            if axis and int(np.prod([a.size for a in axis])) == n
            else (Atom(n, axis[0].group if axis else FEATURE),)
        )
        stack += [[a.size, a.group, i] for a in atoms if a.size > 1]
    dims, groups, of_old, of_new = [], [], [], []
    position = 0
    for i, n in enumerate(new):
        need = n
        while need > 1:
            if position >= len(stack):
                return None
            size, group, owner = stack[position]
            if need % size == 0:
                take, position = size, position + 1
            elif size % need == 0:
                take = need
                stack[position] = [size // need, group, owner]
            else:
                return None
            dims.append(take)
            groups.append(group)
            of_old.append(owner)
            of_new.append(i)
            need //= take
    return dims, groups, of_old, of_new


def permute(node: Node, value):
    """Axes in another order."""
    perm = node.attrs["perm"]
    return tuple(value.axes[i] for i in perm), _level(value).transpose(perm)


def expand(node: Node, value):
    """Broadcast axes of size one; the copies are the same elements, so their group is a free one."""
    lead = len(node.shape) - len(value.shape)
    old = (1,) * lead + tuple(value.shape)
    axes = ((),) * lead + tuple(value.axes)
    out = [
        a if n == m else (Atom(m, f"free.{node.id}.{i}"),)
        for i, (a, n, m) in enumerate(zip(axes, old, node.shape, strict=True))
    ]
    level = _level(value)
    return tuple(out), level.reshape((1,) * lead + level.shape)


def resized(axis: Axis, n: int) -> Axis:
    """An axis of n places of what it had."""
    group = next((a.group for a in axis if a.size > 1), next((a.group for a in axis), FEATURE))
    return (Atom(n, group),) if n > 1 else ()


def _taken(node: Node, value, index) -> tuple[tuple[Axis, ...], np.ndarray]:
    axis = node.attrs["axis"] % len(value.shape)
    level = _level(value)
    if level.shape[axis] > 1:
        level = level[(slice(None),) * axis + (index,)]
    axes = list(value.axes)
    axes[axis] = resized(axes[axis], node.shape[axis])
    return tuple(axes), level


def slice_(node: Node, value):
    """x[start:stop:step] along an axis."""
    a = node.attrs
    if node.shape == tuple(value.shape):
        return value.axes, _level(value)
    return _taken(node, value, slice(a["start"], a["stop"], a["step"]))


def select(node: Node, value):
    """x[index] along an axis, which goes."""
    axis = node.attrs["axis"] % len(value.shape)
    level = _level(value)
    level = level.take(node.attrs["index"] if level.shape[axis] > 1 else 0, axis)
    return value.axes[:axis] + value.axes[axis + 1 :], level


def gather(node: Node, value):
    """Elements along an axis at known places, or at hidden ones (then every place's law is the mixture)."""
    axis = node.attrs["axis"] % len(value.shape)
    level, index = _level(value), node.attrs.get("index")
    if level.shape[axis] > 1:
        level = level.take(index if index is not None else np.zeros(1, int), axis)
    axes = list(value.axes)
    axes[axis] = resized(axes[axis], node.shape[axis])
    return tuple(axes), level


def same(node: Node, value):
    """A move that leaves every place where it was (contiguous, clone, a cast)."""
    return value.axes, _level(value)


def parts(node: Node, value):
    """Pairs of reals as complex numbers: the law of either part."""
    level = _level(value)
    return value.axes[:-1], level[..., 0]


def whole(node: Node, value):
    """Complex numbers as pairs of reals, which are two features."""
    return (*value.axes, (Atom(2, FEATURE),)), _level(value)[..., None]


def flip(node: Node, value):
    """Reverse or rotate along axes: places of one axis among themselves."""
    level = _level(value)
    for axis in node.attrs["axes"]:
        level = np.flip(level, axis)
    return value.axes, level


def roll(node: Node, value):
    """Cyclic shift along axes."""
    level = _level(value)
    for axis, shift in zip(node.attrs["axes"], node.attrs["shifts"], strict=True):
        level = np.roll(level, shift, axis) if level.shape[axis] > 1 else level
    return value.axes, level


def pad(node: Node, value):
    """Padding; a filled border becomes levels of its own, copies of the signal keep theirs."""
    widths = node.attrs["widths"]
    level = _level(value)
    axes = tuple(resized(a, n) for a, n in zip(value.axes, node.shape, strict=True))
    if all(level.shape[i] == 1 for i, w in enumerate(widths) if any(w)):
        return axes, level
    full = [
        n if (w != (0, 0) or level.shape[i] > 1) else 1
        for i, (n, w) in enumerate(zip(value.shape, widths, strict=True))
    ]
    level = np.broadcast_to(level, full)
    for i, (before, after) in enumerate(widths):
        if before < 0 or after < 0:
            level = level[(slice(None),) * i + (slice(max(-before, 0), level.shape[i] - max(-after, 0)),)]
    copied = {"reflect": "reflect", "circular": "wrap"}.get(node.attrs.get("mode", ""), "edge")
    return axes, np.pad(level, [(max(b, 0), max(a, 0)) for b, a in widths], mode=copied)  # type: ignore[call-overload]


def _filled(node: Node, out: Law, law: Law) -> Law:
    """Give padded places the constant they are filled with."""
    widths = node.attrs["widths"]
    shape = [n if w != (0, 0) else 1 for n, w in zip(node.shape, widths, strict=True)]
    border = np.zeros(shape, bool)
    for i, (before, after) in enumerate(widths):
        edge = (slice(None),) * i
        if before > 0:
            border[(*edge, slice(0, before))] = True
        if after > 0:
            border[(*edge, slice(shape[i] - after, None))] = True
    values = np.concatenate([out.values, np.full((1, out.values.shape[1]), float(node.attrs["value"]))])
    level = np.where(border, len(out.values), out.level).astype(np.int32)
    values, level = compress(values, level)
    return replace(out, values=values, level=level, given={})


HOW = {
    "reshape": reshape,
    "permute": permute,
    "expand": expand,
    "slice": slice_,
    "select": select,
    "gather": gather,
    "same": same,
    "parts": parts,
    "whole": whole,
    "flip": flip,
    "roll": roll,
    "pad": pad,
}
