"""Softmax weights that were transposed: ``v a^T`` is ``(a v^T)^T``, and is read as that.

Attention over maps keeps features before positions, so that weights stand behind the values, (..., keys, queries).
"""

from __future__ import annotations

import numpy as np

from fanin.graph import Node
from fanin.theory.latent import Latent
from fanin.theory.law import Law
from fanin.theory.records import replace


def transposed(y: Law) -> bool:
    """Whether the law is of rows of softmax weights that lie along its last axis but one."""
    return y.latent.source is not None and y.latent.source.variance > 0 and y.latent.source.across


def permuted(node: Node, law: Law) -> Latent:
    """The latent behind a move: where rows of weights have become columns it says so."""
    n = len(law.shape)
    swaps = n > 1 and node.attrs["how"] == "permute" and tuple(node.attrs["perm"]) == (*range(n - 2), n - 1, n - 2)
    return turned(law).latent if swaps else law.latent


def turned(law: Law) -> Law:
    """The law of the transposed tensor."""
    made = law.latent.source
    made = replace(made, across=not made.across) if made is not None and made.variance else made
    shape, axes = (_swapped(t) for t in (law.shape, law.axes))
    latent = replace(law.latent, source=made)
    return replace(law, shape=shape, axes=axes, level=np.swapaxes(law.level, -1, -2), latent=latent)


def product(node: Node) -> Node:
    """The node of the transposed product."""
    return replace(node, shape=_swapped(node.shape))


def _swapped(axes: tuple) -> tuple:
    return (*axes[:-2], axes[-1], axes[-2])
