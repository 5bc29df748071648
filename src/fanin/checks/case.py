"""The case that rules judge: graph and signals side by side, and what several rules ask of both."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fanin.graph import Graph, Kind, Node, Parameter
from fanin.graph.nonlinearity import Nonlinearity, nonlinearities, preceding
from fanin.graph.questions import Contraction, contractions, ends_branch, scale_free, trunk
from fanin.signals import Signal, Signals


@dataclass(frozen=True)
class Case:
    """A model on a batch.

    Attributes:
        graph, predicted, measured: as `fanin.check` made them; measured is None where nothing was run.
        target: of the loss, where one was given.
    """

    graph: Graph
    predicted: Signals | None
    measured: Signals | None
    target: Any = None

    def row(self, node: Node) -> Signal | None:
        """The measured row of a node's tensor, else the predicted one."""
        return self._row(self.measured, node) or self._row(self.predicted, node)

    def predicted_row(self, node: Node) -> Signal | None:
        """The predicted row of a node's tensor."""
        return self._row(self.predicted, node)

    def measured_row(self, node: Node) -> Signal | None:
        """The measured row of a node's tensor."""
        return self._row(self.measured, node)

    @staticmethod
    def _row(signals: Signals | None, node: Node) -> Signal | None:
        return signals[node.name] if signals is not None and node.name in signals else None

    def rms(self, node: Node) -> float | None:
        """Root mean square of a node's tensor, None where it is not known or not finite."""
        row = self.row(node)
        return row.rms if row is not None and row.rms is not None and math.isfinite(row.rms) else None

    @cached_property
    def layers(self) -> list[Contraction]:
        """Every sum over a weight, in order."""
        return contractions(self.graph)

    @cached_property
    def functions(self) -> dict[str, Nonlinearity]:
        """Pointwise functions by the id of the node that they end in."""
        return nonlinearities(self.graph)

    @cached_property
    def trunk(self) -> list[Node]:
        """The path of the strongest signal from the batch to the first output."""
        return trunk(self.graph, lambda node: self.rms(node) or 0.0)

    @cached_property
    def head(self) -> Contraction | None:
        """The last contraction on the trunk: its scale is a choice about the output, not a matter of depth."""
        on_trunk = {node.id for node in self.trunk}
        found = [layer for layer in self.layers if layer.node.id in on_trunk]
        return found[-1] if found else None

    @cached_property
    def weights(self) -> dict[str, Parameter]:
        """Every parameter (no buffers) by its own name, ties once."""
        return {n: p for n, p in self.graph.parameters.items() if n == p.name and not p.buffer}

    @cached_property
    def uses(self) -> Mapping[str, list[Node]]:
        """Nodes that read each parameter, by the parameter's name."""
        found: dict[str, list[Node]] = {}
        for node in self.graph.nodes:
            if node.kind is Kind.PARAMETER:
                found.setdefault(node.attrs["parameter"], []).extend(self.graph.users[node.id])
        return found

    @cached_property
    def plain(self) -> list[tuple[Contraction, Nonlinearity]]:
        """Hidden layers whose weight scale compounds with depth, each with the function that feeds it.

        Left out: the first layer and the head, what a norm makes scale-free, and the ends of residual branches.
        """
        kept = []
        for layer in self.layers:
            function = preceding(self.graph, layer.x, self.functions)
            hidden = self.head is None or layer.node.id != self.head.node.id
            if function is None or not hidden or layer.weight.law is None:
                continue
            if not scale_free(self.graph, layer.node) and ends_branch(self.graph, layer.node) is None:
                kept.append((layer, function))
        return kept


def std_of(parameter: Parameter) -> float | None:
    """Root mean square of a weight's values, or of the law they would be drawn from."""
    if parameter.stats:
        return parameter.stats.get("rms")
    if parameter.law is None:
        return None
    mean, std = parameter.law.moments(parameter.shape)
    return math.hypot(mean, std)


def listed(names: list[str], most: int = 3) -> str:
    """``a, b, c and 4 more``."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def plural(count: int, word: str, many: str | None = None) -> str:
    """``1 layer``, ``3 layers``."""
    return f"{count} {word if count == 1 else many or word + 's'}"
