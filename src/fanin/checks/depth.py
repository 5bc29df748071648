"""How a figure changes along the trunk: stations, segments between norms, rate a layer, half-life, where it starts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from fanin.checks.case import Case
from fanin.graph import Kind, Node
from fanin.graph.questions import contraction, normalizes, scale_free


@dataclass(frozen=True)
class Run:
    """A figure at consecutive stations.

    Attributes:
        nodes: the stations, first to last.
        values: the figure at each.
    """

    nodes: list[Node]
    values: list[float]

    @property
    def ratio(self) -> float:
        """Last over first."""
        return self.values[-1] / self.values[0] if self.values[0] else math.inf

    @property
    def layers(self) -> int:
        """Steps between stations."""
        return max(len(self.values) - 1, 1)

    @property
    def rate(self) -> float:
        """Factor a layer."""
        return self.ratio ** (1 / self.layers) if self.ratio > 0 else 0.0

    @property
    def halving(self) -> float:
        """Layers in which the figure halves (or doubles)."""
        speed = abs(math.log(self.rate)) if 0 < self.rate < math.inf else math.inf
        return math.log(2) / speed if speed > 0 else math.inf

    def start(self, down: bool) -> Node:
        """The station from which the figure goes one way: the first whose step is at least half the mean step."""
        mean = math.log(self.rate) if self.rate > 0 else -math.inf
        for before, after, node in zip(self.values, self.values[1:], self.nodes[1:]):
            step = math.log(after / before) if after > 0 and before > 0 else (-math.inf if after == 0 else math.inf)
            if (step <= mean / 2) if down else (step >= mean / 2):
                return node
        return self.nodes[-1]


def stations(case: Case) -> list[Node]:
    """Tensors of the trunk that compare with one another: sums over weights and residual sums, not the head."""
    head = case.head.node.id if case.head else None
    found = []
    for node in case.trunk:
        is_layer = node.kind in (Kind.DENSE, Kind.CONV, Kind.EMBED) or contraction(case.graph, node) is not None
        joins = node.kind is Kind.SUM and sum(i in _signals(case) for i in node.inputs) == 2
        if node.id == head:
            break
        if is_layer or joins:
            found.append(node)
    return found


def _signals(case: Case) -> set[str]:
    return {node.id for node in case.graph.signals}


def segments(case: Case) -> list[list[Node]]:
    """Stations cut at norms: what a norm makes scale-free is left out, the signal starts anew behind it."""
    pieces: list[list[Node]] = [[]]
    wanted = {node.id for node in stations(case)}
    for node in case.trunk:
        if normalizes(case.graph, node) is not None:
            pieces += [[node]]
        elif node.id in wanted and not normed(case, node):
            pieces[-1].append(node)
    return [piece for piece in pieces if len(piece) > 1]


def normed(case: Case, node: Node) -> bool:
    """Whether a layer's own scale is divided away behind it; a residual sum keeps its scale for the next blocks."""
    return node.kind is not Kind.SUM and scale_free(case.graph, node)


def run(nodes: list[Node], figure: Callable[[Node], float | None]) -> Run | None:
    """The figure at those stations where it is known; None where fewer than two are."""
    known = [(node, value) for node in nodes if (value := figure(node)) is not None and math.isfinite(value)]
    return Run([n for n, _ in known], [v for _, v in known]) if len(known) > 1 else None
