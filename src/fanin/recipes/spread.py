"""Normal or uniform? What the shape of the weights' law changes in one model: how far single networks stray.

The mean signal is the same for every law of one standard deviation. What differs is the spread over networks: by the
kurtosis of the law, ``(kurtosis - 3) E[x^4] / (fan_in q^2)`` beside 2 in the relative variance of a unit's square. That
is of the order 1/n^2 for a layer of n units, and large where few inputs carry the signal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fanin.distributions import Distribution, Normal, Uniform
from fanin.graph import Graph, Node
from fanin.graph.questions import contractions
from fanin.theory.engine import Interpreter
from fanin.theory.law import Law
from fanin.theory.width import Widths, interval
from fanin.theory.width.state import squares, variance

SHAPES = {"normal": Normal, "uniform": Uniform}


@dataclass(frozen=True)
class Comparison:
    """One model under both laws.

    Attributes:
        graph: the model.
        widths: by law, of the same mean signal.
    """

    graph: Graph
    widths: Mapping[str, Widths]

    def layer(self, node: Node) -> dict[str, float] | None:
        """Relative standard deviation over networks of a layer's rms by its own draw, by law."""
        found = {kind: _own(widths, node) for kind, widths in self.widths.items()}
        return (
            None if any(v is None for v in found.values()) else {k: float(v) for k, v in found.items() if v is not None}
        )

    def output(self) -> tuple[str, dict[str, tuple[float, float]], dict[str, float]] | None:
        """Name of the first output, the ends of its interval by law, and the standard deviation of its log rms."""
        if not self.graph.outputs:
            return None
        end, ends, deviations = self.graph.outputs[0], {}, {}
        for kind, widths in self.widths.items():
            delta, law = widths.of(end), widths.values.get(end)
            if delta is None or not isinstance(law, Law) or law.rms == 0:
                return None
            low, high = interval.factors(delta)
            ends[kind] = (law.rms * float(low), law.rms * float(high))
            deviations[kind] = float(np.sqrt(interval.log_cumulants(delta)[1])) / 2
        return self.graph.by_id[end].name, ends, deviations


def _own(widths: Widths, node: Node) -> float | None:
    law, spread = widths.values.get(node.id), widths.spreads.get(node.id)
    if not isinstance(law, Law) or spread is None:
        return None
    moments = spread.moments.copy()
    moments[1] -= spread.drift / np.sqrt(2)
    return float(np.sqrt(variance(squares(law) @ moments))) / 2


def compared(graph: Graph, laws: Mapping[str, Distribution]) -> Comparison:
    """The model with every weight matrix normal, and with every one uniform, of the standard deviations it has.

    Args:
        laws: distributions of a plan, by parameter name; the graph's own elsewhere.
    """
    interpreter = Interpreter(graph, laws)
    interpreter.forward()
    widths = {}
    for kind, shape in SHAPES.items():
        widths[kind] = Widths(graph, interpreter.values, {**laws, **_shaped(graph, laws, shape)})
        widths[kind].forward()
    return Comparison(graph, widths)


def _shaped(graph: Graph, laws: Mapping[str, Distribution], shape) -> dict[str, Distribution]:
    found = {}
    for name, parameter in graph.parameters.items():
        law = laws.get(name, parameter.law)
        if law is None or len(parameter.shape) < 2 or parameter.buffer:
            continue
        mean, std = law.moments(parameter.shape)
        if std > 0:
            found[name] = shape(std, mean=mean)
    return found


def of_layer(comparison: Comparison, node: Node) -> str | None:
    """A sentence on one layer of the model, and what is left of it at the output."""
    layer, output = comparison.layer(node), comparison.output()
    if layer is None:
        return None
    text = (
        f"On this batch its own draw moves the rms of its output by {_percent(layer['normal'])} if normal, "
        f"{_percent(layer['uniform'])} if uniform (std over networks)"
    )
    if output is None:
        return f"{text}."
    name, _, deviation = output
    normal, uniform = (_percent(deviation[kind]) for kind in SHAPES)
    return f"{text}; all layers together move {name} by {normal} or {uniform}."


def of_model(comparison: Comparison) -> str | None:
    """The answer for a whole model: end to end, and the layer where the laws differ most."""
    output = comparison.output()
    if output is None:
        return None
    name, ends, deviation = output
    text = (
        f"Normal or uniform? End to end the rms of {name} lies, in 95 % of networks, "
        f"between {ends['normal'][0]:.4g} and {ends['normal'][1]:.4g} if the weights are normal, "
        f"between {ends['uniform'][0]:.4g} and {ends['uniform'][1]:.4g} if they are uniform of the same std "
        f"(std {_percent(deviation['normal'])} or {_percent(deviation['uniform'])})."
    )
    layers = [(c.node, layer) for c in contractions(comparison.graph) if (layer := comparison.layer(c.node))]
    if not layers:
        return text
    node, layer = max(layers, key=lambda found: abs(found[1]["normal"] - found[1]["uniform"]))
    normal, uniform = (_percent(layer[kind]) for kind in SHAPES)
    return f"{text} They differ most at {node.name}: {normal} or {uniform} by its own draw."


def answers(graph: Graph) -> list[str]:
    """What a report says of a model with the weights it has: nothing where its output is not modelled."""
    found = of_model(compared(graph, {}))
    return [found] if found else []


def _percent(value: float) -> str:
    return f"{100 * value:.3g} %"
