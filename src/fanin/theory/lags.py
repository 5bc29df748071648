"""What two places of a map have in common by how far apart they are: neighbours more than others.

Pixels of an image are like their neighbours, and windows of a pool that overlap read the same places. A latent may then
carry a correlation for every lag ``d = (dy, dx)``, of either sign, beside the mean over all pairs of places.
Lags are told apart at knots (0, 1, 2, 3, 4, 6, 8, 12, ...), between which moments are interpolated. What is linear and
the same at every place, with known weights w along an axis and a stride s, reads

    E[y_p y_(p+d)] = sum_ab w_a w_b E[x x'](s d + b - a),

while a fresh weight meets itself alone, ``E[y_p y_(p+d)] ~ E[x x'](s d)``: kernels that overlap make no neighbours
alike, as their taps are drawn one by one. Functions of the elements go by Mehler's sum, as everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fanin.graph import Node
from fanin.theory import border
from fanin.theory.channels import Kinds
from fanin.theory.knots import along, between, knots, levelled, mean, products
from fanin.theory.latent import axis_groups
from fanin.theory.law import Law
from fanin.theory.mehler import series, summed_at
from fanin.theory.places import POSITION
from fanin.theory.records import remembered, replace
from fanin.theory.state import Known, Value

PLACES = frozenset((POSITION,))
_TABLE = np.concatenate([np.linspace(-1, 0, 65)[:-1], np.linspace(0, 1, 257)])
SLIGHT = 0.02
"""Neighbouring pixels that are no more alike than others but for this are as any two."""
MIXED = 2048
"""Places along an axis beyond which weighted sums forget lags: every two of them would be laid out."""
CHANCE = 5.0
"""Likewise by how many standard errors."""


@dataclass(frozen=True, eq=False)
class Lags:
    """Correlations of a latent between two places of a map of these sizes, by knots of lags along every axis."""

    sizes: tuple[int, ...]
    corr: np.ndarray


def carried(law: Law) -> Lags | None:
    """The lags that a law's latent carries, if they are of its own map."""
    found = law.latent.lags
    return found if found is not None and found.sizes == border.sizes_of(law) else None


def told(*laws: Law) -> bool:
    """Whether any of the laws, or of the pieces that one was made of, tells neighbours from others."""
    return any(
        carried(law) is not None or any(piece[1].lags is not None for piece in (law.latent.pieces or (0, ()))[1])
        for law in laws
    )


def correlations(law: Law, shape: tuple[int, ...]) -> np.ndarray:
    """The latent's correlation by lag; that of all pairs where it tells none."""
    pieces = _pieces(law)
    if pieces is not None:
        each = [w * correlations(one, shape) for w, one in zip(pieces.shares, pieces.laws, strict=True)]
        return np.sum(each, 0)
    lags = carried(law)
    if lags is not None and lags.corr.shape == shape:
        return lags.corr
    found = np.full(shape, law.correlation(PLACES))
    found[(0,) * len(shape)] = 1.0
    return found


def moments(law: Law, sizes: tuple[int, ...]) -> np.ndarray:
    """E[x x'] of one feature at two places of a sample, by their lag; of a law that tells none the mean over pairs."""
    shape = tuple(len(knots(n)) for n in sizes)
    if POSITION not in law.groups:
        return np.full(shape, law.second)
    return _moments(law, shape)


def _pieces(law: Law) -> Kinds | None:
    found = border.features(law)
    return found if found is not None and len(found.laws) <= border.FEW else None


@remembered
def _moments(law: Law, shape: tuple[int, ...]) -> np.ndarray:
    pieces = _pieces(law)
    if pieces is not None:
        return np.sum([w * _moments(one, shape) for w, one in zip(pieces.shares, pieces.laws, strict=True)], 0)
    lags = carried(law)
    if lags is None or lags.corr.shape != shape:
        found = np.full(shape, law.pair(PLACES))
    else:
        found = summed_at(series(law.coefficients, law.seconds, law.level_weight), lags.corr)
        if law.second > (pair := law.pair(PLACES)):  # the mean is known better, of places at the border too
            found = levelled(found, law.second, pair, lags.sizes)
    found[(0,) * len(shape)] = law.second
    return found


def with_moments(law: Law, wanted: np.ndarray, *, whole: bool = False) -> Law:
    """The law with the latent's correlations at which its pair moments are ``wanted`` at every knot.

    Args:
        whole: whether these say what all pairs have in common, too, of which places that overlap are some.
    """
    sizes = border.sizes_of(law)
    if sizes is None or wanted.shape != tuple(len(knots(n)) for n in sizes) or not np.isfinite(wanted).all():
        return law
    return with_correlations(law, _correlation(law, wanted), whole=whole)


