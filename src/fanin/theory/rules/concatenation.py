"""Tensors side by side: a concatenation or a stack is a mixture of laws by place."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fanin.graph import Node
from fanin.theory import ends, flattened, grid, overlap, places, shut, turns
from fanin.theory.channels import pieces
from fanin.theory.contraction import axis_groups
from fanin.theory.jointly import pieces_in_common
from fanin.theory.law import FEATURE, Atom, Axis, Law, compress, fresh_latent, latent_for
from fanin.theory.notes import together
from fanin.theory.records import replace
from fanin.theory.rules.move import resized
from fanin.theory.state import Hidden, Known, Value, as_law, is_free
from fanin.theory.windows import forgotten


def cat(node: Node, *inputs: Value) -> Value:
    """Concatenation or stacking: a mixture of laws by place, on a latent of its own."""
    if any(isinstance(v, Hidden) for v in inputs):
        axes = next(v.axes for v in inputs if isinstance(v, Hidden))
        return Hidden(node.shape, tuple(resized(a, n) for a, n in zip(axes, node.shape, strict=False)))
    axis = node.attrs["axis"] % len(node.shape)
    if node.attrs["how"] == "cat":
        inputs = _featured(inputs, axis)
    laws = [flattened.scattered(forgotten(as_law(v))) for v in inputs if 0 not in v.shape]
    if node.attrs["how"] == "stack":
        laws = [_unsqueezed(law, axis) for law in laws]
    if len(laws) == 1:
        return replace(laws[0], shape=node.shape)
    axes = _cat_axes(node, laws, axis)
    sizes = [law.shape[axis] for law in laws]
    values, level = _cat_levels(laws, axis, node.shape)
    values, level = compress(values, level)
    exact, note = all(law.exact for law in laws), together(*(law.note for law in laws))
    out = Law(node.shape, axes, values, level, fresh_latent({}), exact, note)
    seen = [shut.opened(law) for law in laws]
    out = replace(out, latent=latent_for(shut.opened(out), _cat_pairs(seen, sizes, out, axis), out.groups))
    if not axis_groups(out.axes[axis]) <= {FEATURE}:
        source = overlap.joined(laws) if axis == len(out.shape) - 1 else None
        out = replace(out, latent=replace(out.latent, source=source))
        named = [lambda differ, law=law: _translated(differ, law, out) for law in laws]
        return ends.joined(out, laws, sizes, named, axis)
    out = places.mixed(out, laws, sizes)
    return replace(out, latent=replace(out.latent, pieces=pieces(out, laws, axis), turned=turns.mean(laws, sizes)))


def _featured(inputs: tuple[Value, ...], axis: int) -> tuple[Value, ...]:
    """Channels of the batch beside features that weights made: they are features, not positions of the maps."""
    made = any(isinstance(v, Law) and axis_groups(v.axes[axis]) <= {FEATURE} for v in inputs)
    if not made:
        return inputs
    feature = lambda v: (*v.axes[:axis], (Atom(v.shape[axis], FEATURE),), *v.axes[axis + 1 :])  # noqa: E731
    return tuple(replace(v, axes=feature(v)) if isinstance(v, Known) else v for v in inputs)


def _unsqueezed(law: Law, axis: int) -> Law:
    shape = (*law.shape[:axis], 1, *law.shape[axis:])
    return replace(
        law, shape=shape, axes=(*law.axes[:axis], (), *law.axes[axis:]), level=np.expand_dims(law.level, axis)
    )


def _cat_axes(node: Node, laws: list[Law], axis: int) -> tuple[Axis, ...]:
    rank = lambda a: max((0 if is_free(t.group) else 2 if t.group != FEATURE else 1 for t in a), default=-1)  # noqa: E731
    axes = []
    for i, n in enumerate(node.shape):
        best = max((law.axes[i] for law in laws), key=rank)
        stacked = node.attrs["how"] == "stack" and i == axis
        axes.append((Atom(n, FEATURE),) if stacked else resized(best, n) if i == axis else best)
    return tuple(axes)


def _cat_levels(laws: list[Law], axis: int, shape) -> tuple[np.ndarray, np.ndarray]:
    starts = np.cumsum([0, *[len(law.values) for law in laws]])
    common = [max(law.level.shape[i] for law in laws) for i in range(len(shape))]
    pieces = []
    for law, start in zip(laws, starts, strict=False):
        want = [law.shape[i] if i == axis else common[i] for i in range(len(shape))]
        pieces.append(np.broadcast_to(law.level + start, want))
    return grid.increasing(np.concatenate([law.values for law in laws])), np.concatenate(pieces, axis).astype(np.int32)


def _cat_pairs(laws: list[Law], sizes: list[int], out: Law, axis: int) -> Callable:
    """Pair moments of a mixture: both places in one piece, or one in each."""
    share = np.array(sizes, float) / sum(sizes)
    along = axis_groups(out.axes[axis]) - {FEATURE}

    def pair(differ):
        inside = [law.pair(_translated(differ, law, out)) for law in laws]
        if not (differ & along):
            return float(share @ inside)
        total = sum(s * s * m for s, m in zip(share, inside, strict=True))
        means = [law.mean for law in laws]
        cross = float(np.square(share @ means) - np.square(share * means).sum())
        return float(total + cross + pieces_in_common(laws, share, frozenset(differ)))

    return pair


def _translated(differ, law: Law, out: Law):
    """Groups of the result in the words of one piece: an axis that is free there is not told apart by its latent."""
    names = set()
    for mine, whole in zip(law.axes, out.axes, strict=True):
        if axis_groups(whole) & differ:
            names |= axis_groups(mine)
    return frozenset(names)
