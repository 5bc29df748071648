"""Maxima over windows of a map whose neighbours are alike: what is known by lag, drawn for one patch of the map.

Elements of a window do not all correlate alike, and windows overlap. Three numbers have no closed form then: how large
the largest is, what two windows' largest have in common, and how often they are one. They are taken from draws of a
Gaussian patch of the map, the same ones every time; how large the largest is, from the ratio to draws of equal
correlation (of the same numbers), for which it is known, as the correlation that has the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np

from fanin.theory import border, lags
from fanin.theory.largest import variance
from fanin.theory.law import Law

DRAWS = 50_000
NUMBERS = 4_000_000
"""Draws of a patch, and numbers drawn at most."""
MOST = 625
"""Places of a patch beyond which elements count as equally alike."""

Windows = Sequence[tuple[int, int, int, int]]
"""For every axis kernel, stride, padding, dilation."""


@dataclass(frozen=True)
class Maxima:
    """Of windows of a map.

    Attributes:
        alike: correlation of exchangeable elements whose largest is as large.
        corr: correlation of the largest of two windows by lag, (lags along each axis), as far as windows overlap.
        same: chance that it is one element, likewise.
        variance: of the largest of standard Gaussians.
    """

    alike: float
    corr: np.ndarray
    same: np.ndarray
    variance: float


def maxima(x: Law, windows: Windows) -> Maxima | None:
    """Of the windows of a map; None where its places are all alike and no windows overlap."""
    sizes = border.sizes_of(x)
    if sizes is None or sizes != tuple(x.shape[2:]) or len(windows) != len(sizes):
        return None
    if not lags.told(x) and all(k <= stride for k, stride, *_ in windows):
        return None
    shape = tuple(len(lags.knots(n)) for n in sizes)
    told, reach = lags.correlations(x, shape), [_reach(k, s, d) for k, s, _, d in windows]
    if np.prod([size for size, _ in reach]) > MOST:
        n, alike, one = int(np.prod([k for k, *_ in windows])), lags.inside(x, windows), np.ones((1,) * len(sizes))
        return Maxima(alike, one, one, alike + (1 - alike) * variance(n))
    near = lags.along(told, [lags.between(n, np.arange(size)) for n, (size, _) in zip(sizes, reach, strict=True)])
    spec = tuple((k, s, d) for k, s, _, d in windows)
    return _drawn(np.round(near, 4).tobytes(), near.shape, spec, tuple(more for _, more in reach))


def _reach(kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Size of a patch with a window and all that overlap with it to one side, and how many these are."""
    span = (kernel - 1) * dilation + 1
    more = (span - 1) // stride
    return span + more * stride, more


@lru_cache(maxsize=64)
def _drawn(
    near: bytes, sizes: tuple[int, ...], windows: tuple[tuple[int, int, int], ...], more: tuple[int, ...]
) -> Maxima:
    table = np.frombuffer(near).reshape(sizes)
    at = np.stack(np.meshgrid(*(np.arange(n) for n in sizes), indexing="ij"), -1).reshape(-1, len(sizes))
    cover = table[tuple(np.abs(at[:, None] - at[None]).transpose(2, 0, 1))]
    values, vectors = np.linalg.eigh(cover)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    count = max(min(DRAWS, NUMBERS // len(at)), 500)
    z = np.random.default_rng(0).standard_normal((count, len(at) + 1))
    field = z[:, 1:] @ root.T
    index = np.arange(len(at)).reshape(sizes)
    tops, which = {}, {}
    for lag in product(*(range(m + 1) for m in more)):
        picks = [slice(i * s, i * s + (k - 1) * d + 1, d) for i, (k, s, d) in zip(lag, windows, strict=True)]
        inside = index[tuple(picks)].ravel()
        best = field[:, inside].argmax(1)
        which[lag] = inside[best]
        tops[lag] = field[np.arange(count), which[lag]]
    first = tops[(0,) * len(sizes)]
    n, own = len(inside), index[tuple(slice(0, (k - 1) * d + 1, d) for k, _, d in windows)].ravel()
    pairs = cover[np.ix_(own, own)]
    mean = float(np.clip((pairs.sum() - n) / max(n * (n - 1), 1), 0, 1))
    plain = np.sqrt(mean) * z[:, 0] + np.sqrt(1 - mean) * z[:, 1 + own].max(1)
    ratio = first.mean() / plain.mean() if plain.mean() > 0 else 1.0
    shape = tuple(m + 1 for m in more)
    return Maxima(
        float(np.clip(1 - (1 - mean) * ratio**2, 0, 1)),
        np.array([np.corrcoef(first, t)[0, 1] for t in tops.values()]).reshape(shape),
        np.array([np.mean(which[lag] == which[(0,) * len(sizes)]) for lag in tops]).reshape(shape),
        float(first.var()),
    )


def by_lag(x: Law, shape: tuple[int, ...], windows: Windows, found: Maxima) -> np.ndarray | None:
    """Correlations of the largest by the knots of their own map: as drawn where windows overlap, else to first order.

    Args:
        shape: of the tensor of maxima.
    """
    sizes, out = border.sizes_of(x), tuple(shape[2:])
    if sizes is None or 1 in out:
        return None
    told = lags.correlations(x, tuple(len(lags.knots(n)) for n in sizes))
    table = np.minimum(lags.means_under(told, sizes, out, windows) / found.variance, 1.0)
    for at in product(*(range(len(lags.knots(n))) for n in out)):
        lag = tuple(int(lags.knots(n)[i]) for i, n in zip(at, out, strict=True))
        if all(k < m for k, m in zip(lag, found.corr.shape, strict=True)):
            table[at] = found.corr[lag]
    return table


def ties(x: Law, shape: tuple[int, ...], windows: Windows) -> np.ndarray | None:
    """What neighbours in a window of each kind have left in common where some of them have fewer taps than others.

    Behind zero padding a place at the border sums over some of its neighbour's taps: of mean squares q and q' two such
    correlate by no more than ``sqrt(min(q, q') / max(q, q'))``.

    Returns:
        (kinds of window,) mean over pairs of places under it; None where the law does not tell places apart.
    """
    sizes, out = border.sizes_of(x), tuple(shape[2:])
    if sizes is None or sizes != tuple(x.shape[2:]) or border.POSITION not in x.level_groups or 1 in out:
        return None
    own = np.maximum(border.squares(x, sizes), 1e-300)
    tied = np.sqrt(np.minimum.outer(own, own) / np.maximum.outer(own, own))
    share = border.under(sizes, out, windows)[0]
    return np.einsum("ka,ab,kb->k", share, tied, share)


__all__ = ["Maxima", "by_lag", "maxima", "ties"]
