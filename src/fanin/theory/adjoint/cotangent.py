"""Cotangent: what an element of the gradient with respect to a tensor looks like over random weights.

It is a sum of parts. A part is a base, independent of the tensor's latent and of mean zero, times a function of that
latent: behind an activation g = B f'(z). Parts with one base add before they are squared, so a GELU spelled out in
eight operations has the gradient of a GELU; parts with different bases add in the square.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from fanin.theory import grid
from fanin.theory.law import FEATURE, Axis, Groups, Law, mehler, subsets
from fanin.theory.moments import mean_of, moments_of

if TYPE_CHECKING:
    from fanin.theory.adjoint.orthogonal import Orthogonal
    from fanin.theory.adjoint.spelled import Chosen
    from fanin.theory.given import Given

_bases = itertools.count()
ALIGNED = -1
"""Base of what is a function of the tensor's latent alone: one everywhere, known to the weights that made it."""


@dataclass(frozen=True, slots=True)
class Divided:
    """What a batch norm divided a cotangent by: ``s^2 + eps`` with ``s^2 = variance chi^2_f / f``, one of each channel.

    Attributes:
        latent: of the tensor whose variance it is.
        slope, curvature: how the cotangent follows the signal, relative to its mean square: the product of its slopes
            at two positions of a sample, and the second derivative of its square (``coherent``).
        pieces: the same of every piece of a concatenation of features.
    """

    latent: int
    variance: float
    eps: float
    freedom: float
    slope: float = 0.0
    curvature: float = 0.0
    pieces: tuple[Divided, ...] = ()

    def piece(self, number: int, latent: int) -> Divided | None:
        """Of one piece of a concatenation; None where channels were not told apart by piece."""
        found = self.pieces[number] if number < len(self.pieces) else None
        return found if found is not None and found.latent == latent else None


@dataclass(frozen=True, eq=False)
class Part:
    """One part of a cotangent.

    Attributes:
        base: identity of the base; equal ones are the same random numbers.
        second: mean square of the base at every place; axes of the tensor, each full or of size one.
        ratio: correlation of the base between places that differ in the groups of the key.
        values: (levels, POINTS) the function of the tensor's latent, or None for one.
        matrix: correlation of the base between every two positions, where they differ (see ``sequence``).
        balanced: groups over whose places the part sums to exactly zero: behind a softmax what a row has in common
            drops out, and before a norm what its mean takes away. What adds to all of them has no gradient.
        divided: by which variance of its own the part was divided (behind a batch norm), else None.
        met: what E[g g' x x'] of tokens of a sample exceeds E[g g'] E[x x'] by, summed over the others, in units of
            E[g^2] and the own variance of x: keys hear of other tokens as their inputs chance to agree.
        heard: of a row of attention's logits, in the same units: what its terms sum to as keys chance to agree where
            values do; of its weights how far two values agree by chance.
        white: how gradients of two features shun each other where the features agree by chance over places: the
            correlation of the one is ``-white`` times that of the others (behind batch norms, see ``white``).
        orthogonal: a function of the latent whose sum with the base over the places of a feature is zero.
        radial: inner product with the signal over features (``radial``); None is that of independent features.
        alike: how many features get one and the same number, behind a sum over them; 0 where they do not.
        copied: over how many features of an axis of its own (experts) each of many numbers is repeated, behind a sum.
        along: how many features get a number in proportion to the signal, behind its length; 0 where they do not.
        mirrored: as of a latent, its correlation with what is at minus the index.
        chosen: what the gradient of a row of attention's weights or logits is made of (``spelled``).
        exponent: power of four that the mean square is to be multiplied by; rules see parts without one.
        same: the part on the base that it was made of, in front of a norm over features, which keeps all but 1/n:
            where it meets that base again, on a skip over the norm, both add before they are squared.
        awaited: whether its base is met again before the next weights (``meeting``), so that it stays apart until then.
        given: how the mean square goes with a latent that a factor was a function of (``tied``).
        loads: of which other bases the base is a sum; beside: factors that it was multiplied by since (``roots``).
    """

    base: int
    second: np.ndarray
    ratio: Mapping[Groups, float]
    values: np.ndarray | None = None
    matrix: np.ndarray | None = None
    balanced: Groups = frozenset()
    exponent: int = 0
    divided: Divided | None = None
    met: float = 0.0
    heard: float = 0.0
    white: float = 0.0
    orthogonal: Orthogonal | None = None
    radial: Mapping[Any, float] | None = None
    alike: int = 0
    copied: int = 0
    along: int = 0
    mirrored: float = 0.0
    chosen: Chosen | None = None
    same: Part | None = None
    awaited: bool = False
    given: Mapping[tuple, Given] = field(default_factory=dict)
    loads: Mapping[int, float] = field(default_factory=dict)
    beside: tuple[Law, ...] = ()

    @cached_property
    def mean_second(self) -> float:
        """Mean square of the base over all places."""
        return mean_of(self.second)

    def function_squares(self, law: Law) -> np.ndarray:
        """E of the squared function at each level."""
        if self.values is None:
            return np.ones(len(law.values))
        return moments_of(self.values).seconds

    def straight(self, law: Law) -> float:
        """Share of the squared function that is its mean's."""
        if self.values is None:
            return 1.0
        square = float(law.level_weight @ self.function_squares(law))
        return float(law.level_weight @ moments_of(self.values).means) ** 2 / square if square > 0 else 1.0

    def profile(self, law: Law) -> np.ndarray:
        """Mean square of the part at every place."""
        if self.values is None:
            return self.second
        return self._at(law)[1]

    def mean_profile(self, law: Law) -> float:
        """Mean square of the part over all places."""
        return self.mean_second if self.values is None else self._at(law)[2]

    def _at(self, law: Law) -> tuple[Law, np.ndarray, float]:
        """Profile and mean square at the tensor that was asked for last: all that read the part ask again."""
        found = vars(self).get("_found")
        if found is None or found[0] is not law:
            profile = self.second * self.function_squares(law)[law.level]
            found = vars(self)["_found"] = law, profile, mean_of(profile)
        return found

    def pair(self, law: Law, differ: Groups) -> float:
        """E[g g'] of two places that differ in these groups."""
        if FEATURE in differ:
            return 0.0
        key = differ & law.groups
        if not key:
            return self.mean_profile(law)
        from fanin.theory.adjoint.orthogonal import taken

        mean, ratio = self.mean_second, self.ratio.get(key, 0.0)
        less = taken(self, law)
        if self.values is None or ratio == 0.0:
            return mean * ratio - less
        own = moments_of(self.values)
        return mean * ratio * float(law.level_weight @ mehler(own.hermite, own.seconds, law.correlation(key))) - less


