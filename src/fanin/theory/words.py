"""Axes of tensors that meet, in the words of one: what tells places apart, samples, positions, features."""

from __future__ import annotations

from functools import lru_cache

from fanin.theory import windows
from fanin.theory.law import FEATURE, Atom, Axis, Groups, Law, subsets
from fanin.theory.records import replace
from fanin.theory.state import SAMPLE, is_free


def broadcast_axes(shape: tuple[int, ...], laws: tuple[Law, ...]) -> tuple[tuple[Axis, ...], list[Law]]:
    """Axes of the broadcast result, and the laws in its words.

    An axis takes the meaning that says most: a place (sample, position) over a feature, a feature over a constant's
    own. A constant's axis takes the place's name; a weight's axis along places (position embeddings) becomes that
    place, with independent latents along it.
    """
    axes = _meeting(shape, tuple(law.axes for law in laws))
    return axes, [law if law.axes == axes else _in_words_of(law, axes) for law in laws]


@lru_cache(maxsize=256)  # every layer asks again
def _meeting(shape: tuple[int, ...], laws: tuple[tuple[Axis, ...], ...]) -> tuple[Axis, ...]:
    ndim, known = len(shape), frozenset()
    axes = []
    for i in range(ndim):
        candidates = [law[i - ndim] if ndim - i <= len(law) else () for law in laws]
        axes.append(_best([a for a in candidates if _size(a) == shape[i] and shape[i] > 1], shape[i], known))
        known |= {a.group for a in axes[-1]} - {FEATURE}
    return tuple(axes)


def _best(candidates: list[Axis], size: int, known: Groups) -> Axis:
    """The axis that says most; one that bears the name of another axis (of rows laid end to end) says less."""
    if not candidates:
        return (Atom(size, FEATURE),) if size > 1 else ()
    rank = lambda a: 0 if is_free(a.group) else 1 if a.group == FEATURE else 2 + a.group.count(windows.MARK)  # noqa: E731
    return max(candidates, key=lambda axis: (max(rank(a) for a in axis), not known & {a.group for a in axis}))


def _size(axis: Axis) -> int:
    size = 1
    for atom in axis:
        size *= atom.size
    return size


def _in_words_of(law: Law, axes: tuple[Axis, ...]) -> Law:
    """The law with its free and feature axes named as the result's places are."""
    names: dict[str, str] = {}
    own = list(law.axes)
    gained: set[str] = set()
    finer = False
    for i, axis in enumerate(own):
        whole = axes[i - len(own)]
        groups = {a.group for a in axis if a.size > 1}
        target = {a.group for a in whole if a.size > 1}
        if not groups or groups == target or _size(axis) != _size(whole):
            continue
        if all(is_free(g) for g in groups):
            names |= dict.fromkeys(groups, whole[0].group)
            own[i] = whole
        elif groups == {FEATURE} and FEATURE not in target:
            own[i] = whole
            gained |= target
        elif windows.roots(frozenset(target)) == groups:
            own[i] = whole
            finer = True
    if tuple(own) == law.axes:
        return _told_apart(law, axes)
    if finer:
        return windows.worded(law, tuple(own))
    corr = {frozenset(names.get(g, g) for g in key): r for key, r in law.latent.corr.items()}
    law = replace(law, axes=tuple(own), latent=replace(law.latent, corr=corr))
    if not gained:
        return law
    corr = {s: 0.0 if s & gained else law.correlation(s) for s in subsets(law.groups)}
    return replace(law, latent=replace(law.latent, corr=corr))


def _told_apart(law: Law, axes: tuple[Axis, ...]) -> Law:
    """With names of their own for axes that share one: places of two axes that were one in between (rows of tokens).

    How alike two are was the same for all pairs, and is for those that differ along either. (Both axes of a map are
    positions, which bear one name for good.)
    """
    own, old = list(law.axes), {}
    for i in range(1, len(own)):
        whole, groups = axes[i - len(own)], {a.group for a in own[i] if a.size > 1}
        target = {a.group for a in whole if a.size > 1}
        before = {a.group for axis in own[:i] for a in axis} - {FEATURE}
        if groups == {SAMPLE} and groups <= before and target and not target & before and FEATURE not in target:
            own[i] = whole
            old |= dict.fromkeys(target, SAMPLE)
    if not old:
        return law
    named = replace(law, axes=tuple(own))
    corr = {s: law.correlation({old.get(g, g) for g in s}) for s in subsets(named.groups)}
    return replace(named, latent=replace(law.latent, corr=corr, matrix=None, border=None, spread={}))


def renamed(law: Law, names: dict[str, str]) -> Law:
    """The law with groups renamed, in its axes and in the correlations of its latent."""
    names = {a: b for a, b in names.items() if a != b}
    if not names:
        return law
    axes = tuple(tuple(Atom(a.size, names.get(a.group, a.group)) for a in axis) for axis in law.axes)
    own = lambda key: frozenset(names.get(g, g) for g in key)  # noqa: E731
    corr = {own(key): r for key, r in law.latent.corr.items()}
    spread = {own(key): s for key, s in law.latent.spread.items()}
    return replace(law, axes=axes, latent=replace(law.latent, corr=corr, spread=spread))
