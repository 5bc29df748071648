"""Sequences that are laid end to end: places of one piece may be alike in another way than those of another.

Behind a concatenation along positions (class and detection tokens, prompts, the tokens of two modalities) one
correlation for all pairs of places, weighed by their scale, forgets which piece a pair is from. Tokens that start at
zero have nothing; what attention brings is all they have, so that they are as one and a norm makes them as large as
all others. So where pieces of several places differ, the whole carries a matrix over positions (``places``): of each
piece its own pair moments, of places of two pieces the product of their means.

How far two places agree by chance over features (``spread``) is a piece's own, too. Those of two pieces agree as far
as the geometric mean of both says, since they hear the same weights: of pieces with shares w of the places and
deviations d of their pair moments the whole has ``sum w_i d_i``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fanin.theory import places, spread, turns
from fanin.theory.contraction import axis_groups
from fanin.theory.law import Groups, Law, subsets
from fanin.theory.records import replace

UNLIKE = 4.0
"""Mean squares from how many times another's on are not told by one number."""
APART = 0.25
"""Correlations that differ by so much are not, either."""

Names = Sequence[Callable[[Groups], Groups]]


def joined(out: Law, laws: Sequence[Law], sizes: Sequence[int], named: Names, axis: int) -> Law:
    """The concatenation ``out`` of laws along an axis of positions, with a matrix over them where pieces differ.

    Args:
        named: of every piece what it calls groups of the result.
    """
    out = scattered(out, laws, sizes, named, axis)
    out = replace(out, latent=replace(out.latent, turned=turns.end_to_end(laws, sizes)))
    beside = frozenset((places.POSITION,))
    pairs = [law.pair(name(beside)) for law, name in zip(laws, named, strict=True)]
    size = places.length(out)
    if (
        axis_groups(out.axes[axis]) != {places.POSITION}
        or size is None
        or size != sum(sizes)
        or not _differ(laws, sizes, pairs)
    ):
        return out
    at = places.runs(size).index
    start = np.cumsum([0, *sizes[:-1]])
    owner = np.searchsorted(start, at, side="right") - 1
    wanted = np.zeros((len(at), len(at)))
    means = np.zeros(len(at))
    for i, (law, n) in enumerate(zip(laws, sizes, strict=True)):
        mine = np.flatnonzero(owner == i)
        wanted[np.ix_(mine, mine)] = _within(law, n, at[mine] - start[i], pairs[i])
        means[mine] = law.mean
    apart = owner[:, None] != owner[None, :]
    return places.with_matrix(out, np.where(apart, np.outer(means, means), wanted), size)


def scattered(out: Law, laws: Sequence[Law], sizes: Sequence[int], named: Names, axis: int) -> Law:
    """The concatenation with the scatter that pieces have, where any has some; of turned ones it was not followed."""
    if not any(law.latent.spread for law in laws) or any(law.latent.turned != 1.0 for law in laws):
        return out
    share, along, found = np.array(sizes) / sum(sizes), axis_groups(out.axes[axis]), {}
    for differ in subsets(out.groups):
        each = np.array([spread.pair_deviation(law, name(differ)) for law, name in zip(laws, named, strict=True)])
        whole = share @ each if differ & along else np.sqrt(share @ each**2)
        slope = spread.slope(out, differ)
        found[differ] = spread.Scatter(*(float(d) / slope for d in whole)) if slope > 0 else spread.Scatter()
    return replace(out, latent=replace(out.latent, spread=found))


def _differ(laws: Sequence[Law], sizes: Sequence[int], pairs: Sequence[float]) -> bool:
    """Whether pieces of several places differ in scale or in how alike their places are."""
    if places.carried(*laws) is not None:
        return True
    several = [(law.second, pair) for law, n, pair in zip(laws, sizes, pairs, strict=True) if n > 1]
    if len(several) < 2:
        return False
    seconds = [second for second, _ in several]
    alike = [between / second for second, between in several if second > 0]
    return max(seconds) > UNLIKE * min(seconds) or max(alike) - min(alike) > APART


def _within(law: Law, n: int, at: np.ndarray, between: float) -> np.ndarray:
    """Pair moments of a piece of n places at some of them; the diagonal is a place with itself."""
    if places.length(law) == n:
        run = places.runs(n)
        which = np.searchsorted(run.start, at, side="right") - 1
        whole = places.pair_matrix(law, n)
        found = whole[np.ix_(which, which)]
        beside = (which[:, None] == which[None, :]) & ~np.eye(len(at), dtype=bool)
        return np.where(beside, places.neighbours(whole, n)[which][:, None], found)
    return between + (law.second - between) * np.eye(len(at))
