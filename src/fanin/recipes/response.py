"""The activation that follows a weight, found in the graph whatever it is made of, and what it asks of the weight."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from fanin.graph import Kind, Node
from fanin.recipes.structure import Structure
from fanin.theory import grid

SCALES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 1.2, 1.4, 1.7, 2.0)
"""Pre-activation rms that ``auto`` chooses from, in order of preference: all within a factor of two of one."""

STEEP, GENTLE = 3.0, 4 / 3
"""Growth of the mean square gradient a layer beyond which one is not the function's own unit, and where that begins."""
PERIODS = 2 * math.pi
"""Argument of a periodic function behind the data, where no gradient is passed on: several periods, as in SIREN."""


@dataclass(frozen=True, eq=False)
class Response:
    """A pointwise function of a pre-activation.

    Attributes:
        name: of a known activation it is equal to, or the names of its operations.
        fn: NumPy callable.
    """

    name: str
    fn: Callable[[np.ndarray], np.ndarray]

    def second(self, s: float) -> float:
        """E[f(s z)^2]."""
        return float(grid.expectation(self.fn(s * grid.Z_UNIT) ** 2))

    def slope(self, s: float) -> float:
        """E[f'(s z)^2]."""
        x, h = s * grid.Z_UNIT, 1e-5 * s  # no node lies within h of a kink at zero
        return float(grid.expectation(((self.fn(x + h) - self.fn(x - h)) / (2 * h)) ** 2))

    def growth(self, s: float) -> float:
        """Factor of the mean square gradient a layer at equal widths, while the forward rms is held at ``s``."""
        second = self.second(s)
        return s**2 * self.slope(s) / second if second > 0 else 0.0

    @cached_property
    def unit(self) -> float:
        """The pre-activation rms that is the function's own unit: 1 for usual ones, 1/30 for sin(30 x).

        Where at rms 1 the gradient's mean square grows more than threefold a layer, the function bends on a smaller
        scale: the largest one at which it grows by less than a third, as sin(x) does at 1.
        """
        if self.growth(1.0) <= STEEP:
            return 1.0
        smaller = (2.0 ** (-k / 16) for k in range(1, 16 * 24))
        return next((s for s in smaller if 0 < self.growth(s) <= GENTLE), 1.0)

    @property
    def oscillates(self) -> bool:
        """Whether its slope changes sign again and again over two standard deviations of a pre-activation of rms 1."""
        slope = np.diff(self.fn(np.linspace(-2.0, 2.0, 4001)))
        slope = slope[np.abs(slope) > 1e-6 * np.abs(slope).max()]  # where it saturates, rounding has a sign, too
        return int(np.count_nonzero(np.diff(np.sign(slope)))) >= 8

    def stiffness(self, s: float) -> float:
        """d log E[f(s z)^2] / d log s^2: by how much a layer's deviation from the planned mean square is passed on."""
        up, down = self.second(1.01 * s), self.second(s / 1.01)
        return math.log(up / down) / (4 * math.log(1.01)) if up > 0 and down > 0 else 1.0


def response(structure: Structure, node: Node) -> Response | None:
    """The elementwise function that a weighted node's output goes through first; None if there is none."""
    graph, region, last = structure.graph, {node.id}, node.id
    order = [node]
    for other in graph.nodes[structure.index[node.id] + 1 : structure.index[node.id] + 200]:
        into = structure.signals_into(other)
        if not into or not set(into) <= region or len(into) > 2 or other.shape != _shape(structure, other, region):
            continue
        if other.kind in (Kind.POINTWISE, Kind.SUM, Kind.PRODUCT, Kind.MOVE, Kind.DROP) and _plain(
            structure, other, into
        ):
            region.add(other.id)
            order.append(other)
    for other in order:
        if any(user.id not in region for user in graph.users[other.id]) or not graph.users[other.id]:
            last = other.id
    if not any(n.kind is Kind.POINTWISE for n in order):
        return None
    needed = [n for n in order if n.id == last or structure.depends(last, n.id)]
    nonlinear = [n for n in needed if n.kind is Kind.POINTWISE and structure.factor(n) is None]
    if not nonlinear:
        return None
    fn = _composed(structure, needed, last)
    try:
        values = np.asarray(fn(grid.Z_UNIT), float)
    except Exception:
        return None
    if values.shape != grid.Z_UNIT.shape or not np.isfinite(values).all():
        return None
    return Response(_named(values) or "+".join(dict.fromkeys(n.op for n in nonlinear[:3])), fn)


def _shape(structure: Structure, node: Node, region: set[str]) -> tuple[int, ...]:
    """Views may change the shape, elementwise operations may not."""
    if node.kind is Kind.MOVE:
        return node.shape if node.attrs.get("how") in ("reshape", "permute", "same") else ()
    return structure.graph.by_id[next(i for i in node.inputs if i in region)].shape


def _plain(structure: Structure, node: Node, into: list[str]) -> bool:
    """Whether nothing but region tensors and parameters used as biases enter."""
    others = [i for i in node.inputs if i not in into]
    return all(i in structure.origin for i in others) and (node.kind is not Kind.PRODUCT or not others)


def _composed(structure: Structure, order: list[Node], last: str) -> Callable[[np.ndarray], np.ndarray]:
    def fn(x: np.ndarray) -> np.ndarray:
        values = {order[0].id: np.asarray(x, float)}
        for node in order[1:]:
            inputs = [values[i] for i in node.inputs if i in values]
            if node.kind is Kind.POINTWISE and len(inputs) == len(node.inputs):
                values[node.id] = np.asarray(node.attrs["fn"](*inputs), float)
            elif node.kind is Kind.SUM:
                alpha = node.attrs.get("alpha", 1.0)
                values[node.id] = inputs[0] + alpha * inputs[1] if len(inputs) == 2 else inputs[0]
            elif node.kind is Kind.PRODUCT:
                values[node.id] = inputs[0] * inputs[1] if len(inputs) == 2 else inputs[0] ** 2
            else:
                values[node.id] = inputs[0]
        return values[last]

    return fn


@lru_cache(maxsize=1)
def _table() -> dict[str, np.ndarray]:
    from fanin.activations import ROWS, activation

    rows = {}
    for name in ROWS:
        try:
            rows[name] = np.asarray(activation(name)(grid.Z_UNIT), float)
        except Exception:
            continue
    return rows


def _named(values: np.ndarray) -> str | None:
    return next((n for n, row in _table().items() if np.allclose(row, values, rtol=1e-5, atol=1e-6)), None)


def drift(found: Response, s: float, depth: int) -> float:
    """log of the factor by which the gradient's rms and a deviation of the signal's change over ``depth`` layers."""
    return depth * (abs(math.log(max(found.growth(s), 1e-12))) + max(math.log(max(found.stiffness(s), 1e-12)), 0)) / 2


def preferred_scale(found: Response | None, depth: int) -> float:
    """The pre-activation rms at which ``depth`` such layers in a row change gradient and deviations least.

    One where that is less than a factor of two over the depth, else the nearest in ``SCALES`` that does, else the best
    there is. For tanh, 1 is in the chaotic phase (1.09 a layer) and .5 all but critical.
    In units of the function's own: sin(30 x) gets an argument of about 1.
    """
    if found is None or depth <= 2:
        return 1.0 if found is None else found.unit
    cost = {s: drift(found, s * found.unit, depth) for s in SCALES}
    good = [s for s in SCALES if cost[s] <= math.log(2)]
    best = good[0] if good else min(SCALES, key=lambda s: (round(cost[s], 2), abs(math.log(s))))
    return best * found.unit
