"""What tensors the agreement of two places by chance stems from, by which keys and values agree alike.

Gradients of queries, ``sum_j dl_ij k_j``, add up where two tokens agree in keys as they do in values,

    E[sum_jj' K_jj' V_jj'],    K_jj' = k_j . k_j' / d,   V_jj' = v_j . v_j' / d.

Dense layers with weights of their own hand on the agreement of what they read, whole: of keys and values that are read
off one tensor x the product is the square of its scatter. Where x is read by two depthwise convolutions first, and
these by the layers, most of the scatter is of features that the kernels have made, each for itself; what both have of x
is its mean over taps.

A descent lists the tensors (by the latent that was summed over) a law's agreement has come from, the nearest first, the
share of the squared scatter that was there in each, and how it correlates with what it was there: kernels take means of
it over their taps. What is not told further, or not followed, is ``ROOT``.

So do sums: of a residual stream x and a branch y made of it, ``X_jj' + Y_jj'`` agrees by ``w_x + w_y`` where y's
agreement is that of x, not by the root of the squares. What x has of it is its scatter and the chance of the very
features that the branch has read (and whatever reads the sum reads them again).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from fanin.theory.latent import Latent, Scatter

Descent = tuple[tuple[int, float, float], ...]
ROOT = -1
LONGEST = 8  # a cost, not a figure: keys and values part a few layers before they meet


def summed(x: Latent, inherited: Scatter, whole: Scatter, near: tuple[float, float]) -> Descent:
    """Of sums over x: all of their agreement is that of x, and a share of it what x had of what it was summed from.

    Args:
        near: what taps leave of the whole and of what was inherited, as standard deviations.
    """
    share = min((inherited.whole / whole.whole) ** 2, 1.0) if whole.whole > 0 else 1.0
    before = [(i, s * share, c * near[1]) for i, s, c in x.descent or ((ROOT, 1.0, 1.0),)]
    told, rest = before[: LONGEST - 1], before[LONGEST - 1 :]
    return ((x.id, 1.0, near[0]), *told, *([(ROOT, *rest[0][1:])] if rest else []))


def of_lengths(x: Latent, share: float, left: float) -> Descent:
    """The same of the lengths of sums over x, of which a share is what x had and the rest the chance of its features.

    Args:
        left: what the mean over taps leaves.
    """
    return ((x.id, 1.0, left), *((i, s * share, c * left) for i, s, c in x.lineage[: LONGEST - 1]))


class Met(NamedTuple):
    """The nearest tensor that two laws have heard: the shares of their squared scatter, and how these correlate."""

    id: int
    shares: tuple[float, float]
    alike: float


def met(one: Descent, other: Descent) -> Met | None:
    """What two have in common; the same taps of two kernels take the same means."""
    theirs = {i: (s, c) for i, s, c in other}
    for i, s, c in one:
        if i in theirs:
            t, d = theirs[i]
            return Met(i, (s, t), min(c, d) / max(c, d) if max(c, d) > 0 else 1.0)
    return None


def in_common(one: Descent, other: Descent) -> float:
    """Correlation of the agreements of two laws; one where it was not followed."""
    if not (one and other):
        return 1.0
    found = met(one, other)
    return found.alike * math.sqrt(math.prod(found.shares)) if found else 0.0


def renamed(descent: Descent, name: Callable[[int], int]) -> Descent:
    """With other identities."""
    return tuple((i if i == ROOT else name(i), s, c) for i, s, c in descent)
