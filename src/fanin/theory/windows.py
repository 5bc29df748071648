"""Places that attention tells apart: those of one window, and the windows.

Attention in windows, over patches or along one of several axes mixes the places of its last axes and nothing else: two
places of one window become alike, two windows do not. Where both have the name of one group (they were split from one
axis), the windows get a name of their own, the group's with a mark. Beside a tensor that does not tell them apart the
fine names stay; what moves places across windows (convolutions, shifts, slices, pools) forgets them, and keeps the mean
correlation over pairs and its scatter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product

import numpy as np

from fanin.theory.latent import Scatter
from fanin.theory.law import FEATURE, Atom, Axis, Groups, Law, subsets

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
    sizes: dict[str, float] = {}
    for axis in law.axes:
        for atom in axis:
            sizes[atom.group] = sizes.get(atom.group, 1.0) * atom.size
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


def in_words(ratio: Mapping[Groups, float], source: Law, target: Law) -> dict[Groups, float] | None:
    """Correlations of a cotangent in the words of a tensor that tells windows apart where another does not.

    What is one number for all pairs of places is that of those in one window as of others; of fine names the mean over
    pairs is kept. None where both have the same names.
    """
    fine = {g for g in target.groups - source.groups if g.endswith(MARK) and root(g) in source.groups}
    coarse = {g for g in source.groups - target.groups if g.endswith(MARK) and root(g) in target.groups}
    if not fine and not coarse:
        return None
    sizes: dict[str, float] = {}
    for atom in (atom for axis in source.axes for atom in axis):
        sizes[atom.group] = sizes.get(atom.group, 1.0) * atom.size

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
