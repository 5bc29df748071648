"""From a loss to the cotangent that backward starts with: its mean square, its correlations, its tie to the logits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fanin.graph import Graph
from fanin.graph.head import Evaluate, Evaluated, Head
from fanin.theory.adjoint.cotangent import Part
from fanin.theory.law import Law
from fanin.theory.loss.cut import cut
from fanin.theory.loss.draw import draw
from fanin.theory.loss.fit import Fit
from fanin.theory.state import Known, Value

ELEMENTS = 1 << 20  # drawn in all, where the tensor is smaller
LARGEST = 1 << 26  # a tensor that is too large to be drawn twice
DRAWS = (4, 256)


@dataclass(frozen=True)
class Start:
    """Where backward starts.

    Attributes:
        node: id of the tensor whose cotangent it is; None where the output has no law or is too large to be drawn.
        parts: that cotangent.
        tensors: rms, mean and gradient rms of the tensors behind it, by id.
        facts: for Signals.
    """

    node: str | None
    parts: tuple[Part, ...] = ()
    tensors: Mapping[str, tuple[float, float, float | None]] | None = None
    facts: Mapping[str, Any] | None = None

    @property
    def gradients(self) -> dict[str, float]:
        """Rms of the gradients of the tensors behind the start."""
        return {k: row[2] for k, row in (self.tensors or {}).items() if row[2] is not None}


def start(graph: Graph, values: Mapping[str, Value], head: Head) -> Start:
    """Draw the output from its law, evaluate the loss and its gradient on it, and describe what comes out."""
    facts: dict[str, Any] = {"cotangent": "loss"}
    found = cut(graph, values, graph.outputs[0]) if graph.outputs else None
    law = values[found.node] if found is not None else None
    if found is None or not isinstance(law, Law):
        return Start(None, facts={**facts, "loss_note": "the output is not modelled, and so neither is the loss"})
    size = int(np.prod(law.shape))
    if size > LARGEST:
        note = f"an output of {size} elements is too large to draw: give fewer samples or positions"
        return Start(None, facts={**facts, "loss_note": note})
    evaluate = head(found, {k: v.array for k, v in values.items() if isinstance(v, Known)})
    fit, seen = Fit(law), _Means()
    for z, result in _samples(law, evaluate, size):
        fit.add(z, result.gradient)
        seen.add(result)
    tensors = {k: v for k, v in seen.tensors().items() if k in found.tail}
    return Start(found.node, fit.parts(), tensors, {**facts, **seen.facts()})


def _samples(law: Law, evaluate: Evaluate, size: int) -> Iterator[tuple[np.ndarray, Evaluated]]:
    rng = np.random.default_rng(0)
    low, high = DRAWS
    for _ in range(int(np.clip(ELEMENTS // size, low if size < LARGEST // 16 else 2, high))):
        drawn = draw(law, rng)
        yield drawn.latent, evaluate(drawn.values)


class _Means:
    """Means over draws of what each one says."""

    def __init__(self) -> None:
        self._facts: dict[str, list[float]] = {}
        self._tensors: dict[str, list[tuple[float, float, float | None]]] = {}

    def add(self, result: Evaluated) -> None:
        for name, value in result.facts.items():
            self._facts.setdefault(name, []).append(value)
        for name, row in result.tensors.items():
            self._tensors.setdefault(name, []).append(row)

    def facts(self) -> dict[str, float]:
        """The loss with its spread from network to network, the accuracy, the rms of the output."""
        out = {}
        for name, values in self._facts.items():
            mean = float(np.mean(values))
            if name == "square":
                out["logit_rms"] = float(np.sqrt(mean))
            else:
                out[name] = mean
        if len(self._facts.get("loss", ())) > 1:
            out["loss_spread"] = float(np.std(self._facts["loss"], ddof=1))
        return out

    def tensors(self) -> dict[str, tuple[float, float, float | None]]:
        """Rms, mean and gradient rms."""
        out = {}
        for name, rows in self._tensors.items():
            square, mean = (float(np.mean([row[i] or 0.0 for row in rows])) for i in (0, 1))
            grads = [row[2] for row in rows if row[2] is not None]
            out[name] = (
                float(np.sqrt(square)),
                mean,
                float(np.sqrt(np.mean(np.array(grads, float)))) if grads else None,
            )
        return out
