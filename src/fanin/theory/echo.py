"""What a tensor still holds of an embedding, for a head that is tied to the table and so reads it out again.

A table ``E`` of V rows of n numbers is looked up at the bottom and scores at the top, ``logit_w = sum_f h_f E_wf``.
Written ``h = c e + rest`` with ``e`` the row of the token at hand, the score of that token is not a sum of independent
terms: ``E[(sum_f h_f e_f)^2]`` exceeds the ``n E[h^2] E[e^2]`` of fresh weights by ``n (n + 1) c^2 E[e^2]^2``, at one
of V entries. ``c`` is followed along the graph: sums add it, a function of one latent multiplies it by
``E[f(z) z] / E[x(z) z]`` (Stein's lemma), fresh weights end it.

Source: Press & Wolf 2017, arXiv:1608.05859, for tied heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fanin.graph import Graph, Kind, Node
from fanin.theory.contraction import shifted
from fanin.theory.law import FEATURE, Law
from fanin.theory.records import cached_property, replace
from fanin.theory.state import Value

Coefficients = dict[str, np.ndarray]
"""By look-up (id of its node) the coefficient c at every place: the axes of the tensor, each full or of size one."""


@dataclass
class Echo:
    """Coefficients of every tensor that holds something of a table some head is tied to."""

    graph: Graph
    held: dict[str, Coefficients] = field(default_factory=dict)

    @cached_property
    def tables(self) -> frozenset[str]:
        """Parameters that are both looked up and multiplied by."""
        return frozenset(self._parameters(Kind.EMBED) & self._parameters(Kind.DENSE, Kind.MIX))

    def _parameters(self, *kinds: Kind) -> set[str]:
        found = {self._parameter(node) for node in self.graph.nodes if node.kind in kinds}
        return {name for name in found if name is not None}

    def _parameter(self, reader: Node) -> str | None:
        """The parameter that a look-up or a product reads, transposed or not."""
        node = self.graph.by_id[reader.inputs[reader.attrs.get("weight", 1)]]
        while node.kind is Kind.MOVE and node.attrs["how"] in ("permute", "same"):
            node = self.graph.by_id[node.inputs[0]]
        return node.attrs["parameter"] if node.kind is Kind.PARAMETER else None

    def heard(self, node: Node, values: Mapping[str, Value], value: Value) -> Value:
        """The value of a node, with what a tied head hears in it; notes what the tensor holds."""
        if not self.tables or not isinstance(value, Law):
            return value
        if node.kind in (Kind.DENSE, Kind.MIX):
            return self._read(node, values, value)
        found = self._followed(node, values, value)
        if found:
            self.held[node.id] = found
        return value

    def _read(self, node: Node, values: Mapping[str, Value], law: Law) -> Law:
        """What a product with a table has more than one with fresh weights."""
        table = self._parameter(node)
        held = self.held.get(node.inputs[node.attrs.get("x", 0)], {})
        own = [c for look, c in held.items() if self._parameter(self.graph.by_id[look]) == table]
        weight = values[node.inputs[node.attrs.get("weight", 1)]]
        if not own or not isinstance(weight, Law) or law.second == 0:
            return law
        rows, n = weight.shape if node.attrs.get("out_first") else weight.shape[::-1]
        extra = sum(float(np.mean(c**2)) for c in own) * n * (n + 1) * weight.second**2 / rows
        mean = sum(float(np.mean(c)) for c in own) * n * weight.second / rows
        return shifted(raised(law, 1 + extra / law.second), law.mean + mean)

    def _followed(self, node: Node, values: Mapping[str, Value], value: Law) -> Coefficients:
        if node.kind is Kind.EMBED:
            known = self._parameter(node) in self.tables
            return {node.id: np.ones((1,) * len(value.shape))} if known else {}
        sources = [i for i in node.inputs if i in self.held]
        if not sources:
            return {}
        found: Coefficients = {}
        for i in dict.fromkeys(sources):
            x = values[i]
            if isinstance(x, Law):
                for look, c in self.held[i].items():
                    passed = _passed(node, i, c, x, values, value)
                    if passed is not None:
                        found[look] = found.get(look, 0.0) + passed
        return found


def _passed(node: Node, source: str, c: np.ndarray, x: Law, values, y: Law) -> np.ndarray | None:
    """c of the result of one operation, through one of its inputs; None where fresh weights end it."""
    if node.kind is Kind.DROP:
        return c
    if node.kind is Kind.MOVE:
        first = source == node.inputs[0]  # others say only what shape or type to take
        return _flat(c, len(y.shape)) if first and y.latent.id == x.latent.id else None
    if node.kind is Kind.SUM:
        here = [k for k, i in enumerate(node.inputs) if i == source]
        return _lifted(c, y) * sum((1.0, node.attrs.get("alpha", 1.0))[k] for k in here)
    if y.latent.id == x.latent.id and node.kind in (Kind.POINTWISE, Kind.PRODUCT, Kind.NORM):
        before, after = _lifted(x.profile(x.slopes), y), y.profile(y.slopes)
        return _lifted(c, y) * after / np.where(before == 0, 1.0, before)
    if node.kind is Kind.PRODUCT:
        others = [values[i] for i in node.inputs if i != source]
        return _lifted(c, y) * _lifted(others[0].profile(others[0].means), y) if _laws(others) else None
    return None


def _laws(values: list[Value]) -> bool:
    return len(values) == 1 and isinstance(values[0], Law)


def _lifted(array: np.ndarray, law: Law) -> np.ndarray:
    return array.reshape((1,) * (len(law.shape) - array.ndim) + array.shape)


def _flat(c: np.ndarray, rank: int) -> np.ndarray:
    """One number for all places: what a tied head squares."""
    return np.full((1,) * rank, np.copysign(np.sqrt(np.mean(c**2)), np.mean(c)))


def raised(law: Law, factor: float) -> Law:
    """The mean square multiplied, by what places and features do not share."""
    root = np.sqrt(factor)
    corr = {s: r if s == {FEATURE} else r / factor for s, r in law.latent.corr.items()}
    matrix = law.latent.matrix
    if matrix is not None:
        matrix = matrix / factor + (1 - 1 / factor) * np.eye(len(matrix))
    return law.with_values(law.values * root, latent=replace(law.latent, corr=corr, matrix=matrix))


__all__ = ["Echo", "raised"]
