"""Attention over a padded batch: keys that a mask hides from a sample are no part of what it averages.

Embeddings of padding are often zero, so that values are smaller in the mean over all places than those that are looked
at. Where places of keys or values differ in law, samples of one mask are therefore read by themselves, as attention
over the keys that they see.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fanin.graph import Node
from fanin.theory.contraction import axis_groups
from fanin.theory.law import Atom, Groups, Law, gaussian
from fanin.theory.records import replace
from fanin.theory.rules.mix import _lift
from fanin.theory.state import Value, as_law

KEYS = -2  # the axis of places of queries, keys and values


def by_mask(
    node: Node, inputs: tuple[Value, ...], plain: Law, seen: np.ndarray | None, rule: Callable[..., Law]
) -> Law:
    """The law of attention, sample by sample where other keys are seen by each and keys differ; else as it is.

    Args:
        plain: what one number of keys for all says.
        seen: which keys a sample looks at, (samples, keys); None where that is not all the mask says.
    """
    laws = [as_law(inputs[i]) for i in range(3)]
    if seen is None or all(law.level.shape[KEYS] == 1 for law in laws[1:]) or len(node.shape) != 4:
        return plain
    kinds, which = np.unique(seen, axis=0, return_inverse=True)
    found: list[tuple[np.ndarray, Law]] = []
    for kind, keys in enumerate(kinds):
        samples, places = np.flatnonzero(which.ravel() == kind), np.flatnonzero(keys)
        few = (of_some(laws[0], samples), *(of_some(law, samples, places) for law in laws[1:]))
        shape = (len(samples), *node.shape[1:])
        found.append((samples, rule(replace(node, shape=shape, attrs={**node.attrs, "mask": None}), *few)))
    return _joined(plain, found)


def of_some(law: Law, samples: np.ndarray, places: np.ndarray | None = None) -> Law:
    """The law of some samples, and of some of their places."""
    shape, axes, level = list(law.shape), list(law.axes), law.level
    level = level.take(samples, 0) if level.shape[0] > 1 else level
    for axis, chosen in ((0, samples), (KEYS, places)):
        if chosen is not None:
            shape[axis] = len(chosen)
            group = next(iter(axis_groups(axes[axis])), None)
            axes[axis] = (Atom(len(chosen), group),) if len(chosen) > 1 and group else ()
    if places is not None and level.shape[KEYS] > 1:
        level = level.take(places, KEYS)
    latent = replace(law.latent, matrix=None)  # of other lengths: one number for all pairs
    return replace(law, shape=tuple(shape), axes=tuple(axes), level=level, latent=latent)


def _joined(plain: Law, found: list[tuple[np.ndarray, Law]]) -> Law:
    """All samples: mean squares of each, the mean of what places of one sample share; between samples as it was."""
    profiles = [_lift(law.profile(law.seconds), 4) for _, law in found]
    inner = np.broadcast_shapes(*(p.shape[1:] for p in profiles))
    second = np.zeros((plain.shape[0], *inner))
    for (samples, _), profile in zip(found, profiles, strict=True):
        second[samples] = profile
    sample, factor = axis_groups(plain.axes[0]), float(second.mean()) / max(plain.second, 1e-300)

    def pair(differ: Groups) -> float:
        if differ & sample:
            return plain.pair(differ) * factor
        return sum(len(samples) * law.pair(differ) for samples, law in found) / plain.shape[0]

    law = gaussian(plain.shape, plain.axes, second, pair)
    return replace(law, exact=plain.exact, note=plain.note)
