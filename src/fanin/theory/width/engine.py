"""The width of every prediction: forward along the graph after the interpreter, backward beside the cotangents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fanin.distributions import Distribution
from fanin.graph import Graph, Kind, Node
from fanin.signals import Signal
from fanin.theory.failures import FAILURES, reason
from fanin.theory.law import Law
from fanin.theory.notes import together
from fanin.theory.records import replace
from fanin.theory.state import Value
from fanin.theory.width import interval
from fanin.theory.width.backward import Behind
from fanin.theory.width.contraction import parameter
from fanin.theory.width.forward import RULES
from fanin.theory.width.rule import Setting, general
from fanin.theory.width.state import STILL, Spread, of_square

GENERAL = "{} by the general rule: what its inputs bring, and a draw of its own features"
ROWS = 256  # tensors at a time


@dataclass(eq=False)
class Widths:
    """Fluctuations of the tensors of one graph.

    Args:
        graph: the model.
        values: what the interpreter found at every node.
        laws: distributions that replace the graph's own (a plan).
    """

    graph: Graph
    values: dict[str, Value]
    laws: Mapping[str, Distribution] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.setting = Setting(self.graph, self.laws)
        self.spreads: dict[str, Spread] = {}
        self.rough: set[str] = set()
        self.behind = Behind(self.setting, self.values, self.spreads)

    def forward(self) -> None:
        """The spread of every tensor that has a law."""
        for node in self.graph.nodes:
            law = self.values.get(node.id)
            if not isinstance(law, Law):
                continue
            if node.kind is Kind.PARAMETER:
                self.spreads[node.id] = parameter(self.setting, node, law)
                continue
            self.spreads[node.id] = self._ruled(node, law)

    def _ruled(self, node: Node, law: Law) -> Spread:
        inputs = tuple(self.values[i] for i in node.inputs)
        spreads = tuple(self.spreads.get(i, STILL) for i in node.inputs)
        with np.errstate(all="ignore"):
            try:
                return RULES.get(node.kind, general)(self.setting, node, law, inputs, spreads)
            except (NotImplementedError, *FAILURES) as error:  # a case that the kind's own rule was not written for
                reason(node.op, error)
                self.rough.add(node.id)
                return general(self.setting, node, law, inputs, spreads)

    def of(self, id_: str) -> np.ndarray | None:
        """Fluctuation of the log mean square of a tensor, by source."""
        law = self.values.get(id_)
        return of_square(law, self.spreads[id_]) if isinstance(law, Law) and id_ in self.spreads else None

    def bounded(self, rows: Mapping[str, Signal]) -> dict[str, Signal]:
        """Rows, by node id, with their intervals."""
        forward = _ends({i: d for i in rows if (d := self.of(i)) is not None})
        backward = _ends({i: self.behind.found[i] for i in rows if i in self.behind.found})
        found = {i: _with(row, forward.get(i), backward.get(i)) for i, row in rows.items()}
        return {i: _marked(row, i in self.rough, i in self.behind.rough) for i, row in found.items()}


def _ends(deltas: Mapping[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    if not deltas:
        return {}
    rows = list(deltas.values())
    cumulants = [interval.log_cumulants(np.stack(rows[i : i + ROWS])) for i in range(0, len(rows), ROWS)]
    low, high = interval.ends(*(np.concatenate(c) for c in zip(*cumulants, strict=True)))
    return {i: (float(a), float(b)) for i, a, b in zip(deltas, low, high, strict=True)}


def _with(row: Signal, forward: tuple[float, float] | None, backward: tuple[float, float] | None) -> Signal:
    bounds: dict[str, float] = {}
    if row.rms is not None:
        low, high = forward or (1.0, 1.0)
        bounds |= {"rms_low": row.rms * low, "rms_high": row.rms * high}
    if row.grad_rms is not None and backward is not None:
        bounds |= {"grad_rms_low": row.grad_rms * backward[0], "grad_rms_high": row.grad_rms * backward[1]}
    return replace(row, **bounds)


def _marked(row: Signal, forward: bool, backward: bool) -> Signal:
    """A row whose interval is not that of its kind says so."""
    sides = [side for side, is_rough in (("interval", forward), ("gradient's interval", backward)) if is_rough]
    if not sides or row.rms is None:
        return row
    note = GENERAL.format(" and ".join(sides))
    return replace(row, exact=False, note=together(row.note, note))
