"""Places that attention tells apart: those of one window, and the windows.

Attention in windows, over patches or along one of several axes mixes the places of its last axes and nothing else: two
places of one window become alike, two windows do not. Where both have the name of one group (they were split from one
axis), the windows get a name of their own, the group's with a mark. Beside a tensor that does not tell them apart the
fine names stay; what moves places across windows (convolutions, slices, pools) forgets them, and keeps the mean
correlation over pairs and its scatter.

A cyclic shift that is followed by windows of the same size lays them across the old ones: along an axis the new window
has ``a`` places of one old window and ``b = w - a`` of the next, so that of its pairs the share

    phi = (prod_i (a_i^2 + b_i^2) / w_i - 1) / (prod_i w_i - 1)

was in one window before; the other pairs of old windows are in different ones now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from fanin.graph import Node
from fanin.theory.latent import Scatter, axis_groups, group_sizes
from fanin.theory.law import FEATURE, Atom, Axis, Groups, Law, subsets
from fanin.theory.records import replace

MARK = "~"


def root(group: str) -> str:
    """The group that a window's name was made of."""
    return group.rstrip(MARK)


def roots(groups: Groups) -> Groups:
    """The groups without marks."""
    return frozenset(root(g) for g in groups)


def apart(law: Law) -> Law:
    """The law with windows (axes before the last two) told apart from the places within."""
    inner = _groups(law.axes[-2:])
    both = (inner & _groups(law.axes[:-2])) - {FEATURE}
    if not both:
        return law
    names = {g: g + MARK for g in both}
    lead = tuple(tuple(Atom(a.size, names.get(a.group, a.group)) for a in axis) for axis in law.axes[:-2])
    old: dict[str, set[str]] = {}
    for g in law.groups:
        old.setdefault(g, set()).add(g)
        if g in names:
            old.setdefault(names[g], set()).add(g)
    return _reworded(law, (*lead, *law.axes[-2:]), old)


def worded(law: Law, axes: tuple[Axis, ...]) -> Law:
    """The law in the words of axes that tell more apart: each of them has the correlation of what it was made of."""
    return _reworded(law, axes, {g: {root(g)} for g in _groups(axes)})


def _reworded(law: Law, axes: tuple[Axis, ...], old: Mapping[str, set[str]]) -> Law:
    fine = replace(law, axes=axes)
    made_of = lambda s: frozenset().union(*(old.get(g, {g}) for g in s))  # noqa: E731
    corr = {s: law.correlation(made_of(s)) for s in subsets(fine.groups)}
    spread = {s: law.spread(made_of(s)) for s in subsets(fine.groups)} if law.latent.spread else {}
    return replace(fine, latent=replace(law.latent, corr=corr, spread=spread, border=None))


def forgotten(law: Law) -> Law:
    """The law with windows no longer told apart: the mean correlation over pairs of places, and its scatter."""
    marked = {g for g in law.groups if g.endswith(MARK)}
    if not marked:
        return law
    sizes = group_sizes(law.axes)
    axes = tuple(tuple(Atom(a.size, root(a.group)) for a in axis) for axis in law.axes)
    corr, spread = {}, {}
    for differ in subsets(roots(law.groups)):
        parts = _finer(differ, law.groups, sizes)
        r = np.array([law.correlation(s) for s, _ in parts])
        scatter = np.array([law.spread(s) for s, _ in parts])
        weight = np.array([w for _, w in parts])
        weight = weight / weight.sum()
        mean = float(weight @ r)
        corr[differ] = mean
        scatter[:, 0] = np.hypot(scatter[:, 0], r - mean)  # which window is which is known
        spread[differ] = Scatter(*(float(s) for s in np.sqrt(weight @ scatter**2)))
    latent = replace(law.latent, corr=corr, spread=spread, border=None)
    return replace(law, axes=tuple(_merged(a) for a in axes), latent=latent)


class Laid(NamedTuple):
    """How windows lie across those before a shift: shares of pairs of one new window, and of two, that were in one."""

    group: str
    inside: float
    between: float


def laid(axes: tuple[Axis, ...], shifts: Mapping[int, int]) -> list[Laid] | None:
    """For every group that has windows, how a cyclic shift along some axes lays them; None where it does not say."""
    found = []
    for group in sorted({root(g) for g in _groups(axes) if g.endswith(MARK)}):
        same, places, count = 1.0, 1.0, 1.0
        for i, axis in enumerate(axes):
            if not {root(g) for g in _groups((axis,))} & {group}:
                continue
            if [atom.group for atom in axis] not in ([group + MARK, group], [group]):
                return None
            width, windows_along = axis[-1].size, axis[0].size if len(axis) > 1 else 1
            head = shifts.get(i, 0) % width if windows_along > 1 else 0
            same *= (head**2 + (width - head) ** 2) / width
            places, count = places * width, count * windows_along
        if places < 2 or count < 2:
            return None
        inside = (same - 1) / (places - 1)
        found.append(Laid(group, inside, (1 - inside) / (count - 1)))
    return found


