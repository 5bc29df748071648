"""What a linear map leaves of the gradient itself: a norm over places, means over windows.

Both are projections P but for a factor s, and symmetric: with ``k = E[(P g)^2] / E[g^2] = E[g P g] / E[g^2]``

    s P g = s k g + rest,        E[rest^2] = s^2 k (1 - k) E[g^2],

and the rest is uncorrelated with g. On a skip beside the map g is met again: ``g - P g`` has the mean square 1 - k.
Windows are no projection, but the mean over a window correlates with what is in it by its own mean square as long as
pairs of places are all alike, of which pair moments are the means.
"""

from __future__ import annotations

import numpy as np

from fanin.theory import grid
from fanin.theory.adjoint.cotangent import ALIGNED, Cotangent, Part, fresh
from fanin.theory.adjoint.joint import levels_onto
from fanin.theory.adjoint.unary import followed
from fanin.theory.law import Law
from fanin.theory.records import replace


def onto_its_bases(part: Part, g: Cotangent, x: Law, sign: float, keep: float) -> tuple[Part, ...]:
    """The part in front of a map as multiples of the parts behind it and a rest; nothing where places do not match.

    Args:
        part: what the map sends to x.
        g: the cotangent of its result, of the shape of x.
        sign: of the map's factor.
        keep: k, the share of the mean square that the map without its factor leaves.
    """
    values = [_laid(p, g, x) for p in g.parts]
    if not 0 < keep <= 1 or any(v is None or p.base == ALIGNED for v, p in zip(values, g.parts, strict=True)):
        return ()
    size, behind = part.mean_profile(x), g.second
    if not 0 < size < np.inf or behind <= 0:
        return ()
    factor = sign * np.sqrt(size * keep / behind)
    along = [
        replace(followed(p, factor * v, x), radial=None, met=0.0, heard=0.0, white=0.0, same=(), divided=None)
        for p, v in zip(g.parts, values, strict=True)
    ]
    if keep > 1 - 1e-9:
        return tuple(along)
    pairs = {s: (r - keep * g.ratios().get(s, 0.0)) / (1 - keep) for s, r in part.ratio.items()}
    rest = fresh(part.second * (1 - keep), {s: float(np.clip(r, -1, 1)) for s, r in pairs.items()})
    return (*along, rest)


def _laid(part: Part, g: Cotangent, x: Law) -> np.ndarray | None:
    """The part's function at the levels of x; None where these are not levels of the result."""
    ones = np.ones((len(x.values), grid.POINTS))
    first = 1.0 if part.values is None else float(part.values.flat[0])
    if part.values is None or np.ptp(part.values) <= 1e-6 * abs(first):
        return first * ones
    onto = levels_onto(g.law, x)
    return None if onto is None else part.values[onto]


def by_level(profile: np.ndarray, x: Law) -> np.ndarray | None:
    """What a profile is at every level of a law; None where places of one level differ."""
    shape = np.broadcast_shapes(profile.shape, x.level.shape)
    level, profile = np.broadcast_to(x.level, shape).ravel(), np.broadcast_to(profile, shape).ravel()
    found = np.zeros(len(x.values))
    found[level] = profile
    return found if np.allclose(found[level], profile, rtol=1e-6, atol=0) else None
