"""What a norm over places divides by, channel by channel: how far it strays, and what channels have in common of it.

Channel c is divided by its own ``s_c^2``, near enough ``v chi^2_f / f`` (see ``theory.statistic``), and the mean of
``G_c / s_c^2`` over n channels has the relative variance ``E[G^2] V / n`` beyond that of G, with V that of
``1/chi^2_f``: by the variance of its logarithm, trigamma(f/2), which few degrees of freedom leave finite. Statistics of
one channel at different places are as alike as their elements: by the mean of rho^2, rho centred.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import polygamma

from fanin.theory.law import FEATURE, Groups, Law
from fanin.theory.statistic import freedom, pair_counts, shared_moment
from fanin.theory.width import pairs


def over_places(attrs: Mapping[str, Any], x: Law) -> bool:
    """Whether a statistic is over places of one feature."""
    over = _over(attrs, x)
    return bool(over) and FEATURE not in over


def _over(attrs: Mapping[str, Any], x: Law) -> Groups:
    return frozenset(t.group for k in attrs["axes"] for t in x.axes[k] if t.size > 1)


def dispersion(attrs: Mapping[str, Any], x: Law) -> float:
    """Relative variance of the mean over all statistics of ``1/s^2``, times the number of features."""
    shared = shared_moment(x, attrs["axes"]) if attrs.get("centred", True) else None
    f = freedom(x, attrs["axes"], 1, shared)
    if not 0 < f < np.inf:
        return 0.0
    return float(np.expm1(polygamma(1, f / 2))) * _alike(attrs, x)


def _alike(attrs: Mapping[str, Any], x: Law) -> float:
    """Mean over pairs of statistics of a feature of how alike they are, one and itself included."""
    over = _over(attrs, x)
    apart: dict[Groups, float] = {}
    for differ, share in pairs.shares(x):
        apart[differ - over] = apart.get(differ - over, 0.0) + share
    own = _agreement(attrs, x, frozenset())
    return sum(share * (min(_agreement(attrs, x, s) / own, 1.0) if s else 1.0) for s, share in apart.items())


def _agreement(attrs: Mapping[str, Any], x: Law, beyond: Groups) -> float:
    """Mean of the squared centred moment over pairs of elements of two statistics."""
    counts = pair_counts(x, attrs["axes"])
    moments = [(p, x.pair(s | beyond) if s | beyond else x.second) for s, p in counts]
    shared = sum(p * m for p, m in moments) if attrs.get("centred", True) else 0.0
    return max(sum(p * (m - shared) ** 2 for p, m in moments), 1e-300)
