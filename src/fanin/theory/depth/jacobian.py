"""Singular values of the input-output Jacobian of a chain of dense layers and activations.

For ``J = D_L W_L ... D_1 W_1`` with square layers, s^2 of mean ``chi^L``. Freely independent factors multiply their
S-transforms, so the relative variances of the spectra add: for Gaussian weights E[f'^4] / E[f'^2]^2 a layer, for
orthogonal ones that less one. Widths that differ weigh a layer by ``n_0 / n``.

Source: Pennington, Schoenholz & Ganguli 2018, The emergence of spectral universality in deep networks,
arXiv:1802.09979, eq. 18; for rectangular factors derived in docs/theory.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fanin.graph import Graph, Kind, Node
from fanin.theory import grid
from fanin.theory.adjoint.slopes import derivative
from fanin.theory.law import Law
from fanin.theory.state import Known, Value

QUARTER_CIRCLE = 8 / (3 * math.pi)
"""Mean singular value over the root mean square one, of a square matrix with independent elements."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A dense layer and the activation behind it.

    Attributes:
        n_in, n_out: widths.
        variance: of a weight.
        orthogonal: whether rows (or columns, whichever are fewer) are orthonormal up to scale.
        slope2, slope4: E[f'^2] and E[f'^4] of what follows; 1 without an activation.
    """

    n_in: int
    n_out: int
    variance: float
    orthogonal: bool = False
    slope2: float = 1.0
    slope4: float = 1.0

    @property
    def mean_square(self) -> float:
        """Factor on the mean square singular value, counted in directions of the input."""
        return self.n_out * self.variance * self.slope2

    @property
    def spread(self) -> float:
        """What the layer adds to the relative variance of s^2, a direction of the network's input."""
        weights = max(1 / self.n_out - 1 / self.n_in, 0.0) if self.orthogonal else 1 / self.n_out
        return weights + (self.slope4 / self.slope2**2 - 1) / self.n_out


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Squared singular values of a Jacobian, over directions of the input.

    Attributes:
        mean: mean of s^2.
        relative_variance: variance of s^2 over its squared mean.
        layers: number of dense layers.
    """

    mean: float
    relative_variance: float
    layers: int

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return {name: getattr(self, name) for name in self.__slots__}

    def text(self) -> str:
        """A sentence."""
        return (
            f"input-output Jacobian of {self.layers} layers: singular values of rms {math.sqrt(self.mean):.3g}, "
            f"squares spread by {math.sqrt(self.relative_variance):.3g} times their mean"
        )


def spectrum(layers: list[Layer]) -> Spectrum:
    """Mean and spread of the squared singular values of a chain.

    Example:
        >>> relu = Layer(512, 512, 2 / 512, slope2=0.5, slope4=0.5)
        >>> round(spectrum([relu] * 10).relative_variance, 9)
        20.0
    """
    mean = math.prod(layer.mean_square for layer in layers)
    return Spectrum(mean, layers[0].n_in * sum(layer.spread for layer in layers), len(layers))


def chain(graph: Graph, values: Mapping[str, Value]) -> list[Layer] | None:
    """The layers of a graph that is one chain of dense layers and pointwise functions from its batch to its output."""
    layers: list[Layer] = []
    after: tuple[float, float] = (1.0, 1.0)
    node = graph.by_id[graph.outputs[0]] if graph.outputs else None
    while node is not None and node.kind is not Kind.INPUT:
        if node.kind is Kind.DENSE:
            layer = _layer(node, graph, values, after)
            if layer is None:
                return None
            layers.append(layer)
            after, node = (1.0, 1.0), graph.by_id[node.inputs[node.attrs["x"]]]
        elif node.kind is Kind.POINTWISE and len(node.inputs) == 1 and after == (1.0, 1.0):
            after = _slopes(node, values[node.inputs[0]])
            node = graph.by_id[node.inputs[0]]
        else:
            return None
    return layers[::-1] if layers and after == (1.0, 1.0) else None


def _layer(node: Node, graph: Graph, values: Mapping[str, Value], after: tuple[float, float]) -> Layer | None:
    weight = graph.by_id[node.inputs[node.attrs["weight"]]]
    law = values[weight.id]
    if weight.kind is not Kind.PARAMETER or not isinstance(law, Law) or law.mean**2 > 1e-6 * law.second:
        return None
    n_out, n_in = weight.shape if node.attrs["out_first"] else weight.shape[::-1]
    drawn = graph.parameters[weight.attrs["parameter"]].law
    return Layer(n_in, n_out, law.second, getattr(drawn, "kind", "") == "orthogonal", *after)


def _slopes(node: Node, x: Value) -> tuple[float, float]:
    """E[f'^2] and E[f'^4] over the law of the pre-activation."""
    if isinstance(x, Known) or not isinstance(x, Law):
        return (0.0, 0.0)
    slopes = derivative(node.attrs["fn"], x.values)
    two, four = (float(x.level_weight @ grid.expectation(slopes**k)) for k in (2, 4))
    return two, four
