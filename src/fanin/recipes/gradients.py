"""How far a plan's predicted gradients differ along depth: computed, whatever the architecture is, and said."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from fanin.graph import Kind
from fanin.recipes.structure import Structure
from fanin.theory.adjoint import backward
from fanin.theory.state import Value
from fanin.theory.threads import one_thread

SPREAD = 10.0
"""Ratio of gradient rms from which on a note is due."""


@one_thread()
@np.errstate(all="ignore")
def uneven(structure: Structure, values: Mapping[str, Value], balance: str) -> list[str]:
    """A sentence on the pre-activations, and one on the worst residual stream, whose gradients differ by ``SPREAD``.

    Args:
        values: the predicted laws at every node.
        balance: of the plan, so that nothing is advised that is done.
    """
    found, graph = backward(structure.graph, dict(values)), structure.graph
    streams: dict[str, list[str]] = {}
    for branch in structure.branches:
        streams.setdefault(branch.stream, []).append(branch.node)
    ranges = [_range(found, preactivations(structure), "pre-activations")]
    ranges += sorted(_range(found, ids, "a residual stream") for ids in streams.values())[-1:]
    traded = '; where no norm follows, balance="both" or "backward" trades it for signal'
    advice = traded if balance == "forward" else ""
    return [
        f"gradients of {what} differ by a factor of {ratio:.3g}, from {graph.by_id[least].name} to "
        f"{graph.by_id[most].name}, at scales that keep the signal{advice}"
        for ratio, what, least, most in ranges
        if ratio > SPREAD
    ]


def preactivations(structure: Structure) -> dict[str, str]:
    """Node whose tensor a nonlinearity reads -> the weight that made it, through biases, norms and rearrangements."""
    graph, found = structure.graph, {}
    for node in graph.nodes:
        into = structure.signals_into(node)
        if node.kind is not Kind.POINTWISE or len(into) != 1 or structure.factor(node) is not None:
            continue
        if all(user.kind is Kind.REDUCE for user in graph.users[node.id]):
            continue  # the square of a norm that is written out
        maker = graph.by_id[structure.source(into[0], norms=True)]
        name = structure.weight_at(maker)
        if name is not None and maker.kind is not Kind.EMBED and maker.id not in structure.heads:
            found[into[0]] = name
    return found


def _range(found: Mapping[str, float], ids: Collection[str], what: str) -> tuple[float, str, str, str]:
    """Largest over smallest rms of the gradients that are known, and the ids where they are."""
    known = [i for i in ids if found.get(i)]
    if not known:
        return 1.0, what, "", ""
    least, most = min(known, key=lambda i: found[i]), max(known, key=lambda i: found[i])
    return found[most] / found[least], what, least, most
