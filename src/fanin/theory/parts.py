"""Parts of a latent: what its places have in common along which groups, as numbers of their own.

``z = sum_T sqrt(v_T) z_T`` with ``z_T`` the same for places that differ in none of the groups T and fresh for others,
so that places which differ in S correlate by the sum of ``v_T`` over all T that S does not meet: from the correlations
the variances follow by inclusion and exclusion. Two tensors that the same weights made of two inputs have the part in
common that all samples share, and nothing of what tells samples apart; of two views of one sample also some of that.
A latent that is told so names its parts among its ``terms``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fanin.graph import Node
from fanin.theory.latent import FEATURE, Groups, Latent, axis_groups, part_of, subsets
from fanin.theory.law import Law
from fanin.theory.records import replace
from fanin.theory.state import SAMPLE

SLIGHT = 1e-3
"""Correlations below are dropped."""


def by_part(correlation: Callable[[Groups], float], groups: Groups) -> dict[Groups, float]:
    """Variances of parts, by the groups along which they vary, from the correlations of places that differ."""
    every = (frozenset(), *subsets(groups))
    at = {s: correlation(groups - s) for s in every}
    return {t: sum((-1) ** len(t - u) * at[u] for u in every if u <= t) for t in every}


def variances(latent: Latent, groups: Groups) -> dict[Groups, float]:
    """Of a latent's own parts: none is negative, and they sum to one."""
    found = {t: max(v, 0.0) for t, v in by_part(lambda s: latent.corr.get(s, 1.0) if s else 1.0, groups).items()}
    whole = sum(found.values())
    return {t: v / whole for t, v in found.items()} if whole > 0 else {groups: 1.0}


def named(latent: Latent, groups: Groups) -> Latent:
    """The latent with its parts named."""
    if told(latent):
        return latent
    terms = {latent.part(t): float(np.sqrt(v)) for t, v in variances(latent, groups).items() if v}
    return replace(latent, terms=terms, kin=latent.kin or ("one tensor", latent.id))


def cut(node: Node, law: Law, latent: Latent, mark: tuple) -> Latent:
    """The latent of some places of a tensor; halves of a batch know each other as two inputs of one network do."""
    over = axis_groups(law.axes[node.attrs["axis"] % len(law.axes)]) if "axis" in node.attrs else law.groups
    halves = over == {SAMPLE} and node.attrs["how"] == "slice"
    return (named(latent, law.groups) if halves else latent).viewed(mark, over)


def told(latent: Latent) -> bool:
    """Whether the parts of a latent are named."""
    return any(part_of(key) is not None for key in latent.terms)


def shared(one: Latent, other: Latent, differ: Groups) -> float:
    """Correlation of two latents at places that differ in some groups, by the parts that both have."""
    mine, theirs = one.made_of, other.made_of
    found = 0.0
    for key, c in mine.items():
        along = part_of(key) if key in theirs else None
        if along is not None and not along & differ:
            found += c * theirs[key]
    return min(max(found, -1.0), 1.0)


def correlation(x: Law, y: Law, differ: Groups = frozenset()) -> float:
    """The same of two laws' latents, also by summands that are whole: these correlate as their own places do."""
    here = x.latent.in_common(y.latent)
    if not differ:
        return here
    whole = here - shared(x.latent, y.latent, frozenset()) if here else 0.0
    apart = x.correlation(differ) if len(x.latent.made_of) <= len(y.latent.made_of) else y.correlation(differ)
    return float(np.clip(shared(x.latent, y.latent, differ) + whole * apart, -1, 1))


def elsewhere(x: Law, y: Law) -> Groups:
    """Groups that lie along one axis of x and another of y: where tensors meet, their places differ in these."""

    def along(law: Law) -> dict[str, set[int]]:
        found: dict[str, set[int]] = {}
        for i, axis in enumerate(law.axes):
            for atom in axis:
                if atom.size > 1 and atom.group != FEATURE:
                    found.setdefault(atom.group, set()).add(i - len(law.axes))
        return found

    mine, theirs = along(x), along(y)
    return frozenset(g for g in mine.keys() & theirs.keys() if not mine[g] & theirs[g])


