"""Where what a factor hands on meets itself again: gates whose two products are summed.

In ``t u + (1 - t) x`` the gradient of t is ``g (u - x)``: what both products send back is made of one cotangent, so
the means of u and x subtract before anything is squared. A factor y of a product is therefore split where it matters,
``g y = g E[y] + g (y - E[y])``: the first part stays on the base of g, the second is on one of its own. Where that is
follows from the graph: a factor that comes, through sums, products and pointwise functions alone, from a tensor from
which what the product is added to comes, too.
"""

from __future__ import annotations

import numpy as np

from fanin.graph import Graph, Kind, Node
from fanin.theory import grid
from fanin.theory.adjoint.cotangent import Part, fresh, translated
from fanin.theory.law import Law, subsets
from fanin.theory.records import replace

PASSING = frozenset({Kind.POINTWISE, Kind.SUM, Kind.PRODUCT, Kind.DROP})
LEAST = 1e-2
"""Share of a factor's mean square from which on its mean is told apart."""


def meetings(graph: Graph) -> dict[str, frozenset[int]]:
    """Operands of products, by node, whose gradient meets that of what the product is added to."""
    found = {}
    for node in graph.nodes:
        if node.kind is Kind.PRODUCT and len(node.inputs) == 2:
            beside = _beside(graph, node)
            if beside:
                places = frozenset(i for i in (0, 1) if _behind(graph, node.inputs[i]) & beside)
                if places:
                    found[node.id] = places
    return found


def _beside(graph: Graph, node: Node) -> set[str]:
    """All that comes before the other operands of the sums that a node goes into, up to the next weights."""
    found: set[str] = set()
    while True:
        users = graph.users[node.id]
        if len(users) != 1 or users[0].kind is not Kind.SUM:
            return found
        for other in users[0].inputs:
            if other != node.id:
                found |= _behind(graph, other)
        node = users[0]


def _behind(graph: Graph, start: str) -> set[str]:
    """A tensor and all that it is made of without weights, norms or contractions in between."""
    found, stack = set(), [start]
    while stack:
        id_ = stack.pop()
        if id_ not in found and graph.by_id[id_].signal:
            found.add(id_)
            if graph.by_id[id_].kind in PASSING:
                stack.extend(graph.by_id[id_].inputs)
    return found


def split(part: Part, sign: float, x: Law, y: Law, out: Law) -> list[Part]:
    """What a factor y hands on to x of a part without a function: on its base what y's mean does, and the rest.

    Empty where the part follows the result's latent, and where the mean is slight or has no single sign.
    """
    means, shape = y.means, (1,) * (out.level.ndim - y.level.ndim) + y.level.shape
    if (
        part.values is not None
        or y.second <= 0
        or not (np.all(means > 0) or np.all(means < 0))
        or y.mean**2 < LEAST * y.second
    ):
        return []
    mean, own = (values[y.level].reshape(shape) for values in (means, np.maximum(y.seconds - means**2, 0)))
    kept = replace(part, second=part.second * mean**2, awaited=True)
    if sign * means.flat[0] < 0:  # the sign counts where the part meets its base again
        kept = replace(kept, values=np.full((len(x.values), grid.POINTS), -1.0))
    variance = max(y.second - y.mean**2, 1e-300)
    ratio = {}
    for s in subsets(out.groups):
        beyond = y.pair(translated(s, out.axes, y.axes)) - y.mean**2
        ratio[s] = part.ratio.get(s, 0.0) * float(np.clip(beyond / variance, -1, 1))
    return [kept, fresh(part.second * own, ratio)]
