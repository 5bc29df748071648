"""Cotangents beyond the range of floating-point squares: parts with a power of four apart, as laws have one of two."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from fanin.graph import Node
from fanin.theory import scale
from fanin.theory.adjoint.cotangent import ALIGNED, Cotangent, Part
from fanin.theory.records import replace
from fanin.theory.state import Value

Rule = Callable[[Node, Cotangent, tuple[Value, ...]], list[list[Part]]]


def aligned(parts: Sequence[Part]) -> tuple[list[Part], int]:
    """Parts in units of the largest one's scale, without exponents, and that exponent."""
    power = max((p.exponent for p in parts), default=0)
    if not any(p.exponent for p in parts):
        return list(parts), 0
    return [_everywhere(p, lambda q: _times(q, q.exponent - power)) for p in parts], power


def _everywhere(part: Part, change: Callable[[Part], Part]) -> Part:
    """The part changed, and itself on the base that it was made of."""
    return replace(change(part), same=tuple(change(one) for one in part.same)) if part.same else change(part)


def _times(part: Part, power: int) -> Part:
    """The part times 2^power, its exponent dropped."""
    if power == 0:
        return replace(part, exponent=0)
    return replace(part, second=np.ldexp(part.second, 2 * power), exponent=0, crossed=None)


def scaled_back(rule: Rule, node: Node, g: Cotangent, inputs: tuple[Value, ...]) -> list[list[Part]]:
    """What the rule sends to each input: that of the node in rescaled inputs, times 2^(f - r_i)."""
    scaled = scale.rescaled(node, inputs)
    if scaled is None and not scale.exponent(g.law):
        return rule(node, g, inputs)
    if scaled is None:
        scaled = scale.Scaled(node, inputs, 0, (0,) * len(inputs))
    law = scale.times(g.law, g.law.exponent - scaled.power)
    bases = {p.base for p in g.parts}
    sent = rule(scaled.node, Cotangent(law, g.parts, g.meets), scaled.inputs)
    shifts = [scaled.power - shift for shift in scaled.shifts]
    return [
        [_everywhere(p, lambda q, by=shift: _moved(q, by, bases)) for p in one]
        for one, shift in zip(sent, shifts, strict=True)
    ]


def _moved(part: Part, shift: int, bases: set[int]) -> Part:
    """A factor 2^shift: in the function where the base is shared, as equal bases have equal sizes; else there."""
    if part.values is not None and (part.base in bases or part.base == ALIGNED) and abs(shift) <= 4 * scale.WINDOW:
        return replace(part, values=np.ldexp(part.values, shift))
    return replace(part, exponent=part.exponent + shift, crossed=None)


def settled(part: Part, power: int) -> Part:
    """The part times 4^power in its mean square; its exponent is zero if and only if it is inside the window."""
    return _everywhere(part, lambda q: _settled(q, power))


def _settled(part: Part, power: int) -> Part:
    power += part.exponent
    size = float(part.second.max()) if part.second.size else 0.0
    if power == 0 and (size == 0 or 2.0 ** -(2 * scale.WINDOW) < size < 2.0 ** (2 * scale.WINDOW)):
        return part
    if size == 0 or not np.isfinite(size):
        return replace(part, exponent=0)
    own = math.frexp(size)[1] // 2
    if abs(own + power) <= scale.WINDOW:
        return replace(part, second=np.ldexp(part.second, 2 * power), exponent=0, crossed=None)
    return replace(part, second=np.ldexp(part.second, -2 * own), exponent=own + power, crossed=None)
