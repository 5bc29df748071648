"""Distances and losses between two tensors: a difference, a function of it, and a sum or mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fanin.frameworks.torch.chain import Chain
from fanin.graph import Kind

if TYPE_CHECKING:
    from fanin.frameworks.torch.arguments import Arguments


def every_pair(a: Arguments) -> Chain:
    """Euclidean distances of every two rows, (.., n, d) and (.., m, d) to (.., n, m)."""
    if a.get("p", 2.0) not in (2, 2.0):
        raise TypeError("a distance of another order")
    chain = Chain(a)
    (x, first), (y, second) = ((a.given(name), a.size(name)) for name in ("x1", "x2"))
    x = chain.reshape(x, (*first[:-1], 1, first[-1]))
    y = chain.reshape(y, (*second[:-2], 1, *second[-2:]))
    wide = tuple(np.broadcast_shapes(chain.shapes[x], chain.shapes[y]))
    apart = chain.add(Kind.SUM, {"alpha": -1.0}, [x, y], wide, np.subtract)
    attrs = {"op": "norm", "axes": (len(wide) - 1,), "keepdim": False}
    chain.add(Kind.REDUCE, attrs, [apart], a.shape, lambda v: np.sqrt(np.sum(np.square(v), -1)))
    return chain


def each_pair(a: Arguments) -> Chain:
    """Euclidean distances of rows at one place, (.., d) and (.., d) to (..)."""
    if a.get("p", 2.0) not in (2, 2.0):
        raise TypeError("a distance of another order")
    chain = Chain(a)
    x, y = a.given("x1"), a.given("x2")
    wide = tuple(np.broadcast_shapes(chain.shapes[x], chain.shapes[y]))
    apart, eps = chain.add(Kind.SUM, {"alpha": -1.0}, [x, y], wide, np.subtract), float(a.get("eps", 1e-6))
    moved = chain.map(apart, lambda v: v + eps)
    attrs = {"op": "norm", "axes": (len(wide) - 1,), "keepdim": bool(a.get("keepdim", False))}
    chain.add(Kind.REDUCE, attrs, [moved], a.shape, lambda v: np.sqrt(np.sum(np.square(v), -1)).reshape(a.shape))
    return chain


def loss(function: Callable[[Any], Callable]) -> Any:
    """A function of the difference, its mean (1), its sum (2) or itself (0).

    Args:
        function: of the call's own numbers, the function of the difference.
    """

    def build(a: Arguments) -> Chain:
        chain, fn = Chain(a), function(a)
        x, y = a.given("self"), a.given("target")
        wide = tuple(np.broadcast_shapes(chain.shapes[x], chain.shapes[y]))
        apart = chain.add(Kind.SUM, {"alpha": -1.0}, [x, y], wide, np.subtract)
        each = chain.map(apart, fn)
        how = int(a.get("reduction", 1))
        if how and wide:
            op, run = ("mean", np.mean) if how == 1 else ("sum", np.sum)
            chain.add(Kind.REDUCE, {"op": op, "axes": (), "keepdim": False}, [each], (), run)
        return chain

    return build


def _huber(a: Any) -> Callable:
    delta = float(a.get("delta", 1.0))
    return lambda v: np.where(np.abs(v) <= delta, v * v / 2, delta * (np.abs(v) - delta / 2))


def _smooth(a: Any) -> Callable:
    beta = float(a.get("beta", 1.0))
    return lambda v: np.abs(v) if not beta else np.where(np.abs(v) < beta, v * v / (2 * beta), np.abs(v) - beta / 2)


DISTANCES = {
    **dict.fromkeys(("cdist", "_euclidean_dist", "_cdist_forward"), every_pair),
    "pairwise_distance": each_pair,
    "mse_loss": loss(lambda a: np.square),
    "l1_loss": loss(lambda a: np.abs),
    "huber_loss": loss(_huber),
    "smooth_l1_loss": loss(_smooth),
}
"""Rows of the table."""
