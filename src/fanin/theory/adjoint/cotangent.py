"""Cotangent: what an element of the gradient with respect to a tensor looks like over random weights.

It is a sum of parts. A part is a base, independent of the tensor's latent and of mean zero, times a function of that
latent: behind an activation g = B f'(z). Parts with one base add before they are squared, so a GELU spelled out in
eight operations has the gradient of a GELU; parts with different bases add in the square.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from fanin.theory import placed
from fanin.theory.law import FEATURE, Axis, Groups, Law, subsets
from fanin.theory.mehler import series, summed
from fanin.theory.moments import mean_of, moments_of
from fanin.theory.records import cached_property

if TYPE_CHECKING:
    from fanin.theory.adjoint.between import Crossed
    from fanin.theory.adjoint.orthogonal import Orthogonal
    from fanin.theory.adjoint.spelled import Chosen
    from fanin.theory.given import Given

_bases = itertools.count()
ALONG = frozenset(("position",))
ALIGNED = -1
"""Base of what is a function of the tensor's latent alone: one everywhere, known to the weights that made it."""


@dataclass(frozen=True, slots=True)
class Divided:
    """What a batch norm divided a cotangent by: ``s^2 + eps`` with ``s^2 = variance chi^2_f / f``, one of each channel.

    Attributes:
        latent: of the tensor whose variance it is.
        slope, curvature: how the cotangent follows the signal, relative to its mean square: the product of its slopes
            at two positions of a sample, and the second derivative of its square (``coherent``).
        along: mean square, a place, of the sum of ``g x^`` that the norm took away, over what it sent back.
        plain: the same of a sum that does not know what comes behind the norm.
        chance: mean square of the correlation that two inputs of a channel have by chance, over its places.
        met: what places of a sample that agree by chance get in common, beside what they had, over what was sent back.
        pieces: the same of every piece of a concatenation of features.
    """

    latent: int
    variance: float
    eps: float
    freedom: float
    slope: float = 0.0
    curvature: float = 0.0
    along: float = 0.0
    plain: float = 0.0
    chance: float = 0.0
    met: float = 0.0
    pieces: tuple[Divided, ...] = ()

    def piece(self, latent: int) -> Divided | None:
        """Of the piece of a concatenation with this latent; None where channels were not told apart by piece."""
        return next((one for one in self.pieces if one.latent == latent), None)


@dataclass(frozen=True, eq=False)
class Part:
    """One part of a cotangent.

    Attributes:
        base: identity of the base; equal ones are the same random numbers.
        second: mean square of the base at every place; axes of the tensor, each full or of size one.
        ratio: correlation of the base between places that differ in the groups of the key.
        values: (levels, POINTS) the function of the tensor's latent, or None for one.
        matrix: correlation of the base between every two positions, where they differ (see ``sequence``).
        lags: the same between places of a map by how far apart they are (see ``lagged``).
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
        same: what it is as a sum of parts on the bases that it was made of, and of a rest, in front of a norm or of
            means over windows: where it meets such a base again, on a skip, both add before they are squared.
        awaited: whether its base is met again before the next weights (``meeting``), so that it stays apart until then.
        given: how the mean square goes with a latent that a factor was a function of (``tied``).
        common: of a weight's gradient, what those of two inputs of one output have in common, over its mean square.
        loads: of which other bases the base is a sum; beside: factors that it was multiplied by since (``roots``).
        gate: a weight that it was multiplied by last, and its loads before.
        crossed: what both operands of a difference of sums over a sequence come to (``between``).
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
    same: tuple[Part, ...] = ()
    awaited: bool = False
    given: Mapping[tuple, Given] = field(default_factory=dict)
    common: float = 0.0
    loads: Mapping[int, float] = field(default_factory=dict)
    beside: tuple[Law, ...] = ()
    gate: tuple[Law, Mapping[int, float]] | None = None
    crossed: Crossed | None = None
    lags: np.ndarray | None = None

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
        found = vars(self).get("_profile")
        if found is None or found[0] is not law:  # all that read the part at a tensor ask again
            found = vars(self)["_profile"] = law, self.second * self.function_squares(law)[law.level]
        return found[1]

    def mean_profile(self, law: Law) -> float:
        """Mean square of the part over all places."""
        if self.values is None:
            return self.mean_second
        found = vars(self).get("_mean")
        if found is None or found[0] is not law:
            by_level, places = placed.sums(self.second, law.level, len(law.values))
            found = vars(self)["_mean"] = law, float(by_level @ self.function_squares(law)) / places
        return found[1]

    def pair(self, law: Law, differ: Groups) -> float:
        """E[g g'] of two places that differ in these groups."""
        if FEATURE in differ:
            return 0.0
        key = differ & law.groups
        if not key:
            return self.mean_profile(law)
        found = vars(self).get("_pairs")
        if found is None or found[0] is not law:  # as with the profile
            found = vars(self)["_pairs"] = law, {}, []
        if key not in found[1]:
            found[1][key] = self._pair(law, key, found[2])
        return found[1][key]

    def _pair(self, law: Law, key: Groups, known: list) -> float:
        from fanin.theory.adjoint.orthogonal import taken

        mean, ratio = self.mean_second, self.ratio.get(key, 0.0)
        less = taken(self, law)
        if self.values is not None and key == ALONG and (self.lags is not None or law.latent.lags is not None):
            from fanin.theory.adjoint.lagged import mean_pair

            found = mean_pair(self, law)
            if found is not None:
                return found - less
        if self.values is None or ratio == 0.0:
            return mean * ratio - less
        if not known:
            own = moments_of(self.values)
            known.append(series(own.hermite, own.seconds, law.level_weight))
        return mean * ratio * summed(known[0], law.correlation(key)) - less


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
        return both(*self.parts) if self.parts else frozenset()

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


def both(*parts: Part) -> Groups:
    """What a sum of parts still sums to zero over."""
    return parts[0].balanced if len({p.balanced for p in parts}) == 1 else frozenset()


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