@dataclass(frozen=True, eq=False)
class Cotangent:
    """The parts at one tensor, with the tensor's law."""

    law: Law
    parts: tuple[Part, ...]
    meets: frozenset[int] = frozenset()

    def profile(self) -> np.ndarray:
        """Mean square at every place, with the axes of the tensor (each full or one)."""
        return self._profile

    @cached_property
    def _profile(self) -> np.ndarray:
        return sum((p.profile(self.law) for p in self.parts), np.zeros((1,) * len(self.law.shape)))

    @cached_property
    def second(self) -> float:
        """Mean square over all elements."""
        return mean_of(self.profile())

    def pair(self, differ: Groups) -> float:
        """E[g g'] of two places that differ in these groups (same feature)."""
        return sum(p.pair(self.law, frozenset(differ)) for p in self.parts)

    @property
    def balanced(self) -> Groups:
        """Groups over whose places the sum is exactly zero; empty where there are none."""
        return _both(*self.parts) if self.parts else frozenset()

    @property
    def met(self) -> float:
        """Mean over parts of what their tokens meet by chance, by their share of the mean square."""
        return self._by_share([p.met for p in self.parts])

    @property
    def heard(self) -> float:
        """The same of the rows of attention."""
        return self._by_share([p.heard for p in self.parts])

    @property
    def white(self) -> float:
        """The same of gradients of two features, of which only the mean of each function meets."""
        return self._by_share([p.white and p.white * p.straight(self.law) for p in self.parts])

    @property
    def mirrored(self) -> float:
        """The same of how far it is its own mirror (behind Fourier transforms)."""
        return self._by_share([p.mirrored for p in self.parts])

    def _by_share(self, numbers: list[float]) -> float:
        if not any(numbers):
            return 0.0
        shares = [p.mean_profile(self.law) for p in self.parts]
        return sum(s * n for s, n in zip(shares, numbers, strict=True)) / max(sum(shares), 1e-300)

    def ratios(self) -> dict[Groups, float]:
        """Pair moments over the mean square, for every set of groups."""
        second = self.second
        return {s: self.pair(s) / second if second > 0 else 0.0 for s in subsets(self.law.groups)}


def identity() -> int:
    """A new identity, of a base or of another random number."""
    return next(_bases)


@lru_cache(maxsize=4096)
def base_of_sum(base: int, groups: Groups) -> int:
    """The base of what sums random numbers over these groups: the same one wherever the same numbers are summed."""
    return identity()


def fresh(
    second: np.ndarray,
    ratio: Mapping[Groups, float],
    values: np.ndarray | None = None,
    matrix: np.ndarray | None = None,
    balanced: Groups = frozenset(),
) -> Part:
    """A part on a base of its own."""
    return Part(next(_bases), second, dict(ratio), values, matrix, balanced)


