"""What the rules share: the setting, what a result inherits, and the rule for whatever has none of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fanin.distributions import Distribution
from fanin.graph import Graph, Node
from fanin.theory.law import Law, subsets
from fanin.theory.state import Value
from fanin.theory.width.state import NOTHING, Sources, Spread
from fanin.theory.width.weights import drawn


@dataclass
class Setting:
    """What rules share: the graph, the laws of a plan, the sources handed out so far."""

    graph: Graph
    laws: Mapping[str, Distribution]
    sources: Sources = field(default_factory=Sources)


Inputs = tuple[Any, ...]  # a rule that meets what it was not written for fails, and the general one takes over
Rule = Callable[[Setting, Node, Law, Inputs, tuple[Spread, ...]], Spread]


def share_of(made: float, out: Law) -> float:
    return min(made / out.second, 1.0) if out.second > 0 else 1.0


def pairs_along(value: Value, axis: int) -> frozenset[str]:
    """Groups of an axis."""
    axes = getattr(value, "axes", ())
    return frozenset(t.group for t in axes[axis] if t.size > 1) if axes else frozenset()


def before(law: Law, spread: Spread) -> np.ndarray:
    """Log variance that came before the tensor's own draw."""
    return spread.drift + 2 * spread.scale


def inherited(out: Law, inputs: Inputs, spreads: tuple[Spread, ...]):
    """Wander of the result where the rule mixes places: that of the input of its groups that wanders most."""
    found = {}
    for differ in subsets(out.groups):
        found[differ] = max((s.wander.get(differ, 0.0) for s in spreads), default=0.0)
    return found


def general(setting: Setting, node: Node, out: Law, inputs: Inputs, spreads: tuple[Spread, ...]) -> Spread:
    """The result's own features, and the drift of the first signal."""
    first = next((i for i, v in enumerate(inputs) if isinstance(v, Law)), None)
    drift = NOTHING if first is None else before(inputs[first], spreads[first])
    return drawn(setting.sources, out, inherited(out, inputs, spreads), drift)