def product(x: Law, y: Law, differ: Groups = frozenset()) -> float:
    """E[x y'] at places that differ in some groups, by Mehler's formula."""
    products = _products(x, y, differ)
    return float(products @ correlation(x, y, differ) ** np.arange(len(products)))


def _products(x: Law, y: Law, differ: Groups) -> np.ndarray:
    """Mean products of Hermite coefficients: level by level, where places that are compared are of one level."""
    alone = len(x.values) == 1 or len(y.values) == 1 or differ & (x.level_groups | y.level_groups)
    if alone or x.level.ndim != y.level.ndim:
        return (x.level_weight @ x.coefficients) * (y.level_weight @ y.coefficients)
    try:
        codes, counts = np.unique(x.level.astype(np.int64) * len(y.values) + y.level, return_counts=True)
    except ValueError:  # places that are not laid out alike
        return (x.level_weight @ x.coefficients) * (y.level_weight @ y.coefficients)
    both = x.coefficients[codes // len(y.values)] * y.coefficients[codes % len(y.values)]
    return counts @ both / counts.sum()


def through(law: Law, x: Law) -> Law:
    """The law of what an operation without weights made of x on a latent of its own: parts keep what they are of.

    How much of it each part is the correlations between its own places say: a norm over samples leaves nothing of what
    these have in common, a mean over positions what these have, more or less bent.
    """
    groups = law.groups
    lines: dict[Groups, dict[tuple, float]] = {}
    for key, c in x.latent.made_of.items():
        along = part_of(key)
        if along is None:
            return law
        line = lines.setdefault(along & groups, {})
        line[key] = line.get(key, 0.0) + c
    terms: dict[tuple, float] = {}
    for along, v in variances(law.latent, groups).items():
        line = lines.get(along) or {law.latent.part(along): 1.0}
        size = float(np.sqrt(v / max(sum(c**2 for c in line.values()), 1e-300)))
        terms |= {key: c * size for key, c in line.items() if abs(c * size) > SLIGHT}
    return replace(law, latent=replace(law.latent, terms=terms, kin=x.latent.kin))


def regressed(law: Law, earlier: Sequence[Latent], found: Sequence[Mapping[Groups, float]], kin: tuple) -> Law:
    """The law on parts that are regressions on those of earlier latents, and rests of its own.

    Args:
        found: by earlier latent its correlation with this one, by part.
        kin: the weights that made all of them.
    """
    terms: dict[tuple, float] = {}
    for along, v in variances(law.latent, law.groups).items():
        lines = [{key: c for key, c in latent.made_of.items() if part_of(key) == along} for latent in earlier]
        wanted = np.array([by.get(along, 0.0) for by in found])
        handed: dict[tuple, float] = {}
        if np.any(np.abs(wanted) > SLIGHT):
            among = np.array([[sum(c * b.get(key, 0.0) for key, c in a.items()) for a in lines] for b in lines])
            for share, line in zip(np.linalg.lstsq(among, wanted, rcond=1e-6)[0], lines, strict=True):
                for key, c in line.items():
                    handed[key] = handed.get(key, 0.0) + float(share) * c
        size = float(np.sqrt(sum(c**2 for c in handed.values())))
        most = float(np.sqrt(v))
        handed = {key: c * min(1.0, most / size) for key, c in handed.items()} if size else {}
        rest = float(np.sqrt(max(v - min(size, most) ** 2, 0.0)))
        terms |= {key: c for key, c in (handed | {law.latent.part(along): rest}).items() if abs(c) > SLIGHT}
    return replace(law, latent=replace(law.latent, terms=terms, kin=kin))
