"""Rates: vectors of a number a head or channel that are summed along a sequence, so that a few of them decide.

``exp(-n e^(a_h))`` over n steps is near one for the slowest head and nothing for the others: what all heads have in
the mean says little of any of them. Such numbers stand feature by feature, as a position's do (levels), not as draws
of one law: those of the network where they are known, else one of every equal share of their law.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fanin.distributions import Constant, Distribution
from fanin.graph import Graph, Kind, Node, Parameter
from fanin.theory.law import Law, constant
from fanin.theory.state import feature_axes

ELEMENTWISE = (Kind.POINTWISE, Kind.SUM, Kind.PRODUCT, Kind.MOVE)
EXPONENTIAL = frozenset(("exp", "softplus", "exp2", "expm1"))
MANY = 256
"""Numbers beyond which a vector is as good as its law."""
PLACES = 1 << 19
"""Pairs of steps, over all heads, beyond which heads are not told apart: every one of them would be a level's."""


def rates(graph: Graph) -> frozenset[str]:
    """Nodes of parameters whose exponential, element by element, is summed over all earlier places."""
    return frozenset(n.id for n in graph.nodes if n.kind is Kind.PARAMETER and _is_vector(n) and _summed(graph, n))


def _is_vector(node: Node) -> bool:
    size = int(np.prod(node.shape))
    return 1 < size <= MANY and size == max(node.shape)


def _summed(graph: Graph, node: Node) -> bool:
    """Whether a sum over a sequence is reached, past an exponential, through what works element by element."""
    waiting, seen, found = [(user, False) for user in graph.users[node.id]], set(), False
    while waiting:
        user, behind = waiting.pop()
        if (user.id, behind) in seen or not user.is_float:
            continue
        seen.add((user.id, behind))
        if behind and user.kind is Kind.REDUCE and user.attrs["op"] == "weighted":
            found = True
        elif user.kind not in ELEMENTWISE:
            continue
        if user.kind is Kind.REDUCE and np.prod(node.shape) * np.prod(user.shape[-2:]) > PLACES:
            return False
        waiting += [(other, behind or user.op in EXPONENTIAL) for other in graph.users[user.id]]
    return found


def laid_out(graph: Graph, laws: Mapping[str, Distribution]) -> dict[str, Law]:
    """Rates by their nodes, each number at its own place: those of the network, or of a law that a plan sets."""
    found = {}
    for node in rates(graph):
        parameter = graph.parameters[graph.by_id[node].attrs["parameter"]]
        law = laws.get(parameter.name, parameter.law)
        known = parameter.value is not None and parameter.name not in laws
        if not known and law is not None and not isinstance(law, Constant):
            found[node] = by_place(parameter, law)
    return found


def by_place(parameter: Parameter, law: Distribution) -> Law:
    """The numbers of one vector, each at its own place."""
    shape = tuple(parameter.shape)
    if parameter.observed is not None and law is parameter.law:
        array = np.asarray(parameter.observed, float)
    else:
        size = int(np.prod(shape))
        array = np.asarray(law.quantile((np.arange(size) + 0.5) / size), float).reshape(shape)
    return constant(shape, feature_axes(shape), array)


__all__ = ["by_place", "laid_out", "rates"]
