"""Backward through pointwise functions, sums and products."""

from __future__ import annotations

import numpy as np

from fanin.graph import Kind, Node
from fanin.theory.adjoint import between, radial, tied, white
from fanin.theory.adjoint.binary import binary
from fanin.theory.adjoint.cotangent import Cotangent, Part
from fanin.theory.adjoint.slopes import Function, flipped, function_of
from fanin.theory.adjoint.ternary import ternary
from fanin.theory.adjoint.unary import unary
from fanin.theory.combine import binary as combined
from fanin.theory.law import Law
from fanin.theory.rules.pointwise import laid_out
from fanin.theory.state import Known, Value, as_law


def elementwise(node: Node, g: Cotangent, inputs: tuple[Value, ...]) -> list[list[Part]]:
    """Parts for every operand: g times the partial derivative, on the operand's latent."""
    fn = function_of(node)
    g = tied.follow(g) if node.kind is Kind.POINTWISE else g
    sent = radial.behind(node, g, inputs, _agreeing(fn, g, inputs, _sent(fn, g, inputs)), fn)
    return between.told(node, g, inputs, sent)


def _agreeing(fn: Function, g: Cotangent, inputs: tuple[Value, ...], sent: list[list[Part]]) -> list[list[Part]]:
    """The parts with what they know of features that agree by chance."""
    found = []
    for place, (value, parts) in enumerate(zip(inputs, sent, strict=True)):
        if isinstance(value, Law) and any(p.white for p in parts):
            parts = white.through(parts, g.law, value, white.slope_of(fn, g.law, value, place))
        found.append(parts)
    return found


def _sent(fn: Function, g: Cotangent, inputs: tuple[Value, ...]) -> list[list[Part]]:
    laws = laid_out(inputs) if len(inputs) == 2 else [as_law(v) for v in inputs]
    if len(laws) == 1:
        return [unary(fn, g, laws[0])]
    if len(laws) == 2:
        x, y = laws
        return [
            [] if isinstance(inputs[0], Known) else binary(fn, g, x, y, 0 in g.meets),
            [] if isinstance(inputs[1], Known) else binary(flipped(fn), g, y, x, 1 in g.meets),
        ]
    try:
        return ternary(fn, g, laws, inputs)
    except NotImplementedError:
        if not getattr(fn, "weighted", False):
            raise
    return _in_turn(g, laws, inputs)


def _in_turn(g: Cotangent, laws: list[Law], inputs: tuple[Value, ...]) -> list[list[Part]]:
    """The gradients of f w + g, the product and the sum one after the other."""
    f, w, other = laws
    made = combined(np.multiply, f, w, g.law.shape, pair="product")
    through = Cotangent(made, tuple(binary(_added, g, made, other)))
    found = [binary(_multiplied, through, f, w), binary(_multiplied, through, w, f), binary(_added, g, other, made)]
    return [[] if isinstance(v, Known) else parts for v, parts in zip(inputs, found, strict=True)]


def _added(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.add(a, b)


def _multiplied(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.multiply(a, b)
