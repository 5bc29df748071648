"""Latents: whose functions the elements of tensors are, and how latents of different places correlate."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fanin.theory.records import replace

if TYPE_CHECKING:
    from fanin.theory.border import Border
    from fanin.theory.lags import Lags

FEATURE = "feature"
ALONG = frozenset(("position",))
Groups = frozenset[str]
PART = "part"


@dataclass(frozen=True, slots=True)
class Atom:
    """A factor of an axis: its size and the group it belongs to (``feature``, ``sample``, ``position``, ...)."""

    size: int
    group: str


Axis = tuple[Atom, ...]

_fresh = itertools.count()


@dataclass(frozen=True)
class Source:
    """What keys, values and logits were made of: two that were made of one tensor know of each other.

    Attributes:
        id: of the latent of the tensor that fresh weights summed over.
        width: over how many features; of logits, over as many independent ones as make keys agree as they do.
        terms: of logits, the features of a head that were summed over; else 0.
        variance: of softmax weights, that of their logits within a row; else 0.
        keep: share of softmax weights that dropout keeps.
        share: of the logits' variance within a row, that of queries and keys; a drawn bias has the rest.
        sphere: of keys and logits, the dimensions of the sphere that keys lie on; 0 where they do not, and where they
            differ more in length than Gaussians minus the relative variance of its square (see ``lengthy``).
        long: of logits, by how much the squared length of queries strays beyond that of Gaussians.
        steady: of logits, whether the length of queries is divided out.
        across: of softmax weights, whether rows lie along the last axis but one.
        cut: of softmax weights, whether some of a row were left out, so that the rest sums to less than one (sinks).
        descent: of logits and softmax weights, where the agreement of keys stems from (see ``descent``).
    """

    id: int
    width: float
    terms: int = 0
    variance: float = 0.0
    keep: float = 1.0
    share: float = 1.0
    sphere: float = 0.0
    steady: bool = False
    long: float = 0.0
    cut: bool = False
    across: bool = False
    descent: tuple[tuple[int, float, float], ...] = ()


class Scatter(NamedTuple):
    """Standard deviations of a correlation over pairs of places, by what makes pairs differ.

    Attributes:
        known: inputs that are known.
        earlier: chance over the features of layers before the last, the same for all features.
        latest: chance over the features that the last layer summed, the same for all features.
        own: chance over the few inputs of a group of features, for every group anew.
        single: known, and the same for a place beside all others (which drops out behind a softmax).
    """

    known: float = 0.0
    earlier: float = 0.0
    latest: float = 0.0
    own: float = 0.0
    single: float = 0.0

    @property
    def whole(self) -> float:
        """Of all pairs."""
        return math.hypot(*self)

    @property
    def certain(self) -> float:
        """Of all pairs as far as it is known."""
        return math.hypot(self.known, self.single)

    def times(self, factor: float) -> Scatter:
        """All of it by one factor."""
        return Scatter(*(s * factor for s in self))


class Uneven(NamedTuple):
    """Thirds of excess kurtosis of channels over their places (see ``uneven``).

    Attributes:
        own: of one channel.
        common: of what channels have in common, the covariance of two channels' squares over places.
        inside: of one channel, as far as the values of the law have it: behind a batch norm.
        few: of one channel, for so few places that one of them counts in what they are divided by.
    """

    own: float = 0.0
    common: float = 0.0
    inside: float = 0.0
    few: float = 0.0


@dataclass(frozen=True)
class Latent:
    """Identity of a latent and how it correlates between places.

    Attributes:
        id: equal ids mean the same z at the same place.
        corr: correlation of the latents of two places that differ in exactly the groups of the key.
        feature_view, place_view: how the tensor was rearranged since the latent was made, along features and along
            places; two tensors are aligned where both agree.
        matrix: correlation between every two positions, where they differ (see ``places``).
        source: what the elements are a weighted sum of, where that is known.
        spread: standard deviations of the correlation over the pairs that ``corr`` is the mean of (see ``spread``).
        mean_of: of means over places: id and views of the latent that was averaged, and its correlation with this one.
        excess: what the law of the weights adds to the relative variance of a feature's mean square over places.
        picked: of how many the largest few are (see ``rules.picked``); 0 where they are not.
        border: correlations between places of a map by how near they are to its border (see ``border``).
        lags: correlations between places of a map by how far apart they are (see ``lags``).
        terms: of a sum, the latents (id and views) that it was made of and its correlation with each.
        uneven: how far a channel over its places is from a Gaussian.
        aside: by how much less its places correlate than ``corr`` says, for what they were made of was uneven.
        sphere: over how many features the length of a place was divided out; 0 where it was not.
        held, level: what is held of it in a sum: the squared length of n features has the relative variance
            ``(2 / n)(1 - held)``, the square of their mean the share ``(1 - level) / n``.
        reach: of scatter that is known, earlier and latest, how far along a map it reaches (see ``folds``).
        mirrored: correlation with what is at minus the index along the axes that a Fourier transform runs over.
        length_of: of lengths over features: id and views of the latent they are of, and over how many.
        across: by how much the kurtosis over features exceeds three, in thirds: of sums of few inputs, whose lengths
            differ.
        pieces: of a concatenation of features: its axis, and of every piece how many they are, its latent, and its
            mean square over that of its levels, which many pieces share.
        descent: the tensors that the agreement of its places stems from, nearest first (see ``descent``).
        lineage: the same of the lengths of its places.
        turned: what turns by place have left of that agreement, in the mean over pairs (see ``turns``).
        settled: behind a norm over places, over which groups, the values that it made, and of how many degrees of
            freedom the variance of these is, which only eps lets stray.
        heard: channels that kernels of one channel have made it of (see ``branches``).
        kin: the weights that made it, where these make others, too: two such tensors agree by chance as places of one.
    """

    id: int
    corr: Mapping[Groups, float]
    feature_view: tuple = ()
    place_view: tuple = ()
    matrix: np.ndarray | None = None
    source: Source | None = None
    spread: Mapping[Groups, Scatter] = field(default_factory=dict)
    mean_of: tuple[int, tuple, tuple, float] | None = None
    picked: int = 0
    border: Border | None = None
    lags: Lags | None = None
    excess: float = 0.0
    terms: Mapping[tuple, float] = field(default_factory=dict)
    uneven: Uneven = field(default_factory=Uneven)
    aside: float = 0.0
    sphere: int = 0
    held: float = 0.0
    level: float = 0.0
    reach: tuple[float, float, float] = (0.0, 0.0, 0.0)
    mirrored: float = 0.0
    length_of: tuple[int, tuple, tuple, int] | None = None
    pieces: tuple[int, tuple[tuple[int, Latent, float], ...]] | None = None
    across: float = 0.0
    descent: tuple[tuple[int, float, float], ...] = ()
    lineage: tuple[tuple[int, float, float], ...] = ()
    turned: float = 1.0
    settled: tuple[Groups, np.ndarray, float] | None = None
    heard: tuple[tuple[int, float, float], ...] = ()
    kin: tuple | None = None

    def aligned(self, other: Latent) -> bool:
        """Whether elements at one place are functions of the same z."""
        return self.id == other.id and self.feature_view == other.feature_view and self.place_view == other.place_view

    @property
    def made_of(self) -> Mapping[tuple, float]:
        """The independent latents that it is a sum of, itself where it is none."""
        if not (self.feature_view or self.place_view):
            return self.terms or {self.made_of_itself: 1.0}
        if not any(part_of(key) is not None for key in self.terms):
            return {self.made_of_itself: 1.0}
        return {(i, (*f, *self.feature_view), p): c for (i, f, p), c in self.terms.items()}

    def viewed(self, mark: tuple, groups: Groups) -> Latent:
        """The latent of other places along some groups: what varies along none of these is still the same."""

        def moved(key: tuple) -> tuple:
            along = part_of(key)
            return key if along is not None and not along & groups else (*key[:2], (*key[2], mark))

        told = any(part_of(key) is not None for key in self.terms)
        terms = {moved(key): c for key, c in self.terms.items()} if told else self.terms
        return replace(self, place_view=(*self.place_view, mark), terms=terms)

    def part(self, along: Groups) -> tuple:
        """Name of its part that varies along some groups (see ``parts``)."""
        return self.id, self.feature_view, ((PART, along),)

    def in_common(self, other: Latent) -> float:
        """Correlation with another latent at the same place, from the summands of both.

        Summands that were read at two places of one sequence (steps of a recurrence) correlate as these do.
        """
        mine, theirs = self.made_of, other.made_of
        found = sum(c * theirs[key] for key, c in mine.items() if key in theirs)
        for one, terms in ((other, mine), (self, theirs)):
            alike = one.corr.get(ALONG, 0.0) if one.place_view else 0.0
            if alike:
                own, view, here = one.made_of_itself
                others = ((key, c) for key, c in terms.items() if part_of(key) is None)
                found += alike * sum(c for (i, f, p), c in others if i == own and f == view and p and p != here)
        return min(max(found, -1.0), 1.0)

    @property
    def made_of_itself(self) -> tuple[int, tuple, tuple]:
        """Its own name among summands."""
        return self.id, self.feature_view, self.place_view

    def on_sphere(self, other: Latent) -> Latent:
        """The latent of what is divided by the other's law, if that is its own length."""
        if other.length_of is None or other.length_of[:3] != (self.id, self.feature_view, self.place_view):
            return self
        level = self.level if self.sphere == other.length_of[3] else 0.0  # what sums to zero still does
        return replace(self, sphere=other.length_of[3], held=1.0, level=level)

    def steady(self, features: int) -> bool:
        """Whether places have one length over so many features."""
        return self.sphere == features and self.held > 0.999

    def as_mean_of(self, other: Latent) -> float:
        """Correlation with the other latent at the same place, where this one's law is the mean of the other's."""
        if self.mean_of is None or self.feature_view or self.place_view:
            return 0.0
        *of, rho = self.mean_of
        return rho if of == [other.id, other.feature_view, other.place_view] else 0.0


def part_of(key: tuple) -> Groups | None:
    """Along which groups a summand varies, if it is a part of a latent."""
    view = key[2]
    return view[0][1] if view and view[0][0] == PART else None


def fresh_latent(corr: Mapping[Groups, float]) -> Latent:
    """A latent that nothing else shares."""
    return Latent(next(_fresh), corr)


def axis_groups(axis: Axis) -> Groups:
    """Groups in which two places along an axis differ."""
    return frozenset(atom.group for atom in axis if atom.size > 1)


def group_sizes(axes: tuple[Axis, ...]) -> dict[str, float]:
    """Number of places along each group."""
    sizes: dict[str, float] = {}
    for axis in axes:
        for atom in axis:
            sizes[atom.group] = sizes.get(atom.group, 1.0) * atom.size
    return sizes


@functools.lru_cache(maxsize=1024)
def subsets(groups: Groups) -> tuple[Groups, ...]:
    """All non-empty subsets, small ones first."""
    names = sorted(groups)
    return tuple(frozenset(c) for n in range(1, len(names) + 1) for c in itertools.combinations(names, n))
