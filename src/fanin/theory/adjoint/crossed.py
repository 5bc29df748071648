"""Parts that know of each other's ``R`` (``radial``): what pairs of them add to the mean square at every place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fanin.theory.adjoint.amounts import as_profile, fitting
from fanin.theory.adjoint.cotangent import Part
from fanin.theory.law import Law


def crossed(law: Law, parts: Sequence[Part]) -> np.ndarray:
    """At every place twice the sum of E[g g'] over pairs of parts of which one is known to the other."""
    return _beside_shared(law, parts) + _beside_along(law, parts)


def _beside_along(law: Law, parts: Sequence[Part]) -> np.ndarray:
    """One a number c in proportion to the signal, ``c x_j / s`` of the j-th of n features: ``(2/n) c R / s``."""
    size, whole = {id(p): p.profile(law) for p in parts}, np.zeros((1,) * len(law.shape))
    for one, other in ((a, b) for a in parts for b in parts if a.along and a is not b and not b.along):
        if one.radial is not None and other.radial is not None:
            common = sum(value * other.radial.get(name, 0.0) for name, value in fitting(one.radial, law).items())
            whole = whole + 2 * as_profile(common, law) / one.along * np.sqrt(size[id(one)] * size[id(other)])
    return whole


def _beside_shared(law: Law, parts: Sequence[Part]) -> np.ndarray:
    """One a number that all features share.

    What is divided by a sum gets ``g_j - sum_k w_k g_k``. A number of size v that has c in common with the other's
    ``R`` has ``c E[x_j] / rms(x) sqrt(E g^2 / n) v`` in common with the j-th of its n features.
    """
    whole, size = 0.0, {id(p): p.mean_profile(law) for p in parts}
    for one in parts:
        if not one.alike or one.radial is None or law.mean == 0:
            continue
        unit = float(np.sqrt(one.alike * (law.level_weight @ law.means**2) / law.second))
        for other in parts:
            if other is one or other.alike or other.radial is None:
                continue
            common = sum(value / unit * other.radial.get(name, 0.0) for name, value in one.radial.items())
            whole += 2 * float(np.mean(common)) * np.sqrt(size[id(other)] * size[id(one)] / one.alike)
    return whole * law.means[law.level] / law.rms
