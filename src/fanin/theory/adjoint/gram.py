"""Backward through a Gram matrix ``x x^T``: (g + g^T) x, whose two paths meet where a row met itself.

Both have ``g_tt x_t``, so that the sum has twice E[g_tt^2 x_t^2] beside what either path sends. That is one number a
row in proportion to the row: where its length was divided out, nothing of it is left.
"""

from __future__ import annotations

import numpy as np

from fanin.theory.adjoint.amounts import table
from fanin.theory.adjoint.cotangent import Cotangent, Part, fresh, identity
from fanin.theory.contraction import axis_groups
from fanin.theory.latent import FEATURE
from fanin.theory.law import Law, subsets
from fanin.theory.records import replace
from fanin.theory.rules.gram import is_gram


def met(g: Cotangent, x: Law, y: Law, parts: list[list[Part]], ix: int) -> list[list[Part]]:
    """What x is sent to other rows, and what both paths send to the row itself; as it was of no Gram matrix.

    The path through the transpose keeps its share of that: it is a tensor of its own.
    """
    if not is_gram(x, y):
        return parts
    rows, profile = x.shape[-2], g.profile()
    square = np.broadcast_to(profile, (*profile.shape[:-2], rows, rows))
    own = float(np.mean(np.trace(square, axis1=-2, axis2=-1))) / max(float(np.mean(square.sum((-2, -1)))), 1e-300)
    whole = np.asarray(sum(p.second for p in parts[ix]))
    itself = fresh(3 * own * whole, dict.fromkeys(subsets(x.groups), 0.0))
    if axis_groups(x.axes[-1]) == {FEATURE}:
        n = x.shape[-1]
        itself = replace(itself, radial=table({identity(): float(np.sqrt(n))}), along=n)
    apart = [replace(p, second=p.second * (1 - own)) for p in parts[ix]]
    return [[*apart, itself] if i == ix else sent for i, sent in enumerate(parts)]
