"""The parts that reach a tensor from all that read it, joined: functions on one base add, plain parts become one."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fanin.theory import grid
from fanin.theory.adjoint import amounts, between, lagged, orthogonal, radial, roots, sequence, summand, tied
from fanin.theory.adjoint.cotangent import ALIGNED, Cotangent, Part, both, fresh, identity
from fanin.theory.adjoint.crossed import crossed
from fanin.theory.law import Law, subsets
from fanin.theory.records import replace


def gathered(law: Law, parts: list[Part], meets: frozenset[int] = frozenset(), last: bool = False) -> Cotangent:
    """Join parts: those of one base add their functions, those without a function are summed into one.

    Args:
        meets: operands of the node whose gradients meet what it is added to (``meeting``).
        last: whether parts that wait for their base have met it here, or will not.
    """
    by_base: dict[int, Part] = {}
    for part in between.together(law, _recognized(parts)):
        old = by_base.get(part.base)
        if old is None:
            by_base[part.base] = part
        elif (times := _factor(old, part)) is not None:
            by_base[part.base] = _on_one_base(law, old, times)
        elif (met := _place_by_place(old, part, law)) is not None:
            by_base[part.base] = met
        else:  # the same base at different places (two slices of one tensor): they do not meet
            by_base[identity()] = part
    if last:
        by_base = {base: replace(p, awaited=False) if p.awaited else p for base, p in by_base.items()}
    means = {id(p): p.mean_profile(law) for p in by_base.values()}
    slight = 1e-2 * sum(means.values())  # what hardly counts need not follow the latent
    if _beside_each_other(by_base.values()) and np.abs(crossed(law, list(by_base.values()))).max() > slight:
        return Cotangent(law, (_merged(law, [_without_form(p, law) for p in by_base.values()]),), meets)
    parts = [_without_form(p, law) if means[id(p)] < slight else p for p in by_base.values()]
    parts = [replace(p, along=0) if p.along else p for p in map(roots.flat, parts)]
    plain = [p for p in parts if p.values is None and not p.awaited and not p.crossed]
    rest = [p for p in parts if p.values is not None or p.awaited or p.crossed]
    if len(plain) > 1:
        plain = [_merged(law, plain)]
    return Cotangent(law, (*plain, *summand.joined(rest, law)), meets)


def _recognized(parts: list[Part]) -> list[Part]:
    """Parts on the bases that they were made of where others are on these, too; else on their own."""
    if not any(p.same for p in parts):
        return parts
    bases = [{one.base for one in p.same or (p,)} for p in parts]
    met = [any(own & other for j, other in enumerate(bases) if j != i) for i, own in enumerate(bases)]
    own = lambda p, met: (p,) if not p.same else p.same if met else (replace(p, same=()),)  # noqa: E731
    return [one for p, is_met in zip(parts, met, strict=True) for one in own(p, is_met)]


def _factor(old: Part, part: Part) -> Part | None:
    """The part with the mean square of another on its base, a factor in its function; None where places differ."""
    if old.second.shape != part.second.shape:
        return None
    if _alike(old.second, part.second):
        return part
    mean = old.mean_second
    factor2 = part.mean_second / mean if mean > 0 else 0.0
    if not 0 < factor2 < np.inf or not _alike(factor2 * old.second, part.second):
        return None
    values = np.ones((1, grid.POINTS)) if part.values is None else part.values
    return replace(part, second=old.second, values=np.sqrt(factor2) * values)


def _alike(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether mean squares are equal but for rounding."""
    with np.errstate(invalid="ignore"):
        return a is b or bool((((np.abs(a - b) <= 1e-9 * np.abs(b)) & np.isfinite(b)) | (a == b)).all())


def _place_by_place(old: Part, part: Part, law: Law) -> Part | None:
    """Two parts of the same random numbers, each times one number a place, that were kept apart to meet."""
    if not (old.awaited or part.awaited):
        return None
    sizes = [_number(p) for p in (old, part)]
    if any(size is None for size in sizes):
        return None
    sum_ = sizes[0] * np.sqrt(old.second) + sizes[1] * np.sqrt(part.second)
    values = np.full((len(law.values), grid.POINTS), -1.0) if np.all(sum_ <= 0) else None
    return replace(old, second=sum_**2, values=values, balanced=both(old, part), radial=None)


def _number(part: Part) -> float | None:
    """The one value that a part's function takes, or None."""
    if part.values is None:
        return 1.0
    first = float(part.values.flat[0])
    return first if np.ptp(part.values) <= 1e-6 * abs(first) else None


def _on_one_base(law: Law, old: Part, part: Part) -> Part:
    """Two parts of the same random numbers as one."""
    sum_ = replace(old, values=_plus(old.values, part.values, law), balanced=both(old, part))
    return replace(sum_, radial=radial.added(law, old, part, sum_))


def _without_form(part: Part, law: Law) -> Part:
    if part.base == ALIGNED:
        return fresh(
            part.profile(law), {s: part.pair(law, s) / max(part.pair(law, frozenset()), 1e-300) for s in part.ratio}
        )
    plain = replace(orthogonal.folded(part, law), white=part.white * part.straight(law))
    return replace(plain, radial=radial.without_form(part, law, plain))


def _plus(a: np.ndarray | None, b: np.ndarray | None, law: Law) -> np.ndarray:
    one = np.ones((len(law.values), grid.POINTS))
    return (one if a is None else a) + (one if b is None else b)


def _crossed(law: Law, parts: list[Part]) -> np.ndarray:
    return crossed(law, parts) if _beside_each_other(parts) else np.zeros((1,) * len(law.shape))


def _beside_each_other(parts: Iterable[Part]) -> bool:
    """Whether features may have numbers in common."""
    return any(p.alike or p.along for p in parts)


def _merged(law: Law, parts: list[Part]) -> Part:
    means = [p.mean_second for p in parts]
    total = sum(means)
    ratio = {
        s: sum(m * p.ratio.get(s, 0.0) for m, p in zip(means, parts, strict=True)) / total if total else 0.0
        for s in subsets(law.groups)
    }
    common = roots.common(law, parts, ratio)
    matrix = common.matrix if common.matrix is not None else sequence.correlation(Cotangent(law, tuple(parts)))
    whole = Cotangent(law, tuple(parts))
    second = sum((p.second for p in parts), np.zeros(())) + common.more
    alone, more = second, _crossed(law, parts)
    if more.any():
        second = np.maximum(second + more, 0.0)
    merged = fresh(second, common.ratio, matrix=matrix, balanced=both(*parts))
    merged = replace(merged, lags=lagged.merged(law, parts))
    known = any(p.radial is not None for p in parts)
    return replace(
        merged,
        met=whole.met,
        heard=whole.heard,
        white=whole.white,
        mirrored=whole.mirrored,
        given=tied.merged(law, parts, means),
        loads=common.loads,
        beside=common.beside,
        orthogonal=orthogonal.merged(parts, means),
        radial=radial.regrouped(radial.of(whole), amounts.grown(law, alone, second)) if known else None,
    )
