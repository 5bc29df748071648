"""Attention over tokens of unlike lengths: between batch norms a long key has large logits and a long value.

No norm over features makes tokens equal, and squared lengths stray by V (``Uneven``). Beside a query the logit of a key
of length L is ``s L z``: a mixture of Gaussians in place of one, with heavier tails (L^2 is lognormal). Chosen keys
are long ones, whose values are as long, so that with a = softmax(l)

    E[sum_j a_j^2 v_j^2] = q_v E[sum_j a_j^2 x_j^2],    x^2 = L^2 (1 + (z^2 - 1)/n),

and not ``A q_v``; and a long query looks at fewer keys (its logits' variance is in proportion to its squared length,
``fluctuating``), so that the row's result is long, too. On the way back logits hear of long values, and queries of long
keys besides. All are integrals over u as in ``concentration``, with powers of x^2 in the means over keys.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from fanin.theory.concentration import SHARP, along_query, distinct_lengths, laplace, query_lengths
from fanin.theory.latent import Latent, Source, Uneven, axis_groups
from fanin.theory.law import Law
from fanin.theory.records import replace

LEAST = 0.02
"""Relative variance of squared lengths from which on tokens are told apart."""


def shape_of(latent: Latent) -> float:
    """The law of logits beside a query, as ``concentration`` has it: minus the variance of keys' squared lengths."""
    stray = float(latent.uneven.own + latent.uneven.inside)
    return -round(stray, 2) if stray > LEAST else 0.0


def of_queries(latent: Latent) -> float:
    """Relative variance of the squared length of queries, which all features of a token have in common."""
    return max(float(latent.uneven.common), 0.0) if latent.uneven.common > LEAST else 0.0


class Rows:
    """Moments of rows of weights and of the squared lengths of values and keys, for queries of several lengths.

    A key that was chosen lies along the query: beside a z that is large its square is ``L^2 (1 + (z^2 - 1)/n)`` over as
    many independent features as make tokens agree as they do, and so is that of its value.
    """

    def __init__(self, source: Source, variance: float, counts: np.ndarray, wobble: float):
        distinct, self.at, self.nodes = distinct_lengths(np.maximum(np.asarray(counts, float), 1))
        self.count, self.shape, self.width = np.array(distinct), source.sphere, source.width
        self.factors, self.weights = query_lengths(wobble)
        self.variances, self.dims = [variance * f for f in self.factors], np.shape(counts)

    def each(self, *sums: tuple[float, Sequence[tuple[int, int, int]]]) -> np.ndarray:
        """Sums of ``c E[sum over different keys of products of a_j^k x_j^(2 p) L_j^(2 q)]``, (query lengths, rows)."""
        found = []
        for variance in self.variances:
            total = sum(c * self._moment(variance, powers) for c, powers in sums)
            found.append(np.exp(np.interp(self.at, self.nodes, np.log(np.maximum(total, 1e-300)))))
        return np.stack(found).reshape(len(found), *self.dims)

    def mean(self, *sums: tuple[float, Sequence[tuple[int, int, int]]], power: int = 0) -> np.ndarray:
        """Mean over queries, times a power of their squared length."""
        return np.tensordot(self.weights * self.factors**power, self.each(*sums), 1)

    def along(self) -> np.ndarray:
        """Mean over queries of ``E[sum_j a_j^2 (z_j - m)^2]``: values along the query have m, their mean, taken off."""
        each = [along_query(v, self.count, self.shape) / v for v in self.variances]
        found = [np.exp(np.interp(self.at, self.nodes, np.log(np.maximum(f, 1e-300)))) for f in each]
        return np.tensordot(self.weights, np.stack(found), 1).reshape(self.dims)

    def _moment(self, variance: float, powers: Sequence[tuple[int, int, int]]) -> np.ndarray:
        n = self.count[:, None]
        s = float(min(math.sqrt(variance), SHARP))
        table = laplace(s, int(self.count[-1]), self.shape)
        own = table.squares
        along = own + (table.z**2 - own) / self.width
        ways = np.prod([np.maximum(n - i, 0.0) for i in range(len(powers))], axis=0)[:, 0]
        factors = np.prod([table.powers[k] @ (table.weight * along**p * own**q) for k, p, q in powers], axis=0)
        left = n - len(powers)
        with np.errstate(invalid="ignore"):
            rest = np.exp(np.where(left > 0, left * table.log[0], 0.0))
        return ways * np.trapezoid(factors * rest, table.t, axis=-1) / math.factorial(sum(k for k, *_ in powers) - 1)