def with_correlations(law: Law, found: np.ndarray, *, whole: bool = False) -> Law:
    """The same with the correlations themselves."""
    sizes = border.sizes_of(law)
    if sizes is None or found.shape != tuple(len(knots(n)) for n in sizes):
        return law
    corr = {**law.latent.corr, PLACES: mean(found, sizes)} if whole else law.latent.corr
    return replace(law, latent=replace(law.latent, corr=corr, lags=Lags(sizes, found)))


def _correlation(law: Law, wanted: np.ndarray) -> np.ndarray:
    own = float(law.level_weight @ law.means**2)
    variance = law.second - own
    if variance <= 1e-14 * law.second:
        return np.ones_like(wanted)
    if law.gaussian:
        r = (wanted - own) / variance
    else:
        table = summed_at(series(law.coefficients, law.seconds, law.level_weight), _TABLE)
        zero = int(np.searchsorted(_TABLE, 0.0))
        table[: zero + 1] = np.minimum.accumulate(table[: zero + 1][::-1])[::-1]  # of a function that is not odd
        table[zero:] = np.maximum.accumulate(table[zero:])
        r = np.interp(wanted, table, _TABLE)
    r = np.clip(r, -1, 1)
    r[(0,) * r.ndim] = 1.0
    return r


def moved(node: Node, law: Law) -> Lags | None:
    """The lags of places cut out of a map, or padded, every ``step``-th of them; None where they are mixed."""
    a, old = node.attrs, carried(law)
    spatial = [i for i, axis in enumerate(law.axes) if axis_groups(axis) == PLACES]
    if a["how"] not in ("slice", "pad", "flip") or old is None or any(len(law.axes[i]) > 1 for i in spatial):
        return None
    steps = [a["step"] if a["how"] == "slice" and i == a["axis"] % len(law.shape) else 1 for i in spatial]
    sizes = tuple(node.shape[i] for i in spatial)
    return Lags(sizes, along(old.corr, _strided(old.sizes, sizes, steps)))


def _strided(sizes: tuple[int, ...], out: tuple[int, ...], strides: Sequence[int]) -> list[np.ndarray]:
    return [between(n, s * knots(m)) for n, m, s in zip(sizes, out, strides, strict=True)]


def drawn(law: Law, x: Law, strides: Sequence[int], mean: float = 0.0) -> Law:
    """The law of sums with fresh weights, of which places that are read by one tap have x's moments.

    Args:
        mean: what weights that sum to zero do not hear.
    """
    sizes, out = border.sizes_of(x), border.sizes_of(law)
    if not told(x) or sizes is None or out is None or len(sizes) != len(out) or len(strides) != len(out):
        return law
    whole = x.second - mean
    if whole <= 0 or law.mean**2 > 1e-6 * law.second:
        return law
    read = along(moments(x, sizes) - mean, _strided(sizes, out, strides))
    return with_moments(law, law.second * read / whole)


def centred(law: Law, x: Law, less: float, scale: float) -> Law:
    """What a norm over places leaves: pair moments less what is taken away, by the square of a scale."""
    sizes = border.sizes_of(x)
    if not told(x) or sizes is None or border.sizes_of(law) != sizes:
        return law
    return with_moments(law, (moments(x, sizes) - less) * scale**2)


def joined(law: Law, shares: np.ndarray, made: Sequence[Law]) -> Law:
    """The law of channels of several kinds, of which two places of one channel are of one kind."""
    sizes = border.sizes_of(law)
    if sizes is None or not told(*made) or any(border.sizes_of(one) != sizes for one in made):
        return law
    return with_moments(law, np.sum([w * moments(one, sizes) for w, one in zip(shares, made, strict=True)], 0))


def under(x: Law, shape: tuple[int, ...], windows: Sequence[tuple[int, int, int, int]]) -> np.ndarray | None:
    """Mean products of the means over two windows, by their lag; None where places are all alike and none overlap.

    Args:
        shape: of the means.
        windows: for every axis kernel, stride, padding, dilation.
    """
    sizes, out = border.sizes_of(x), tuple(shape[2:])
    if sizes is None or sizes != tuple(x.shape[2:]) or len(windows) != len(sizes) or 1 in out:
        return None
    if not told(x) and all(k <= stride for k, stride, *_ in windows):
        return None
    return means_under(moments(x, sizes), sizes, out, windows)


def within(x: Law, kernel: int, m2: float) -> float | None:
    """Mean over pairs of taps of a kernel of the squared correlation of what they read; None where no lags are told."""
    sizes, own = border.sizes_of(x), x.second - m2
    if sizes is None or not told(x) or own <= 0 or kernel <= 1:
        return None
    table = np.clip((moments(x, sizes) - m2) / own, -1, 1)
    one = tuple((min(kernel, n), 1, 0, 1) for n in sizes)
    return float(means_under(table**2, sizes, (2,) * len(sizes), one).flat[0])


