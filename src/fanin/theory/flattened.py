"""Maps that are read as sequences: what a border has beside the middle is scatter of the correlations.

Behind zero padding places at the border have fewer taps, so that of what all places have in common less reaches them:
pairs of places differ in how alike they are, by kind (see ``border``), for every feature in the same way. A dense layer
over tokens no longer knows where on the map a token was. What is kept is how far the correlation of a pair ``R_ab`` is
from its mean: what a place has beside all others, ``m_a = mean_b R_ab``, and the rest,

    known^2 = mean_ab (R_ab - m_a - m_b + m)^2,    single^2 = 2 mean_a (m_a - m)^2.

Keys and values of a padded map agree by it, which queries hear: with four fifths of the signal in common their
gradients were 60 % too small without.
"""

from __future__ import annotations

import math

import numpy as np

from fanin.theory import border
from fanin.theory.law import Law
from fanin.theory.records import replace


def scattered(x: Law) -> Law:
    """The law with the scatter of a border that its latent carries from a map that its axes no longer form."""
    found = x.latent.border
    if found is None or border.carried(x) is not None:
        return x
    count = border.kinds(found.sizes).count
    spread = dict(x.latent.spread)
    for differ, corr in found.corr.items():
        if corr.ndim == 2:
            known, single = deviations(corr, count / count.sum())
            before = x.spread(differ)
            spread[differ] = before._replace(
                known=math.hypot(before.known, known), single=math.hypot(before.single, single)
            )
    return replace(x, latent=replace(x.latent, spread=spread, border=None))


def deviations(corr: np.ndarray, share: np.ndarray) -> tuple[float, float]:
    """Standard deviations of correlations by kind (kinds, kinds): beyond those of either place, and of both places."""
    rows = corr @ share
    mean = float(share @ rows)
    rest = corr - rows[:, None] - rows[None, :] + mean
    return math.sqrt(float(share @ rest**2 @ share)), math.sqrt(2 * float(share @ (rows - mean) ** 2))
