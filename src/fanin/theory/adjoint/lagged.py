"""Gradients of two places of a map by how far apart they are, as ``lags`` has it of the signal.

A gradient behind an activation follows its latent, of which neighbours have more in common; a pool sends one number to
all places of a window. What sums over places, the gradient of a kernel or of a norm's gain and what the norm takes
away, pairs the moments of both lag by lag: ``sum_d E[g g'](d) E[x x'](d)``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fanin.theory import border, lags
from fanin.theory.adjoint.cotangent import Cotangent, Part
from fanin.theory.lags import PLACES
from fanin.theory.law import Law
from fanin.theory.mehler import series, summed_at
from fanin.theory.moments import moments_of


def told(part: Part, law: Law) -> bool:
    """Whether a part at a tensor of this law tells neighbours from others, by its base or by its function."""
    return part.lags is not None or (part.values is not None and law.latent.lags is not None)


def by_part(part: Part, law: Law) -> np.ndarray | None:
    """E[g g'] of a part by lag; None where the tensor is no map."""
    sizes = border.sizes_of(law)
    if sizes is None:
        return None
    shape, ratio = tuple(len(lags.knots(n)) for n in sizes), part.ratio.get(PLACES, 0.0)
    if part.lags is not None and part.lags.shape == shape:
        base = lags.levelled(part.lags, 1.0, ratio, sizes)
    else:
        base = np.full(shape, ratio)
    found = part.mean_second * base
    if part.values is not None:
        own = moments_of(part.values)
        found = found * summed_at(series(own.hermite, own.seconds, law.level_weight), lags.correlations(law, shape))
    found[(0,) * len(shape)] = part.mean_profile(law)
    return found


def moments(g: Cotangent) -> np.ndarray | None:
    """E[g g'] by lag; None where no part tells any."""
    if not any(told(p, g.law) for p in g.parts):
        return None
    return _summed(g.parts, g.law)


def _summed(parts: Sequence[Part], law: Law) -> np.ndarray | None:
    tables = [t for t in (by_part(p, law) for p in parts) if t is not None]
    return np.sum(tables, 0) if len(tables) == len(parts) else None


def ratios(g: Cotangent) -> np.ndarray | None:
    """The same over the mean square: the correlations of a part that has all of it."""
    found = moments(g)
    return None if found is None or g.second <= 0 else found / g.second


def mean_pair(part: Part, law: Law) -> float | None:
    """The mean over pairs of places; None where no lags are told."""
    found = by_part(part, law)
    sizes = border.sizes_of(law)
    return None if found is None or sizes is None else lags.mean(found, sizes)


def behind_kernel(g: Cotangent, x: Law, strides: Sequence[int], transposed: bool) -> np.ndarray | None:
    """Correlations of what fresh kernels send back: two inputs meet in outputs that read them by one tap.

    With a stride s these are s times nearer to each other, and inputs whose lag is no multiple of it have none.
    """
    found, sizes, out = ratios(g), border.sizes_of(x), border.sizes_of(g.law)
    if found is None or sizes is None or out is None or not len(sizes) == len(out) == len(strides):
        return None
    return lags.along(found, [_sent(n, m, s, transposed) for n, m, s in zip(sizes, out, strides, strict=True)])


def _sent(n: int, m: int, stride: int, transposed: bool) -> np.ndarray:
    own = lags.knots(n)
    if transposed:
        return lags.between(m, own * stride)
    near = lags.between(m, own / stride)
    exact = own < 4  # beyond, a knot stands for all lags near it
    share = np.where(exact, own % stride == 0, np.where(own > 0, 1 / stride, 1.0))
    return near * share[:, None]


def behind_means(
    g: Cotangent, x: Law, windows: Sequence[tuple[int, int, int, int]], *, alone: bool = False
) -> np.ndarray | None:
    """What means over windows send back to two inputs, times their number squared: E[sum g sum g'] over both's windows.

    Args:
        windows: for every axis kernel, stride, padding, dilation.
        alone: without what one window sends to both (a maximum sends it to one).
    """
    found, sizes, out = moments(g), border.sizes_of(x), border.sizes_of(g.law)
    overlap = any(k > stride for k, stride, *_ in windows)
    if sizes is None or out is None or not len(sizes) == len(out) == len(windows) or (found is None and not overlap):
        return None
    if found is None:
        found = np.full(tuple(len(lags.knots(n)) for n in out), g.pair(PLACES))
        found[(0,) * found.ndim] = g.second
    if alone:
        found = found.copy()
        found[(0,) * found.ndim] = 0.0
    return lags.along(found, [gathered(n, m, *w) for n, m, w in zip(sizes, out, windows, strict=True)])


def gathered(n: int, m: int, kernel: int, stride: int, padding: int, dilation: int) -> np.ndarray:
    """Sums over the windows that read an input, and over those of another, of the weights of their lag's knots."""
    rows = []
    for lag in lags.knots(n):
        apart = [
            abs(p - q)
            for at in range(stride)
            for p in _reading(at, kernel, stride, dilation)
            for q in _reading(at + lag, kernel, stride, dilation)
        ]
        inside = [a for a in apart if a < m]
        rows.append(
            lags.between(m, np.array(inside, float)).sum(0) / stride if inside else np.zeros(len(lags.knots(m)))
        )
    return np.stack(rows)


def _reading(at: int, kernel: int, stride: int, dilation: int) -> list[int]:
    """Windows (begun at multiples of the stride, of either sign) that read a place."""
    return [(at - tap * dilation) // stride for tap in range(kernel) if (at - tap * dilation) % stride == 0]


def merged(law: Law, parts: Sequence[Part]) -> np.ndarray | None:
    """Correlations of the sum of parts on bases of their own."""
    whole = sum(p.mean_profile(law) for p in parts)
    found = _summed(parts, law) if any(p.lags is not None for p in parts) and whole > 0 else None
    return None if found is None else found / whole


__all__ = [
    "behind_kernel",
    "behind_means",
    "by_part",
    "gathered",
    "mean_pair",
    "merged",
    "moments",
    "ratios",
    "told",
]
