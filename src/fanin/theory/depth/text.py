"""The theory of depth of one model in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fanin.signals import Signals
from fanin.theory.depth.blocks import stacks
from fanin.theory.depth.jacobian import chain, spectrum
from fanin.theory.depth.record import depth_of
from fanin.theory.depth.settle import settle

if TYPE_CHECKING:
    from fanin.theory.engine import Interpreter


def told(interpreter: Interpreter, signals: Signals) -> list[str]:
    """What each stack of blocks does, where its block would settle, and the Jacobian of a chain.

    Args:
        interpreter: one that has run over the graph.
        signals: what it found.
    """
    lines = []
    rows = {node.id: signals[node.name] for node in interpreter.graph.signals}
    for stack in stacks(interpreter.graph):
        depth = depth_of(stack, interpreter.values, rows)
        if depth is None:
            continue
        lines.append(depth.text() + ".")
        settled = settle(interpreter, stack) if depth.signal.form in ("exponential", "steady") else None
        if settled is not None:
            lines.append(f"  {settled.text()[0].upper()}{settled.text()[1:]}.")
    layers = chain(interpreter.graph, interpreter.values)
    if layers:
        lines.append(f"The {spectrum(layers).text()}.")
    return lines
