"""The graph in reverse: one rule a kind, parts collected at every tensor, mean squares at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from fanin.graph import Graph, Kind, Node
from fanin.theory import shifts
from fanin.theory.adjoint import (
    attention,
    dropout,
    elementwise,
    linear,
    mixing,
    norm,
    places,
    pool,
    ranks,
    recurrent,
    reductions,
)
from fanin.theory.adjoint.cotangent import Cotangent, Part, fresh
from fanin.theory.adjoint.drawn import Back
from fanin.theory.adjoint.joining import gathered
from fanin.theory.adjoint.meeting import meetings
from fanin.theory.adjoint.scale import aligned, scaled_back, settled
from fanin.theory.adjoint.shared import Uses
from fanin.theory.drawn import Channels
from fanin.theory.failures import FAILURES, reason
from fanin.theory.law import Law, subsets
from fanin.theory.records import replace
from fanin.theory.reuse import Memory
from fanin.theory.scale import held
from fanin.theory.state import Value
from fanin.theory.twins import Twins

Rule = Callable[[Node, Cotangent, tuple[Value, ...]], list[list[Part]]]


class Start(Protocol):
    """Where the gradient of a loss starts (``theory.loss``); ``gradients`` are the rms of those behind it."""

    @property
    def node(self) -> str | None: ...
    @property
    def parts(self) -> tuple[Part, ...]: ...
    @property
    def gradients(self) -> Mapping[str, float]: ...


def _stand_in(node: Node, g: Cotangent, inputs: tuple[Value, ...]) -> list[list[Part]]:
    """An operation without a rule whose law was measured: so is how it passes gradients back."""
    from fanin.theory.surrogate import back  # it draws samples, as the loss does, which reads gradients

    return back(node, g, inputs)


RULES: dict[Kind, Rule] = {
    Kind.OPAQUE: _stand_in,
    Kind.DENSE: linear.dense,
    Kind.CONV: linear.conv,
    Kind.EMBED: linear.embed,
    Kind.EXPERTS: linear.experts,
    Kind.POINTWISE: elementwise.elementwise,
    Kind.SUM: elementwise.elementwise,
    Kind.PRODUCT: elementwise.elementwise,
    Kind.DROP: dropout.drop,
    Kind.RECUR: recurrent.recur,
    Kind.NORM: norm.norm,
    Kind.SOFTMAX: mixing.softmax,
    Kind.MIX: mixing.mix,
    Kind.ATTENTION: attention.attention,
    Kind.POOL: pool.pool,
    Kind.REDUCE: reductions.reduce,
    Kind.ROUTE: ranks.route,
    Kind.MOVE: places.move,
}

KNOWING = frozenset({Kind.POINTWISE, Kind.SUM, Kind.PRODUCT, Kind.MOVE})
"""Kinds behind which parts know latents of single elements; others mix elements."""

Watch = Callable[[Node, list[Part], Cotangent, list[list[Part]] | None], None]
"""Told of every node in reverse order: what was collected, its sum, and what it sends to each input."""


def backward(
    graph: Graph,
    values: dict[str, Value],
    start: Start | None = None,
    watch: Watch | None = None,
    lost: dict[str, str] | None = None,
    drawn: Mapping[str, Channels] | None = None,
    twins: Twins | None = None,
) -> dict[str, float]:
    """Root mean square of the cotangent at every node's tensor.

    Args:
        values: what the forward interpreter found at every node.
        start: the gradient of a loss at the tensor where it starts; without it the cotangent is i.i.d. N(0, 1) on the
            first output.
        watch: told of every node.
        lost: filled with the nodes whose gradient is not modelled, and why.
        drawn: the channels of nodes that are followed on such.
        twins: weights that are used more than once, or copied.

    Returns:
        rms by node id; a node whose cotangent is not modelled, or that no gradient reaches, is absent.
    """
    first = start.node if start is not None else next(iter(graph.outputs), None)
    output = values.get(first) if first is not None else None
    if first is None or not isinstance(output, Law):
        return {}
    waiting: dict[str, list[Part]] = {first: list(start.parts) if start is not None else [_start(output)]}
    lost = {} if lost is None else lost
    memory, uses, meets = Memory(), Uses.of(graph, values, twins), meetings(graph)
    channels = Back(graph, values, drawn) if drawn else None
    found: dict[str, float] = {} if start is None else dict(start.gradients)
    for node in reversed(graph.nodes):
        parts, law = waiting.pop(node.id, None), values[node.id]
        if not isinstance(law, Law) or not node.is_float:
            continue
        if node.id in lost:  # part of what it sends on is not known, so neither is the sum further back
            _lose(node, lost[node.id], lost)
            continue
        if parts is None:
            continue
        parts = channels.collected(node, parts) if channels is not None else parts
        parts, power = aligned([p for p in parts if p.second.any()] or parts[:1])  # a row's maximum hears nothing
        g = _summed(node, law, parts, meets.get(node.id, frozenset()), len(graph.users[node.id]) > 1, uses)
        second = max(g.second + (_in_common(uses, node, parts, g) if uses is not None else 0.0), 0.0)
        if np.isnan(second):  # what it sends on would be missing where it is added to others, without a word
            lost[node.id] = "the theory's own number is not one"
            _lose(node, lost[node.id], lost)
        if not np.isfinite(second):
            continue
        if not node.attrs.get("partial"):
            found[node.id] = held(float(np.sqrt(second)), power, node.dtype)[0]
        sent = _of_channels(node, g, channels, waiting, power) if channels is not None else None
        sent = _send(node, g, values, waiting, lost, power, memory) if sent is None else sent
        if uses is not None:
            uses.sent(node, g, sent)
        if watch is not None:
            watch(node, parts, g, sent)
    _of_one_tensor(graph, found)
    return found


def _of_one_tensor(graph: Graph, found: dict[str, float]) -> None:
    """A conversion to the type that a tensor has is that tensor, and has the gradient of all that read either."""
    for node in graph.nodes:
        if node.op == "to" and node.kind is Kind.MOVE and node.id in found:
            source = graph.by_id[node.inputs[0]]
            if source.dtype == node.dtype and source.id in found:
                found[node.id] = found[source.id]


def _shifted(node: Node, parts: list[Part], law: Law) -> bool:
    """Whether parts are about to be moved to the places beside theirs, where each meets what it is a neighbour of."""
    if node.kind is not Kind.MOVE or shifts.mark(node, law) is None:
        return False
    return len({p.base for p in parts}) == len(parts) and all(p.values is None and not p.awaited for p in parts)


def _in_common(uses: Uses, node: Node, parts: list[Part], g: Cotangent) -> float:
    """What the uses of a shared parameter have in common, beside the sum of its parts."""
    uses.gathered(parts, g)
    return uses.common(parts) if node.kind is Kind.PARAMETER and len(parts) > 1 else 0.0


def _summed(
    node: Node, law: Law, parts: list[Part], meets: frozenset[int], shared: bool, uses: Uses | None
) -> Cotangent:
    """What all that read a tensor send it, with what they have in common where weights are used more than once."""
    kept = _shifted(node, parts, law)
    g = Cotangent(law, tuple(parts)) if kept else gathered(law, parts, meets, last=shared)
    more = 0.0 if uses is None or node.kind is Kind.PARAMETER else uses.together(parts, law)
    return replace(g, parts=tuple(replace(p, second=p.second * (1 + more)) for p in g.parts)) if more else g


def _start(law: Law) -> Part:
    return fresh(np.ones((1,) * len(law.shape)), dict.fromkeys(subsets(law.groups), 0.0))


def _of_channels(node: Node, g: Cotangent, channels: Back, waiting, power: int) -> list[list[Part]] | None:
    """What drawn channels send; None where rules say what is sent."""
    channels.laid(node, g)
    sent = channels.sent(node) if not power else None
    for source, parts in zip(node.inputs, sent or (), strict=False):
        if parts:
            waiting.setdefault(source, []).extend(parts)
    return sent


def _send(
    node: Node, g: Cotangent, values, waiting, lost: dict[str, str], power: int, memory: Memory
) -> list[list[Part]] | None:
    if node.kind in (Kind.PARAMETER, Kind.INPUT, Kind.CONSTANT):
        return None
    if node.attrs.get("detached"):  # a target, a codebook, what a straight-through estimate adds: no gradient passes
        return [[] for _ in node.inputs]
    inputs = tuple(values[i] for i in node.inputs)
    rule = RULES.get(node.kind)
    if rule is None:
        _lose(node, f"{node.op} has no rule", lost)
        return None
    try:
        sent = memory.parts(node, g, inputs, lambda: scaled_back(rule, node, g, inputs))
        if node.kind not in KNOWING:
            sent = [[replace(p, given={}, loads={}, beside=(), gate=None) for p in one] for one in sent]
        sent = [[settled(p, power) for p in one] for one in sent]
    except (NotImplementedError, *FAILURES) as error:
        _lose(node, reason(node.op, error), lost)
        return None
    for source, parts in zip(node.inputs, sent, strict=True):
        if parts:
            waiting.setdefault(source, []).extend(parts)
    return sent


def _lose(node: Node, why: str, lost: dict[str, str]) -> None:
    for source in node.inputs:
        lost.setdefault(source, why)
