"""The depth of a model in one record a stack of blocks: growth of signal and gradient, phase, likeness of samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fanin.graph import Graph
from fanin.signals import Signal
from fanin.theory.depth.blocks import Stack, stacks
from fanin.theory.depth.trend import Trend, trend
from fanin.theory.law import Law
from fanin.theory.state import POSITION, SAMPLE, Value

Phase = Literal["ordered", "critical", "chaotic"]

CRITICAL = 0.01  # in the logarithm of chi


@dataclass(frozen=True, slots=True)
class Depth:
    """What a stack of blocks does with depth.

    Attributes:
        blocks: names of the blocks, in order.
        signal: rms of what the blocks hand on, from the first to the last.
        gradient: rms of the gradient there, from the last to the first.
        chi: factor a block on the squared gradient; a small difference between two inputs grows by the same factor.
        phase: "chaotic" where chi > 1, "ordered" where it is less, "critical" where it is 1 or tends to 1.
        sensitivity: factor a block on the rms of a small difference between inputs, beside that of the signal.
        samples, positions: cosine E[x x'] / E[x^2] of two samples, or two positions of one, behind every block.
    """

    blocks: tuple[str, ...]
    signal: Trend
    gradient: Trend | None
    chi: float | None
    phase: Phase | None
    sensitivity: float | None
    samples: tuple[float, ...] = ()
    positions: tuple[float, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts and lists, with a sentence for people."""
        return {
            "blocks": list(self.blocks),
            "signal": self.signal.to_dict(),
            "gradient": self.gradient.to_dict() if self.gradient else None,
            "chi": self.chi,
            "phase": self.phase,
            "sensitivity": self.sensitivity,
            "samples": list(self.samples),
            "positions": list(self.positions),
            "text": self.text(),
        }

    def text(self) -> str:
        """Sentences: what signal, gradient and samples do along the blocks."""
        first, last = self.blocks[0], self.blocks[-1]
        parts = [f"the signal {_told(self.signal, self.blocks, ('holds', 'grows', 'shrinks'))}"]
        if self.gradient is not None:
            told = _told(self.gradient, self.blocks, ("hold", "grow", "shrink"))
            parts.append(f"gradients on the way back {told}")
        for word, cosines in (("samples", self.samples), ("positions", self.positions)):
            if cosines:
                parts.append(f"the cosine between {word} goes {cosines[0]:.2g} → {cosines[-1]:.2g}")
        phase = f" ({self.phase})" if self.phase else ""
        return f"{len(self.blocks)} blocks {first} … {last}{phase}: " + "; ".join(parts)


def _told(found: Trend, blocks: Sequence[str], verbs: tuple[str, str, str]) -> str:
    """A trend in words; verbs for staying, growing and shrinking."""
    whole = f"{found.first:.3g} → {found.last:.3g}"
    stays, grows, shrinks = verbs
    begin = f", from {blocks[found.start]} on" if found.start else ""
    if found.form == "steady":
        return f"{stays}{begin} ({whole})"
    verb = grows if found.growth > 1 else shrinks
    if found.form == "power":
        return f"{verb} as depth^{found.exponent:.2g} ({whole})"
    if found.form == "irregular":
        return f"{verb} unevenly ({whole})"
    life = "doubling" if found.growth > 1 else "half-life"
    return f"{verb} {found.growth:.3g}× a block{begin}; {life} {found.half_life:.2g} blocks ({whole})"


def depths(graph: Graph, values: Mapping[str, Value], rows: Mapping[str, Signal]) -> tuple[Depth, ...]:
    """One record for every stack of blocks whose signal is known.

    Args:
        values: what the interpreter found at every node, by id.
        rows: the rows by node id.
    """
    found = [depth_of(stack, values, rows) for stack in stacks(graph)]
    return tuple(depth for depth in found if depth is not None)


def depth_of(stack: Stack, values: Mapping[str, Value], rows: Mapping[str, Signal]) -> Depth | None:
    """The record of one stack; None where its signal is not known, or not finite."""
    signal = trend([rows[end].rms for end in stack.ends])
    if signal is None:
        return None
    gradient = trend([rows[end].grad_rms for end in stack.ends], backward=True)
    laws = [values[end] for end in stack.ends]
    cosines = [_cosines(laws, group) for group in (SAMPLE, POSITION)]
    if gradient is None or gradient.form == "irregular":
        return Depth(stack.blocks, signal, gradient, None, None, None, *cosines)
    chi = _lasting(gradient) ** 2
    relative = _lasting(gradient) / _lasting(signal) if signal.form != "irregular" else None
    return Depth(stack.blocks, signal, gradient, chi, phase_of(chi), relative, *cosines)


def _lasting(found: Trend) -> float:
    """The factor a block that an infinitely deep net would show: powers of the depth are slower than any."""
    return found.growth if found.form == "exponential" else 1.0


def phase_of(chi: float) -> Phase:
    """Which side of chi = 1.

    Example:
        >>> phase_of(1.21)
        'chaotic'
    """
    return "critical" if abs(math.log(chi)) < CRITICAL else "chaotic" if chi > 1 else "ordered"


def _cosines(laws: Sequence[Value], group: str) -> tuple[float, ...]:
    if not all(isinstance(law, Law) and group in law.groups and law.second > 0 for law in laws):
        return ()
    return tuple(float(law.pair({group}) / law.second) for law in laws if isinstance(law, Law))
