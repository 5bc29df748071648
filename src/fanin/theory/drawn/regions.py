"""Where a graph keeps a maximum and takes it off: ``m' = max(m + w, k)``, ``exp(m + w - m')``, ``exp(k - m')``.

The maximum is made up of all earlier keys and stands in numerator and denominator alike, so it cancels in their
quotient, step after step; keys stand in both. Laws of single tensors know none of this. Everything that happens there
happens to one channel at a time, so the whole region is followed on channels that are drawn (``channels``).
"""

from __future__ import annotations

from dataclasses import dataclass

from fanin.graph import Graph, Kind, Node

ELEMENTWISE = (Kind.POINTWISE, Kind.SUM, Kind.PRODUCT)


@dataclass(frozen=True)
class Region:
    """Elementwise operations that hang together.

    Attributes:
        shape: of the tensors, all places of one step: (samples, features).
        nodes: ids in the order in which they run; weights alone (a rate of each channel) are among them.
    """

    shape: tuple[int, ...]
    nodes: tuple[str, ...]


def regions(graph: Graph) -> list[Region]:
    """Regions in which a maximum that is taken off is made of an earlier one."""
    extremes = [n for n in graph.nodes if n.op in ("maximum", "minimum") and n.attrs.get("partial")]
    found = []
    for shape in dict.fromkeys(n.shape for n in extremes):
        if len(shape) == 2:
            found += [r for r in _hanging_together(graph, shape) if _running(graph, r)]
    return found


def elementwise(graph: Graph, node: Node) -> bool:
    """Whether a node does the same to every element by itself, or nothing."""
    if node.kind is Kind.MOVE:
        idle = node.attrs["how"] in ("same", "expand") and node.shape == graph.by_id[node.inputs[0]].shape
        return node.is_float and idle and len(node.inputs) == 1
    return node.is_float and node.kind in ELEMENTWISE


def _of_weights(graph: Graph) -> set[str]:
    """Elementwise functions of parameters alone."""
    found: set[str] = set()
    for node in graph.nodes:
        sources = (graph.by_id[i] for i in node.inputs)
        if node.inputs and elementwise(graph, node) and all(s.kind is Kind.PARAMETER or s.id in found for s in sources):
            found.add(node.id)
    return found


def _hanging_together(graph: Graph, shape: tuple[int, ...]) -> list[Region]:
    of_weights, owner = _of_weights(graph), {}
    for node in graph.nodes:
        if elementwise(graph, node) and (node.shape == shape or node.id in of_weights):
            owner[node.id] = node.id

    def root(i: str) -> str:
        while owner[i] != i:
            owner[i] = i = owner[owner[i]]
        return i

    for node in graph.nodes:
        for i in node.inputs if node.id in owner else ():
            if i in owner:
                owner[root(i)] = root(node.id)
    members: dict[str, list[str]] = {}
    for i in owner:
        members.setdefault(root(i), []).append(i)
    return [Region(shape, tuple(ids)) for ids in members.values()]


def _running(graph: Graph, region: Region) -> bool:
    behind: set[str] = set()
    for i in region.nodes:
        node = graph.by_id[i]
        if any(j in behind for j in node.inputs):
            behind.add(i)
        if node.op in ("maximum", "minimum") and node.attrs.get("partial"):
            if i in behind:
                return True
            behind.add(i)
    return False
