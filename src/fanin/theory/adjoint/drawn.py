"""Backward through a region that is followed on drawn channels: the chain rule, channel by channel.

What arrives from behind is independent of the channels and is drawn as its moments say; what leaves at the tensors that
came in is read off as mean squares and mean products. A weight of a channel adds up all steps and samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fanin.graph import Graph, Kind, Node
from fanin.theory import places
from fanin.theory.adjoint import sequence
from fanin.theory.adjoint.cotangent import Cotangent, Part, fresh
from fanin.theory.adjoint.recurrent import cotangent_kernel
from fanin.theory.contraction import axis_groups
from fanin.theory.drawn import Channels
from fanin.theory.drawn.channels import BOTH, correlated, steps_of
from fanin.theory.law import Law, subsets
from fanin.theory.recurrent.process import all_moments
from fanin.theory.state import SAMPLE, Value

STEP = 1e-5


@dataclass
class Back:
    """Gradients of channels, node by node in reverse.

    Attributes:
        drawn: the channels of every node in a region.
        found: gradients of two samples by node, (2, UNITS): sums over steps where a weight is read at many.
    """

    graph: Graph
    values: Mapping[str, Value]
    drawn: Mapping[str, Channels]
    found: dict[str, np.ndarray] = field(default_factory=dict)
    _mine: set[int] = field(default_factory=set)
    _told: set[str] = field(default_factory=set)
    _rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(1))

    def collected(self, node: Node, parts: list[Part]) -> list[Part]:
        """The parts at a node, those of channels in place of what each operation has sent by itself."""
        law, others = self.values[node.id], [p for p in parts if p.base not in self._mine]
        if not isinstance(law, Law):
            return parts
        if self._followed(node) is not None:
            if others and node.id not in self._told:
                self._add(node.id, self._arriving(law, others))
            others = []
        if node.id in self.found:
            return [self._part(node.id, law), *others]
        whole = self._of_steps(node, law)
        return parts if whole is None else [whole]

    def _followed(self, node: Node) -> Channels | None:
        channels = self.drawn.get(node.id)
        return channels if channels is not None and channels.alive and node.id in channels.followed else None

    def _arriving(self, law: Law, parts: Sequence[Part]) -> np.ndarray:
        g = Cotangent(law, tuple(parts))
        across = g.pair(law.groups) if law.groups else 0.0
        return correlated(np.full((1, 1), g.second), np.full((1, 1), across), self._rng)[0]

    def laid(self, node: Node, g: Cotangent) -> None:
        """The cotangent of a tensor that results are laid into, drawn for all steps at once."""
        for channels in {id(c): c for c in self.drawn.values()}.values():
            if not channels.alive or not channels.read(node):
                continue
            axis, ids = channels.laid[node.id]
            kernel = cotangent_kernel(g, axis, len(ids))
            across = kernel.across if SAMPLE in g.law.groups else np.zeros_like(kernel.within)
            for i, array in zip(ids, correlated(kernel.within, across, self._rng), strict=True):
                if i is not None:
                    self._add(i, array)
                    self._told.add(i)

    def sent(self, node: Node) -> list[list[Part]] | None:
        """What a node of a region sends to its inputs; None where it is left to the rules."""
        channels = self._followed(node)
        if channels is None or node.id not in self.found:
            return None
        g, inputs = self.found.pop(node.id), [channels.value(i, self.values) for i in node.inputs]
        result: list[list[Part]] = [[] for _ in inputs]
        for k, i in enumerate(node.inputs):
            law = self.values[i]
            if isinstance(law, Law):
                self._add(i, g * _slope(channels, node, inputs, k))
                result[k] = [self._part(i, law)]
        if node.id == next(iter(channels.followed)):
            channels.forget()
        return result

    def _add(self, i: str, array: np.ndarray) -> None:
        self.found[i] = self.found[i] + array if i in self.found else array

    def _part(self, i: str, law: Law) -> Part:
        array = self.found[i]
        own, across = float(np.mean(array**2)), float(np.mean(array[0] * array[1]))
        if not law.groups:  # a weight adds up samples
            count = self._samples
            return self._mined(
                fresh(np.full((1,) * len(law.shape), max(count * (own + (count - 1) * across), 0.0)), {})
            )
        ratio = dict.fromkeys(subsets(law.groups), _ratio(across, own))
        return self._mined(fresh(np.full((1,) * len(law.shape), own), ratio))

    def _mined(self, part: Part) -> Part:
        self._mine.add(part.base)
        return part

    @property
    def _samples(self) -> int:
        return next(iter(self.drawn.values())).samples

    def _of_steps(self, node: Node, law: Law) -> Part | None:
        """The gradient of a sequence all of whose readers are steps of a region."""
        users, steps = self.graph.users[node.id], places.length(law)
        if steps is None or not users or not any(u.id in self.found for u in users):
            return None
        rows = np.zeros((steps, *next(self.found[u.id] for u in users if u.id in self.found).shape))
        for user in users:
            at = steps_of(user, self.graph, self.values)
            if at is None:
                return None
            if user.id in self.found:
                rows[at[1]] += self.found[user.id]
        within, across = all_moments(rows)
        own, apart = np.diag(within), ~np.eye(steps, dtype=bool)
        mean = max(float(own.mean()), 1e-300)
        means = {
            places.POSITION: float(within[apart].mean()),
            SAMPLE: float(np.diag(across).mean()),
            "both": float(across[apart].mean()),
        }
        named = lambda s: means["both" if s >= BOTH else next(iter(s & BOTH))]  # noqa: E731
        ratio = {s: _ratio(named(s), mean) for s in subsets(law.groups) if s & BOTH}
        shape = [steps if axis_groups(axis) == {places.POSITION} else 1 for axis in law.axes]
        at = places.runs(steps).index
        return fresh(own.reshape(shape), ratio, matrix=sequence.normalized(within[np.ix_(at, at)]))


def _ratio(pair: float, own: float) -> float:
    return float(np.clip(pair / own, -1, 1)) if own > 0 else 0.0


def _slope(channels: Channels, node: Node, inputs: list[np.ndarray], k: int) -> np.ndarray | float:
    """The derivative of an elementwise operation by one of its inputs."""
    if node.kind is Kind.MOVE:
        return 1.0
    if node.kind is Kind.SUM:
        twice = len(set(node.inputs)) == 1
        assert not twice or k < 2
        return float(node.attrs.get("alpha", 1.0)) if k else 1.0
    if node.kind is Kind.PRODUCT:
        return inputs[1 - k]
    x = inputs[k]
    step = STEP * np.maximum(np.abs(x), 1e-2)
    ends = [channels.made(node, [x + s * step if j == k else y for j, y in enumerate(inputs)]) for s in (1.0, -1.0)]
    return (ends[0] - ends[1]) / (2 * step)


__all__ = ["Back"]
