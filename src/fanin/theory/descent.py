"""What tensors the agreement of two places by chance stems from, by which keys and values agree alike.

Gradients of queries, ``sum_j dl_ij k_j``, add up where two tokens agree in keys as they do in values,

    E[sum_jj' K_jj' V_jj'],    K_jj' = k_j . k_j' / d,   V_jj' = v_j . v_j' / d.

Dense layers with weights of their own hand on the agreement of what they read, whole: of keys and values that are read
off one tensor x the product is the square of its scatter. Where x is read by two depthwise convolutions first, and
these by the layers, most of the scatter is of features that the kernels have made, each for itself; what both have of x
is its mean over taps.

A descent lists the tensors (by the latent that was summed over) a law's agreement has come from, the nearest first, and
the share of the squared scatter that was there in each; what is not told further, or not followed, is ``ROOT``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from fanin.theory.latent import Latent, Scatter

Descent = tuple[tuple[int, float], ...]
ROOT = -1
LONGEST = 8  # a cost, not a figure: keys and values part a few layers before they meet


def summed(x: Latent, inherited: Scatter, whole: Scatter) -> Descent:
    """Of sums over x: all of their agreement is that of x, and a share of it what x had of what it was summed from."""
    share = min((inherited.whole / whole.whole) ** 2, 1.0) if whole.whole > 0 else 1.0
    before = [(i, s * share) for i, s in x.descent or ((ROOT, 1.0),)]
    told, rest = before[: LONGEST - 1], before[LONGEST - 1 :]
    return ((x.id, 1.0), *told, *([(ROOT, rest[0][1])] if rest else []))


def in_common(one: Descent, other: Descent) -> float:
    """Correlation of the agreements of two laws: by the shares that both have of the nearest common tensor."""
    if not (one and other):
        return 1.0
    theirs = dict(other)
    return next((math.sqrt(s * theirs[i]) for i, s in one if i in theirs), 0.0)


def renamed(descent: Descent, name: Callable[[int], int]) -> Descent:
    """With other identities."""
    return tuple((i if i == ROOT else name(i), s) for i, s in descent)
