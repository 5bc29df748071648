"""Keys that tables of positions turn, each by its own place: what is left of the agreement that tokens have by chance.

Rotary positions (Su et al. 2021, arXiv:2104.09864) make ``R_j W x_j`` of a token's key. Values of two tokens agree by
chance as their inputs do, ``V_jj' = X_jj'``, and so did keys; of turned ones

    E[k_j . k_j'] = x_j W^T R_j^T R_j' W x_j' / d = c_jj' X_jj',    c_jj' = tr(R_j^T R_j') / d,

the mean cosine over frequencies. What a query hears of tokens that agree, ``sum_jj' dl_j dl_j' K_jj'``, is thinned by
the mean of c over pairs: .62 for a map of 14 x 14 patches in DINOv3. Backward the turn is undone, by which the gradient
of the keys' weights, ``sum_jj' (R_j^T d_j) . (R_j'^T d_j') X_jj'``, has the same factor.

A factor of x multiplies the agreement of x by its mean product of two places over its mean square; in sums and in
concatenations of features agreements add by shares of the mean square. Pieces of a sequence agree with each other as
the geometric mean of both says (``E[R]`` of one beside that of the other).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from fanin.theory.latent import ALONG
from fanin.theory.law import Law
from fanin.theory.records import replace
from fanin.theory.words import broadcast_axes


def left_by(table: Law) -> float:
    """Mean product of a factor at two places over its mean square."""
    differ = table.groups & ALONG or table.groups
    return table.pair(differ) / table.second if differ and table.second > 0 else 1.0


def of_product(law: Law, x: Law, y: Law) -> Law:
    """A product of which one factor is told apart by fewer groups: a table of places, whatever the sample."""
    _, (x, y) = broadcast_axes(law.shape, (x, y))
    x, table = (x, y) if y.groups < x.groups else (y, x)
    if not table.groups < x.groups or law.latent.id == x.latent.id:
        return law
    left = x.latent.turned * min(max(left_by(table), -1.0), 1.0)
    return replace(law, latent=replace(law.latent, turned=left))


def of_sum(law: Law, parts: Sequence[Law]) -> Law:
    """A sum of parts, of which some are turned."""
    if all(part.latent.turned == 1.0 for part in parts):
        return law
    return replace(law, latent=replace(law.latent, turned=mean(parts, [1] * len(parts))))


def mean(parts: Sequence[Law], sizes: Sequence[int]) -> float:
    """Of parts side by side or on top of each other, by their shares of the mean square."""
    shares = [part.second * size for part, size in zip(parts, sizes, strict=True)]
    total = sum(shares)
    return sum(s * p.latent.turned for s, p in zip(shares, parts, strict=True)) / total if total > 0 else 1.0


def end_to_end(parts: Sequence[Law], sizes: Sequence[int]) -> float:
    """Of pieces of one sequence, in the mean over pairs of its places."""
    roots = (size * math.sqrt(max(part.latent.turned, 0.0)) for part, size in zip(parts, sizes, strict=True))
    return (sum(roots) / sum(sizes)) ** 2
