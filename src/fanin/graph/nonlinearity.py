"""Which pointwise function a tensor goes through, also where it is spelled out in several operations.

A hand-written GELU is eight nodes. From the tensor on, every node that depends on it alone and acts element by element
belongs to the function; where one node of that region is read from outside, the region is a function of one argument.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fanin.graph.node import Graph, Kind, Node
from fanin.graph.questions import CARRIERS, contraction, normalizes, signal_inputs

ELEMENTWISE = (Kind.POINTWISE, Kind.SUM, Kind.PRODUCT)


@dataclass(frozen=True, eq=False)
class Nonlinearity:
    """A pointwise function in the graph.

    Attributes:
        start: id of the tensor that goes in (the pre-activation); ``node`` makes what comes out.
        fn: the function on NumPy arrays.
        name: what to call it: the operation, or the module that spells it out.
    """

    start: str
    node: Node
    fn: Callable[..., np.ndarray]
    name: str


def following(graph: Graph, node: Node) -> Nonlinearity | None:
    """The function that a tensor goes through next, seen through moves, dropout, norms and learned scales; None at a
    contraction, a sum with another signal, a gate, or an output."""
    here = node
    for _ in range(64):
        found = nonlinearity(graph, here)
        if found is not None:
            return found
        users = [u for u in graph.users[here.id] if _passes(graph, u)]
        if len(users) != 1:
            return None
        here = users[0]
    return None


def _passes(graph: Graph, node: Node) -> bool:
    if contraction(graph, node) is not None:
        return False
    if node.kind in (*CARRIERS, Kind.NORM, Kind.POOL) or normalizes(graph, node) is not None:
        return True
    return node.kind in (Kind.SUM, Kind.PRODUCT) and len(signal_inputs(graph, node)) == 1


def preceding(graph: Graph, id_: str, known: dict[str, Nonlinearity]) -> Nonlinearity | None:
    """The function whose result a tensor is, seen back through moves, dropout and pooling.

    Args:
        known: functions by the id of the node they end in, as `nonlinearities` gives.
    """
    node = graph.by_id[id_]
    while node.id not in known:
        if node.kind not in (*CARRIERS, Kind.POOL) or not node.inputs:
            return None
        node = graph.by_id[node.inputs[0]]
    return known[node.id]


def nonlinearities(graph: Graph) -> dict[str, Nonlinearity]:
    """Every function of one tensor, by the id of the node it ends in; those inside a larger one are left out."""
    found: dict[str, Nonlinearity] = {}
    inside: set[str] = set()
    for node in graph.signals:
        if node.id in inside:
            continue
        members = region(graph, node.id)
        item = nonlinearity(graph, node, members)
        if item is not None and item.node.id not in found:
            found[item.node.id] = item
            inside |= {m for m in members if m != item.node.id}
    return found


def region(graph: Graph, start: str) -> dict[str, Node]:
    """The nodes that depend element by element on one tensor alone (and on single numbers)."""
    members: dict[str, Node] = {}
    stack = list(graph.users[start])
    while stack:
        node = stack.pop(0)
        if node.id in members or node.kind not in ELEMENTWISE or not node.is_float:
            continue
        if all(i == start or i in members or _single(graph, i) for i in node.inputs):
            members[node.id] = node
            stack.extend(graph.users[node.id])
    return members


def _single(graph: Graph, id_: str) -> bool:
    """A single number: a scalar constant, or the slope of a PReLU."""
    node = graph.by_id[id_]
    if node.kind is Kind.CONSTANT:
        return int(np.prod(node.shape)) == 1 and node.attrs.get("value") is not None
    return node.kind is Kind.PARAMETER and graph.parameters[node.attrs["parameter"]].kind == "PReLU"


def nonlinearity(graph: Graph, node: Node, members: dict[str, Node] | None = None) -> Nonlinearity | None:
    """The function that starts at a tensor, if its region is read from outside at one node and is not linear."""
    members = region(graph, node.id) if members is None else members
    if not members:
        return None
    exits = [m for m in members.values() if _read_outside(graph, m, members)]
    if len(exits) != 1:
        return None
    fn = _composed(graph, node.id, members, exits[0])
    if _affine(fn):
        return None
    return Nonlinearity(node.id, exits[0], fn, _name(members, exits[0]))


def _read_outside(graph: Graph, node: Node, members: dict[str, Node]) -> bool:
    return node.id in graph.outputs or any(user.id not in members for user in graph.users[node.id])


def _composed(graph: Graph, start: str, members: dict[str, Node], end: Node) -> Callable:
    order = [n for n in graph.nodes if n.id in members]
    numbers = {i: _number(graph, i) for n in order for i in n.inputs if i != start and i not in members}

    def fn(x: np.ndarray) -> np.ndarray:
        values = {start: np.asarray(x, float)}
        for node in order:
            arguments = [values[i] if i in values else np.full_like(values[start], numbers[i]) for i in node.inputs]
            values[node.id] = _apply(node, arguments)
        return values[end.id]

    return fn


def _apply(node: Node, arguments: list[np.ndarray]) -> np.ndarray:
    if node.kind is Kind.POINTWISE:
        return np.asarray(node.attrs["fn"](*arguments))
    if len(arguments) == 1:  # x + x and x * x read one tensor
        arguments = arguments * 2
    if node.kind is Kind.PRODUCT:
        return arguments[0] * arguments[1]
    return arguments[0] + node.attrs.get("alpha", 1.0) * arguments[1]


def _number(graph: Graph, id_: str) -> float:
    node = graph.by_id[id_]
    if node.kind is Kind.CONSTANT:
        return float(np.asarray(node.attrs["value"]).reshape(-1)[0])
    parameter = graph.parameters[node.attrs["parameter"]]
    return parameter.stats.get("mean", 0.25) if parameter.law is None else parameter.law.moments(parameter.shape)[0]


def _affine(fn: Callable) -> bool:
    x = np.linspace(-6, 6, 25)
    try:
        y = np.asarray(fn(x), float)
    except Exception:
        return True  # nothing can be said of it: as if it were not there
    return bool(np.allclose(y, y[0] + (y[-1] - y[0]) * (x + 6) / 12, rtol=1e-9, atol=1e-12))


def _name(members: dict[str, Node], end: Node) -> str:
    return end.op if len(members) == 1 else (end.module or end.op)
