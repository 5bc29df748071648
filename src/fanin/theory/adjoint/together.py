"""What queries, keys and values have along their gradients, and what keys and the values at their places have together.

With ``t_ij = g_i v_j`` a key meets its gradient in ``sum_i a_ij (t_ij - sum_k a_ik t_ik) l_ij``, the value of the same
token in ``sum_i a_ij t_ij``. Given a row's logits, of independent t, the mean product of the two is

    sum_j E[a_j^2 (1 - a_j) l_j],

above zero since large weights are where large logits are. Both numbers go to one token, so they add before they are
squared: at logits of variance 2/3 over 64 keys they correlate by .8. Two rows whose cotangents agree have in common
what a key leans to, ``E[sum_j a_j l_j] = Var(l) (1 - A)`` by Stein's lemma, times the weight of the other.

A query meets its gradient in ``sum_j a_j t_j (l_j - m)``, m the mean logit under the weights. Where a norm behind takes
``g y = sum_j a_j t_j`` away, this loses ``E[sum_j a_j^2 (l_j - m)]^2 / A`` of its mean square: the half at variance 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fanin.theory.adjoint.cotangent import identity
from fanin.theory.adjoint.radial import Radial
from fanin.theory.adjoint.rows import Pairs, Rows
from fanin.theory.concentration import along_logits, key_beside_value, query_beside_result
from fanin.theory.law import Groups, Law


@dataclass(frozen=True, eq=False)
class Behind:
    """What is known of values and of what attention makes of them.

    Attributes:
        name, root: the number that values have along their gradients: identity and root mean square.
        lone: share of a value's mean square that others do not have.
        lost: share of what a row's cotangent had along the row's result that is not there: a norm behind has taken it.
    """

    name: int
    root: float
    lone: float
    lost: np.ndarray

    @property
    def radial(self) -> Radial:
        """Of values."""
        return {self.name: self.root}


def behind(values: Law, keys: Groups, square: float, lost: np.ndarray) -> Behind:
    """Of values at places told apart by ``keys``; ``square`` is that of what they have along their gradients."""
    common = values.pair(keys) / values.second if values.second > 0 and values.shape[-2] > 1 else 0.0
    return Behind(identity(), float(np.sqrt(square)), 1 - min(max(common, 0.0), 1.0), lost)


def radials(rows: Rows, g: Pairs, logits: tuple[float, float], values: Behind) -> tuple[Radial, Radial]:
    """What queries and keys have, over what independence would give.

    Args:
        g: mean squares of the cotangent, row by row, and moments of pairs of rows.
        logits: variance of a row's logits, and of what all of them have in common.
    """
    of_query, of_key, common = _moments(rows, g, logits, values)
    whole = float(np.sqrt(of_key))
    met = float(np.clip(common / max(values.root, 1e-300), -whole, whole))
    rest = float(np.sqrt(max(of_key - met**2, 0.0)))  # the square of a root may be more by a rounding
    return {identity(): float(np.sqrt(of_query))}, {values.name: met, identity(): rest}


def _moments(rows: Rows, g: Pairs, logits: tuple[float, float], behind: Behind) -> tuple[float, float, float]:
    """Mean squares of what queries and keys have, and the mean product of keys' and values', in units of their own."""
    variance, shared = logits
    if rows.through is None or variance <= 0 or not np.any(rows.queries * g.own * rows.through):
        return 1.0, 1.0, 0.0
    own = rows.queries * g.own
    weight, one = own * rows.through, np.ones_like(own)
    of_query, of_key = (float(weight @ f / weight.sum()) for f in along_logits(variance, rows.counts, rows.sphere))
    taken = query_beside_result(variance, rows.counts, rows.sphere) ** 2 / rows.concentrated
    of_query -= float(own @ (behind.lost * taken)) / (float(weight.sum()) * variance)
    lean = variance * (1 - rows.concentrated)
    keys = float(weight.sum()) * (variance + shared)
    values = float(own @ rows.concentrated) + _of_two_rows(rows, g.between, one, one)
    both = float(own @ key_beside_value(variance, rows.counts, rows.sphere)) + _of_two_rows(rows, g.between, one, lean)
    of_key = (of_key * variance + shared) / (variance + shared) + _of_two_rows(rows, g.between, lean, lean) / keys
    common = float(np.sqrt(behind.lone) * both / np.sqrt(keys * values)) if values > 0 else 0.0
    return max(of_query, 0.0), max(of_key, 0.0), common


def _of_two_rows(rows: Rows, between: np.ndarray, one: np.ndarray, other: np.ndarray) -> float:
    """Sum over keys and pairs of different rows that look at them of E[g g'] and of the mean weights times numbers."""
    s, w = rows.weight, rows.queries
    whole = (s * one[:, None] * (rows.both(between) @ (s * other[:, None]))).sum(0)
    return float((whole - (w * np.diag(between) * one * other) @ s**2) @ rows.keys)
