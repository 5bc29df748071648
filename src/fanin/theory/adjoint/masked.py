"""Attention over a padded batch, backward: short samples look at few keys, and keys that are hidden get nothing.

One number of keys for all rows is right for rows that are as long as their mean. A short sample's weights are larger,
and behind a mean over its tokens so is its cotangent. So samples of one mask are read by themselves, as attention over
the keys that they see.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fanin.graph import Node
from fanin.theory.adjoint.cotangent import Cotangent, Part
from fanin.theory.adjoint.thinned import roots
from fanin.theory.contraction import axis_groups
from fanin.theory.law import Groups, Law, subsets
from fanin.theory.records import replace
from fanin.theory.rules.attention import _prior, seen_by_sample
from fanin.theory.rules.masked import KEYS, of_some
from fanin.theory.state import Known, Value

Rule = Callable[[Node, Cotangent, tuple[Value, ...]], list[list[Part]]]


def by_mask(
    node: Node, g: Cotangent, inputs: tuple[Value, ...], plain: list[list[Part]], rule: Rule
) -> list[list[Part]]:
    """The parts of attention, sample by sample where a known mask hides other keys from each; else as they are."""
    seen = _seen(node, g, inputs)
    if seen is None:
        return plain
    kinds, which = np.unique(seen, axis=0, return_inverse=True)
    laws = [value for value in inputs[:3] if isinstance(value, Law)]
    found: list[list[tuple[np.ndarray, np.ndarray, Part]]] = [[], [], []]
    for kind, keys in enumerate(kinds):
        samples, places = np.flatnonzero(which.ravel() == kind), np.flatnonzero(keys)
        own, asked = _heard(g, samples)
        few = [of_some(laws[0], samples, asked), *(of_some(law, samples, places) for law in laws[1:])]
        part = replace(node, shape=own.law.shape, attrs={**node.attrs, "mask": None})
        parts = rule(part, own, (*few, *inputs[3:]))
        parts[0] = [_by_query(p, own) for p in parts[0]]
        for i, at in enumerate((asked, places, places)):
            found[i].append((samples, at, parts[i][0]))
    return [[_joined(law, found[i], plain[i][0])] for i, law in enumerate(laws)] + plain[3:]


def _seen(node: Node, g: Cotangent, inputs: tuple[Value, ...]) -> np.ndarray | None:
    """Which keys a sample looks at, (samples, keys); None where rows of one sample differ."""
    at = node.attrs.get("mask")
    mask = inputs[at] if at is not None else None
    laws = [value for value in inputs[:3] if isinstance(value, Law)]
    if not isinstance(mask, Known) or len(laws) < 3 or len(node.shape) != 4:
        return None
    return seen_by_sample(node, _prior(node, mask))


def _heard(g: Cotangent, samples: np.ndarray) -> tuple[Cotangent, np.ndarray]:
    """The cotangent at the rows of some samples that hear anything at all, and which these are.

    Correlations are means over all pairs of rows: of those that are left two have more in common.
    """
    size = g.law.shape[KEYS]
    profile = np.broadcast_to(_taken(g.profile(), samples).max((0, 1, 3)), (size,))
    rows = np.flatnonzero(profile) if profile.any() else np.arange(size)
    parts = []
    for p in g.parts:
        thin, second = roots(p.second, g.law), _taken(p.second, samples)
        second = second.take(rows, KEYS) if second.shape[KEYS] > 1 else second
        ratio = {s: float(np.clip(r / thin[s], -1, 1)) if thin.get(s, 0) > 0 else r for s, r in p.ratio.items()}
        parts.append(replace(p, second=second, ratio=ratio, matrix=None))
    return Cotangent(of_some(g.law, samples, rows), tuple(parts)), rows


def _taken(array: np.ndarray, samples: np.ndarray) -> np.ndarray:
    return array.take(samples, 0) if array.shape[0] > 1 else array


def _by_query(part: Part, g: Cotangent) -> Part:
    """A query hears its own row's cotangent."""
    profile = g.profile().mean((1, 3), keepdims=True)
    mean = profile.mean(KEYS, keepdims=True)
    if part.second.shape[KEYS] > 1 or profile.shape[KEYS] == 1 or not mean.all():
        return part
    return replace(part, second=part.second * profile / mean)


def _joined(law: Law, found: list[tuple[np.ndarray, np.ndarray, Part]], plain: Part) -> Part:
    """One part for all samples: zero where nobody looks, and in common what the pairs of places have that are seen."""
    size = law.shape[KEYS]
    inner = np.broadcast_shapes(*((p.second.shape[1], p.second.shape[3]) for *_, p in found))
    second = np.zeros((law.shape[0], inner[0], size, inner[1]))
    places, sample = axis_groups(law.axes[KEYS]), axis_groups(law.axes[0])
    pairs: dict[Groups, float] = dict.fromkeys(subsets(law.groups), 0.0)
    for samples, at, part in found:
        block = np.broadcast_to(part.second, (len(samples), inner[0], len(at), inner[1]))
        second[np.ix_(samples, np.arange(inner[0]), at, np.arange(inner[1]))] = block
        for s in pairs:
            others = (len(at) - 1) / max(size - 1, 1) if s & places else 1.0
            share = len(samples) * len(at) / (law.shape[0] * size)
            pairs[s] += share * others * float(block.mean()) * part.ratio.get(s, 0.0)
    thin, mean = roots(second, law), max(float(second.mean()), 1e-300)
    ratio = {s: plain.ratio.get(s, 0.0) * thin.get(s, 1.0) if s & sample else p / mean for s, p in pairs.items()}
    return replace(plain, second=second, ratio=ratio, matrix=None)