def across(values: Mapping[Groups, float], how: Sequence[Laid]) -> dict[Groups, float]:
    """Means over pairs of places of new windows, from those of the old, by the groups in which two places differ."""
    found = dict(values)
    for group, inside, between in how:
        mark = group + MARK
        for s in [s for s in found if group in s and mark not in s and s | {mark} in found]:
            one, two = found[s], found[s | {mark}]
            found[s] = inside * one + (1 - inside) * two
            found[s | {mark}] = between * one + (1 - between) * two
    return found


def touched(node: Node, law: Law) -> bool:
    """Whether places move across windows: along an axis that has them, or one of which the node does not say."""
    a = node.attrs
    if "axis" in a:
        axes = [a["axis"] % len(law.shape)]
    elif "widths" in a:
        axes = [i for i, w in enumerate(a["widths"]) if any(w)]
    else:
        axes = list(a.get("axes", range(len(law.shape))))
    windowed = roots(frozenset(g for g in law.groups if g.endswith(MARK)))
    return any(roots(axis_groups(law.axes[i])) & windowed for i in axes)


def shifted(law: Law, shifts: Mapping[int, int]) -> Law:
    """The law of places that were moved in a circle, in words of windows that are where the old ones were."""
    how = laid(law.axes, shifts)
    if how is None:
        return forgotten(law)
    if not how:
        return law
    sets = subsets(law.groups)
    before = {s: law.correlation(s) for s in sets}
    corr = across(before, how)
    spread = {}
    if law.latent.spread:
        scatter = {s: law.spread(s) for s in sets}
        kinds = [across({s: scatter[s][i] ** 2 for s in sets}, how) for i in range(len(Scatter()))]
        squares = across({s: r**2 for s, r in before.items()}, how)  # which window is which is known
        for s in sets:
            known = kinds[0][s] + max(squares[s] - corr[s] ** 2, 0.0)
            spread[s] = Scatter(*(float(np.sqrt(v)) for v in (known, *(k[s] for k in kinds[1:]))))
    return replace(law, latent=replace(law.latent, corr=corr, spread=spread, border=None))


def in_words(ratio: Mapping[Groups, float], source: Law, target: Law) -> dict[Groups, float] | None:
    """Correlations of a cotangent in the words of a tensor that tells windows apart where another does not.

    What is one number for all pairs of places is that of those in one window as of others; of fine names the mean over
    pairs is kept. None where both have the same names.
    """
    fine = {g for g in target.groups - source.groups if g.endswith(MARK) and root(g) in source.groups}
    coarse = {g for g in source.groups - target.groups if g.endswith(MARK) and root(g) in target.groups}
    if not fine and not coarse:
        return None
    sizes = group_sizes(source.axes)

    def mean(s: Groups) -> float:
        named = frozenset(root(g) if g in fine else g for g in s)
        if not coarse:
            return ratio.get(named, 0.0)
        parts = _finer(named, source.groups, sizes)
        return sum(w * ratio.get(t, 0.0) for t, w in parts) / max(sum(w for _, w in parts), 1e-300)

    return {s: mean(s) for s in subsets(target.groups)}


def _finer(differ: Groups, groups: Groups, sizes: Mapping[str, float]) -> list[tuple[Groups, float]]:
    """Sets of fine groups in which two places that differ in these coarse ones may differ, and how often."""
    own = [g for g in sorted(groups) if root(g) in differ]
    found = []
    for same in product((True, False), repeat=len(own)):
        apart = frozenset(g for g, equal in zip(own, same, strict=True) if not equal)
        if roots(apart) == differ:
            found.append((apart, float(np.prod([max(sizes[g] - 1, 1e-12) for g in apart]))))
    return found


def _merged(axis: Axis) -> Axis:
    merged: list[Atom] = []
    for atom in axis:
        if merged and merged[-1].group == atom.group:
            merged[-1] = Atom(merged[-1].size * atom.size, atom.group)
        else:
            merged.append(atom)
    return tuple(merged)


def _groups(axes: tuple[Axis, ...]) -> Groups:
    return frozenset(atom.group for axis in axes for atom in axis if atom.size > 1)