def inside(x: Law, windows: Sequence[tuple[int, int, int, int]]) -> float:
    """Mean correlation of the latents of two places of one window."""
    sizes = border.sizes_of(x) or ()
    table = correlations(x, tuple(len(knots(n)) for n in sizes))
    n = float(np.prod([k for k, *_ in windows]))
    whole = float(means_under(table, sizes, (2,) * len(sizes), windows).flat[0])
    return min(max((n * whole - 1) / max(n - 1, 1.0), 0.0), 1.0)


def means_under(
    table: np.ndarray, sizes: tuple[int, ...], out: tuple[int, ...], windows: Sequence[tuple[int, int, int, int]]
) -> np.ndarray:
    """Of what is known by lag the mean over pairs of places of two windows, by their lag."""
    matrices = []
    for (k, stride, _, dilation), n, m in zip(windows, sizes, out, strict=True):
        apart = np.subtract.outer(np.arange(k), np.arange(k)).ravel() * dilation
        matrices.append(np.stack([between(n, stride * lag + apart).mean(0) for lag in knots(m)]))
    return along(table, matrices)


def weighted(x: Law, shape: tuple[int, ...], axes: Sequence[int], matrices: Sequence[np.ndarray]) -> np.ndarray | None:
    """E[y y'] by lag of sums with known weights (out, in) along axes of a map, in the mean over its places."""
    sizes, spatial = border.sizes_of(x), [i for i, axis in enumerate(x.axes) if axis_groups(axis) == PLACES]
    if sizes is None or len(spatial) != len(sizes) or not set(axes) <= set(spatial):
        return None
    if any(len(x.axes[i]) > 1 for i in spatial) or 1 in (shape[i] for i in spatial):
        return None
    if not told(x) and all(np.count_nonzero(m, 0).max() <= 1 for m in matrices):  # nothing is read twice
        return None
    if max(sizes) > MIXED:
        return None
    known, read = dict(zip(axes, matrices, strict=True)), []
    for i, n in zip(spatial, sizes, strict=True):
        read.append(_read_by(known[i], n) if i in known else np.eye(len(knots(n))))
    return along(moments(x, sizes), read)


def _read_by(m: np.ndarray, n: int) -> np.ndarray:
    """Sums of products of two rows' weights by the lag of what they read, (lags of rows, lags), a mean over rows."""
    at, rows = np.abs(np.subtract.outer(np.arange(n), np.arange(n))).ravel(), []
    table = between(n, np.arange(n))
    for lag in knots(len(m)):
        both = m[: len(m) - lag].T @ m[lag:] / (len(m) - lag)
        rows.append(np.bincount(at, weights=both.ravel(), minlength=n) @ table)
    return np.stack(rows)


def combined(law: Law, x: Law, y: Law, how: str, cross: tuple[Law, float] | None) -> Law:
    """Carry lags on to a sum or product of two operands, one of which may have no places.

    Args:
        cross: the operand that both have in common, and what the sum's mean square has more for that.
    """
    sizes = border.sizes_of(law)
    if not told(x, y) or sizes is None:
        return law
    if any(POSITION in part.groups and border.sizes_of(part) != sizes for part in (x, y)):
        return law
    first, second = moments(x, sizes), moments(y, sizes)
    if how == "product":
        return with_moments(law, first * second * (law.second / max(x.second * y.second, 1e-300)))
    found = first + second + 2 * x.mean * y.mean
    if cross is not None:
        shared, spare = cross
        own = carried(shared)
        found = found + spare * (own.corr if own is not None else shared.correlation(PLACES))
    return with_moments(law, found)


def of_known(law: Law, x: Known, strides: Sequence[int]) -> Law:
    """The law of fresh weights' sums over patches of known pixels (sample, channel, spatial...)."""
    out = border.sizes_of(law)
    table = read(x, out, strides) if out is not None else None
    return law if table is None else with_moments(law, law.second * table / table.flat[0])


def read(x: Law | Value, out: tuple[int, ...], strides: Sequence[int]) -> np.ndarray | None:
    """E[x x'] of what one tap reads for two outputs, by their lag; None where all pairs are alike."""
    sizes = border.sizes_of(x) if isinstance(x, Law) else tuple(x.shape[2:])
    if sizes is None or not len(sizes) == len(out) == len(strides) or min(sizes, default=1) < 2:
        return None
    if isinstance(x, Law):
        return along(moments(x, sizes), _strided(sizes, out, strides)) if told(x) else None
    table = products(x) if isinstance(x, Known) else None
    if table is None or not table.flat[0] > 0:
        return None
    assert isinstance(x, Known)
    near = table[(slice(0, 3),) * table.ndim].ravel()[1:]
    apart = float(near.mean()) - mean(table, sizes)
    if abs(apart) < max(SLIGHT, CHANCE / x.array.size**0.5) * table.flat[0]:  # noise
        return None
    return along(table, _strided(sizes, out, strides))


__all__ = [
    "Lags",
    "along",
    "between",
    "carried",
    "combined",
    "drawn",
    "knots",
    "levelled",
    "mean",
    "moments",
    "of_known",
    "products",
]
