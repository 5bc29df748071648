"""Layers that share their weights, or hold copies of them: what they make of alike inputs is alike.

``E[(w x)(w x')] = n Var(w) E[x x']``, so that the Gaussian behind a layer correlates with those that the same weights
made earlier. It is told as a sum of these and a rest of its own, by regression on all of them: a stream that holds what
such a layer made of it before adds up (``nn.TransformerEncoder`` copies one layer; ALBERT runs one again and again).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fanin.graph import Graph, Kind, Node
from fanin.theory.combine import with_rest
from fanin.theory.latent import Latent, axis_groups
from fanin.theory.law import Law
from fanin.theory.records import replace
from fanin.theory.state import Known, Value

MANY = 16
"""Uses that are looked back on."""
SLIGHT = 1e-3
"""Correlations below are dropped."""


@dataclass
class Twins:
    """What was made by weights that are used more than once, in the order of the forward pass."""

    graph: Graph
    copies: Mapping[str, str]
    made: dict[tuple, list[tuple[Node, Law]]] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: Graph, drawn: Mapping[str, object]) -> Twins | None:
        """None where all weights are used once, and none is a copy.

        Args:
            drawn: parameters that a plan draws anew, which are no copies any more.
        """
        read = [i for node in graph.nodes for i in node.inputs if graph.by_id[i].kind is Kind.PARAMETER]
        known = graph.parameters.values()
        copies = {p.name: p.copy_of for p in known if p.copy_of and not {p.name, p.copy_of} & set(drawn)}
        return None if len(read) == len(set(read)) and not copies else cls(graph, copies)

    def told(self, node: Node, value: Value, values: Mapping[str, Value]) -> Value:
        """The value, whose latent knows what it has in common with what the same weights made before."""
        if not isinstance(value, Law):
            return value
        if node.kind is Kind.DROP:
            return _dropped(value, values[node.inputs[0]])
        key = self._key(node)
        if key is None:
            return value
        earlier = self.made.setdefault(key, [])
        found = [self._alike(node, value, other, law, values) for other, law in earlier[-MANY:]]
        if any(abs(c) > SLIGHT for c in found):
            value = _as_sum(value, [law.latent for _, law in earlier[-MANY:]], np.array(found))
        earlier.append((node, value))
        return value

    def _key(self, node: Node) -> tuple | None:
        """What two layers have in common whose weights are the same."""
        if node.kind is Kind.ATTENTION:
            return node.kind, node.shape
        if node.kind not in (Kind.DENSE, Kind.CONV) or node.attrs.get("weight") is None:
            return None
        name = self._name(node, "weight")
        return None if name is None else (node.kind, node.shape, name)

    def _name(self, node: Node, role: str) -> tuple | None:
        """The parameter that a layer reads, by the name of that it is a copy of, and how it was cut."""
        if node.attrs.get(role) is None:
            return None
        found, cut = self.graph.by_id[node.inputs[node.attrs[role]]], []
        while found.kind is Kind.MOVE and len(found.inputs) == 1:
            cut += [] if found.attrs["how"] in ("permute", "same") else [str(sorted(found.attrs.items()))]
            found = self.graph.by_id[found.inputs[0]]
        if found.kind is not Kind.PARAMETER:
            return None
        name = found.attrs["parameter"]
        return (self.copies.get(name, name), *cut)

    def _alike(self, node: Node, law: Law, other: Node, before: Law, values: Mapping[str, Value]) -> float:
        """Correlation of what two layers of the same weights made at one place."""
        if node.kind is Kind.ATTENTION:
            mine, theirs = ([values[i] for i in n.inputs[:3]] for n in (node, other))
            return _of_attention(law, before, mine, theirs)
        rho = correlation(*(values[n.inputs[n.attrs.get("x", 0)]] for n in (node, other)))
        bias = values[node.inputs[node.attrs["bias"]]] if node.attrs.get("bias") is not None else None
        if not isinstance(bias, Law):
            return rho
        own = [max(one.second - bias.second, 0.0) for one in (law, before)]
        same = bias.second if self._name(node, "bias") == self._name(other, "bias") else 0.0
        whole = float(np.sqrt(law.second * before.second))
        return (rho * float(np.sqrt(own[0] * own[1])) + same) / whole if whole > 0 else 0.0


def correlation(x: Value, y: Value) -> float:
    """Correlation (not centred) of two tensors at one place."""
    if isinstance(x, Known) and isinstance(y, Known):
        return 1.0 if x.key == y.key else 0.0
    if not isinstance(x, Law) or not isinstance(y, Law) or x.shape != y.shape or not x.second * y.second:
        return 0.0
    one, other = x.latent, y.latent
    if (one.feature_view, one.place_view) == (other.feature_view, other.place_view):  # cut alike
        one, other = (replace(latent, feature_view=(), place_view=()) for latent in (one, other))
    products = (x.level_weight @ x.coefficients) * (y.level_weight @ y.coefficients)
    powers = one.in_common(other) ** np.arange(len(products))
    return float(np.clip(products @ powers / np.sqrt(x.second * y.second), -1, 1))


def _of_attention(law: Law, before: Law, mine: list[Value], theirs: list[Value]) -> float:
    """Of sums of ``a_j v_j`` and of ``a'_j v'_j``: what tokens have in common whole, the rest by ``sum_j a_j a'_j``.

    As of two queries of one row, logits of correlation c overlap by ``(A n)^c / n``, A the smaller of both.
    """
    of_q, of_k, of_v = (correlation(a, b) for a, b in zip(mine, theirs, strict=True))
    v, w = mine[2], theirs[2]
    if not of_v or not isinstance(v, Law) or not isinstance(w, Law):
        return 0.0
    n = v.shape[-2]
    common = [max(one.pair(axis_groups(one.axes[-2])), 0.0) if n > 1 else 0.0 for one in (v, w)]
    pairs = zip((law, before), (v, w), common, strict=True)
    few = min((y.second - p) / max(one.second - p, 1e-300) for y, one, p in pairs)
    overlap = max(min(few, 1.0) * n, 1.0) ** max(of_q * of_k, 0.0) / n
    together = float(np.sqrt(common[0] * common[1]))
    whole = overlap * (float(np.sqrt(v.second * w.second)) - together) + together
    return float(np.clip(of_v * whole / np.sqrt(law.second * before.second), -1, 1))


def _as_sum(law: Law, earlier: list[Latent], found: np.ndarray) -> Law:
    """A law on a latent that is the regression on earlier ones, and a rest."""
    among = np.array([[1.0 if a is b else a.in_common(b) for a in earlier] for b in earlier])
    shares = np.linalg.lstsq(among, found, rcond=1e-6)[0]
    handed: dict[tuple, float] = {}
    for latent, share in zip(earlier, shares, strict=True):
        for key, c in latent.made_of.items():
            handed[key] = handed.get(key, 0.0) + float(share) * c
    return _made_of(law, handed)


def _dropped(law: Law, x: Value) -> Law:
    """Behind dropout: ``E[m x x] = E[x^2]``, of a mask of mean one."""
    if not isinstance(x, Law) or law.latent.id == x.latent.id:
        return law
    slopes = float(law.level_weight @ law.slopes) * float(x.level_weight @ x.slopes)
    rho = min((x.second - x.mean**2) / slopes, 1.0) if slopes > 0 else 0.0
    return _made_of(law, {key: rho * c for key, c in x.latent.made_of.items()}) if rho > SLIGHT else law


def _made_of(law: Law, handed: dict[tuple, float]) -> Law:
    size = float(np.sqrt(sum(c**2 for c in handed.values())))
    kept = {key: c / max(size, 1.0) for key, c in handed.items() if abs(c) > SLIGHT}
    return replace(law, latent=replace(law.latent, terms=with_rest(replace(law.latent, terms={}), kept)))
