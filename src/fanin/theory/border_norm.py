"""What a norm over samples and places takes from a map with a border, and what is left there to divide by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fanin.theory.border import (
    Pairs,
    carried,
    kinds,
    mean_pair,
    pairs,
    row_means,
    shares,
    sizes_of,
    squares,
    with_pairs,
)
from fanin.theory.law import Groups, Law, compress, relabel
from fanin.theory.places import POSITION
from fanin.theory.records import replace


def centred(law: Law, x: Law, shared: float, wanted: float, scale: float) -> Law:
    """What a norm over samples and places leaves: every place less the mean, by its own variance and pair moments.

    Args:
        law: the result if all places were alike.
        x: what is normalized.
        shared: E of the squared mean.
        wanted: mean square of the result.
        scale: what the difference is multiplied by.
    """
    sizes = sizes_of(x)
    if carried(x) is None or sizes is None or any(len(a) > 1 for a in x.axes):
        return law
    inner, places = pairs(x, sizes), float(kinds(sizes).count.sum())
    common = _with_mean(x, sizes, inner, places)
    own = np.maximum(squares(x, sizes) - 2 * common + shared, 0)
    if not np.all(own > 0):
        return law
    after = shares(law, sizes) @ law.seconds
    factor = np.sqrt(own / after * (wanted / (kinds(sizes).count @ own / places)))
    law = _scaled(law, sizes, factor)
    left = _about_mean(inner, common, shared)
    return with_pairs(law, {s: m * scale**2 for s, m in left.items()}, sizes)


def _about_mean(inner: Pairs, common: np.ndarray, shared: float) -> dict[Groups, np.ndarray]:
    """Pair moments of what is left where the mean is taken away, which has the product ``common`` with each place."""
    return {s: m - (2 * common if m.ndim == 1 else np.add.outer(common, common)) + shared for s, m in inner.items()}


def squared(x: Law, axes: Sequence[int], shared: float) -> dict[Groups, float]:
    """Mean squares, over pairs of places, of their pair moments about the mean over all places of all samples.

    What a border has beside the middle is the same for every feature: pairs of places of one kind keep it.
    """
    left = _left(x, axes, shared)
    return {s: mean_pair(m**2, x.latent.border.sizes) for s, m in left.items()} if left and x.latent.border else {}


def leading(x: Law, axes: Sequence[int], shared: float) -> float:
    """Largest eigenvalue of what all samples have in common about the mean, over places: the pattern of the border."""
    left = _left(x, axes, shared)
    if not left or x.latent.border is None:
        return 0.0
    count = kinds(x.latent.border.sizes).count
    root = np.sqrt(count / count.sum())
    return max(float(np.linalg.eigvalsh(root[:, None] * left[max(left, key=len)] * root)[-1]), 0.0)


def _left(x: Law, axes: Sequence[int], shared: float) -> dict[Groups, np.ndarray]:
    """Pair moments about the mean over all places of all samples; empty for others, or where no border is told."""
    sizes = sizes_of(x)
    inside = frozenset(atom.group for i in axes for atom in x.axes[i] if atom.size > 1)
    if carried(x) is None or sizes is None or inside != x.groups or any(len(a) > 1 for a in x.axes):
        return {}
    inner, places = pairs(x, sizes), float(kinds(sizes).count.sum())
    return _about_mean(inner, _with_mean(x, sizes, inner, places), shared)


def _with_mean(x: Law, sizes: tuple[int, ...], inner: Pairs, places: float) -> np.ndarray:
    """E[x m] at a place of each kind, with m the mean over all places of all samples."""
    samples = float(np.prod([a.size for axis in x.axes for a in axis if a.group in x.groups - {POSITION}]))
    total = squares(x, sizes) / (samples * places)
    for s, m in inner.items():
        many = (samples - 1 if s - {POSITION} else 1.0) * (places - 1 if POSITION in s else 1.0)
        total = total + row_means(m, sizes) * many / (samples * places)
    return total


def _scaled(law: Law, sizes: tuple[int, ...], factor: np.ndarray) -> Law:
    """The law with places of each kind multiplied by a factor of their own."""
    spatial = [n if any(a.group == POSITION for a in axis) else 1 for n, axis in zip(law.shape, law.axes, strict=True)]
    of = kinds(sizes).of.reshape(spatial)
    code, level = relabel(law.level.astype(np.int64) * len(factor) + of, len(law.values) * len(factor))
    values = law.values[code // len(factor)] * factor[code % len(factor)][:, None]
    values, level = compress(values, level)
    return replace(law, values=values, level=level, loose=None)