VALUES = ((1.0, ((2, 1, 0),)),)
"""E[sum_j a_j^2 x_j^2]."""
SQUARE = ((1.0, ((4, 2, 0),)), (1.0, ((2, 1, 0), (2, 1, 0))))
"""E[(sum_j a_j^2 x_j^2)^2]."""
LOGITS = ((1.0, ((2, 0, 1),)), (-2.0, ((3, 0, 1),)), (1.0, ((4, 0, 1),)), (1.0, ((2, 0, 1), (2, 0, 0))))
"""E[sum_j a_j^2 (L_j^2 (1 - 2 a_j) + sum_k a_k^2 L_k^2)]: of values as long as keys, across the query."""
QUERIES = ((1.0, ((2, 1, 1),)), (-2.0, ((3, 1, 1),)), (1.0, ((4, 1, 1),)), (1.0, ((2, 0, 1), (2, 1, 0))))
"""The same with x_j^2 of the key that a query hears of."""


def own(values: Law) -> float:
    """Mean square of values beyond what tokens have in common."""
    return max(values.second - values.pair(axis_groups(values.axes[-2])), 0.0)


def kept(law: Law, of: Law) -> Law:
    """The law with the lengths of another."""
    made = of.latent
    return (
        replace(law, latent=replace(law.latent, uneven=made.uneven, lineage=made.lineage)) if any(made.uneven) else law
    )


def picked(source: Source | None, variance: float, counts: np.ndarray, wobble: float, few: np.ndarray) -> np.ndarray:
    """By what the mean square of ``sum_j a_j v_j`` is larger where chosen keys have long values, over ``A``."""
    if source is None or source.sphere >= 0 or variance <= 0:
        return np.ones(())
    return np.maximum(Rows(source, variance, counts, wobble).mean(*VALUES) / few, 1.0)


def passed(source: Source, variance: float, counts: np.ndarray, wobble: float) -> dict[str, np.ndarray]:
    """What a softmax lets through, by what queries hear more of it, and keys, whose queries are long."""
    rows = Rows(source, variance, counts, wobble)
    across = rows.mean(*LOGITS)
    through = (1 - 1 / rows.width) * across + rows.along() / rows.width
    longer = rows.mean(*LOGITS, power=1) / across
    return {"through": through, "facing": rows.mean(*QUERIES) / across, "longer": longer}


def of_rows(
    source: Source | None, variance: float, count: float, wobble: float, parts: tuple[float, float], heads: float
) -> Callable[[Latent], Latent]:
    """What is long and short of the results of rows of weights.

    Rows differ by the length of their query, which all heads have in common, and by which keys they have chosen.

    Args:
        wobble: relative variance of the variance of logits over queries; ``source.long`` of it all heads share.
        parts: of the results' mean square what ``sum_j a_j^2 x_j^2`` and what rows lean to are multiplied by.
        heads: how many rows of weights a token has.
    """
    if source is None or source.sphere >= 0 or variance <= 0:
        return lambda latent: latent
    rows = Rows(source, variance, np.array([max(count, 1.0)]), wobble)
    mean, square = (rows.each(*sums)[:, 0] for sums in (VALUES, SQUARE))
    row = parts[0] * mean + parts[1] * rows.factors
    between = float(rows.weights @ row**2 - (rows.weights @ row) ** 2)
    within = parts[0] ** 2 * float(rows.weights @ np.maximum(square - mean**2, 0.0))
    shared = between * min(source.long / wobble, 1.0) if wobble > 0 else 0.0
    common = shared + (between - shared + within) / heads
    told = ((source.id, min(shared / common, 1.0), 1.0),) if common > 0 else ()
    return lambda latent: replace(latent, uneven=Uneven(between + within, common), lineage=told)