def gathered(law: Law, parts: list[Part], meets: frozenset[int] = frozenset(), last: bool = False) -> Cotangent:
    """Join parts: those of one base add their functions, those without a function are summed into one.

    Args:
        meets: operands of the node whose gradients meet what it is added to (``meeting``).
        last: whether parts that wait for their base have met it here, or will not.
    """
    by_base: dict[int, Part] = {}
    for part in _recognized(parts):
        old = by_base.get(part.base)
        if old is None:
            by_base[part.base] = part
        elif (times := _factor(old, part)) is not None:
            by_base[part.base] = _on_one_base(law, old, times)
        elif (met := _place_by_place(old, part, law)) is not None:
            by_base[part.base] = met
        else:  # the same base at different places (two slices of one tensor): they do not meet
            by_base[next(_bases)] = part
    if last:
        by_base = {base: replace(p, awaited=False) if p.awaited else p for base, p in by_base.items()}
    means = {id(p): p.mean_profile(law) for p in by_base.values()}
    from fanin.theory.adjoint.roots import flat

    slight = 1e-2 * sum(means.values())  # what hardly counts need not follow the latent
    if np.abs(_crossed(law, list(by_base.values()))).max() > slight:
        return Cotangent(law, (_merged(law, [_without_form(p, law) for p in by_base.values()]),), meets)
    parts = [_without_form(p, law) if means[id(p)] < slight else p for p in by_base.values()]
    parts = [replace(p, along=0) if p.along else p for p in map(flat, parts)]
    plain = [p for p in parts if p.values is None and not p.awaited]
    rest = [p for p in parts if p.values is not None or p.awaited]
    if len(plain) > 1:
        plain = [_merged(law, plain)]
    return Cotangent(law, (*plain, *rest), meets)


def _recognized(parts: list[Part]) -> list[Part]:
    """Parts on the bases that they were made of where others are on these, too; else on their own."""
    if all(p.same is None for p in parts):
        return parts
    bases = [p.base if p.same is None else p.same.base for p in parts]
    return [p if p.same is None else p.same if bases.count(p.same.base) > 1 else replace(p, same=None) for p in parts]


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
    return replace(old, second=sum_**2, values=values, balanced=_both(old, part), radial=None)


def _number(part: Part) -> float | None:
    """The one value that a part's function takes, or None."""
    if part.values is None:
        return 1.0
    first = float(part.values.flat[0])
    return first if np.ptp(part.values) <= 1e-6 * abs(first) else None


def _on_one_base(law: Law, old: Part, part: Part) -> Part:
    """Two parts of the same random numbers as one."""
    from fanin.theory.adjoint import radial

    both = replace(old, values=_plus(old.values, part.values, law), balanced=_both(old, part))
    return replace(both, radial=radial.added(law, old, part, both))


def _without_form(part: Part, law: Law) -> Part:
    if part.base == ALIGNED:
        return fresh(
            part.profile(law), {s: part.pair(law, s) / max(part.pair(law, frozenset()), 1e-300) for s in part.ratio}
        )
    from fanin.theory.adjoint import radial

    plain = replace(part, second=part.profile(law), values=None, white=part.white * part.straight(law))
    return replace(plain, radial=radial.without_form(part, law, plain))


def _both(*parts: Part) -> Groups:
    """What a sum of parts still sums to zero over."""
    return parts[0].balanced if len({p.balanced for p in parts}) == 1 else frozenset()


def _plus(a: np.ndarray | None, b: np.ndarray | None, law: Law) -> np.ndarray:
    one = np.ones((len(law.values), grid.POINTS))
    return (one if a is None else a) + (one if b is None else b)


def _crossed(law: Law, parts: list[Part]) -> np.ndarray:
    from fanin.theory.adjoint import radial

    return radial.crossed(law, parts) if any(p.alike or p.along for p in parts) else np.zeros((1,) * len(law.shape))


def _merged(law: Law, parts: list[Part]) -> Part:
    means = [p.mean_second for p in parts]
    total = sum(means)
    ratio = {
        s: sum(m * p.ratio.get(s, 0.0) for m, p in zip(means, parts, strict=True)) / total if total else 0.0
        for s in subsets(law.groups)
    }
    from fanin.theory.adjoint import radial, roots, sequence, tied

    common = roots.common(law, parts, ratio)
    matrix = common.matrix if common.matrix is not None else sequence.correlation(Cotangent(law, tuple(parts)))
    whole = Cotangent(law, tuple(parts))
    second = sum((p.second for p in parts), np.zeros(())) + common.more
    met = float(np.mean(_crossed(law, parts))) / total if total else 0.0
    if met:
        second = np.maximum(second + _crossed(law, parts), 0.0)
    merged = fresh(second, common.ratio, matrix=matrix, balanced=_both(*parts))
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
        radial=radial.regrouped(radial.of(whole), 1 + met) if known else None,
    )


def translated(differ: Groups, source: tuple[Axis, ...], target: tuple[Axis, ...]) -> Groups:
    """Groups in the words of another tensor whose axes line up from the right; what both know keeps its name."""
    names: set[str] = set()
    for a, b in zip(reversed(source), reversed(target), strict=False):
        hit = {t.group for t in a if t.size > 1} & differ
        if hit:
            own = {t.group for t in b if t.size > 1}
            names |= (hit & own) or own
    return frozenset(names)


def summed_out(profile: np.ndarray, shape: tuple[int, ...], keep: tuple[int, ...]) -> np.ndarray:
    """Sum of a profile of a tensor of ``shape`` over the axes not kept; they stay with size one."""
    for axis, n in enumerate(shape):
        if axis not in keep:
            total = profile.sum(axis, keepdims=True) if profile.shape[axis] > 1 else profile * n
            profile = total
    return profile
