"""Layers that share their weights, or hold copies of them: what they make of alike inputs is alike.

``E[(w x)(w x')] = n Var(w) E[x x']``, so that the Gaussian behind a layer correlates with those that the same weights
made earlier. It is told as a sum of these and a rest of its own, by regression on all of them: a stream that holds what
such a layer made of it before adds up (``nn.TransformerEncoder`` copies one layer; ALBERT runs one again and again).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from fanin.graph import Graph, Kind, Node
from fanin.theory import parts
from fanin.theory.contraction import apart, known_pairs
from fanin.theory.latent import Groups, axis_groups, subsets
from fanin.theory.law import Law
from fanin.theory.records import cached_property, replace
from fanin.theory.state import Known, Value

MANY = 16
"""Uses that are looked back on."""
SLIGHT = 1e-3
"""Correlations below are dropped."""
ALIKE = 0.05
"""Share of what tells samples apart from which on two inputs count as two states of the same samples."""
UNWEIGHTED = (Kind.NORM, Kind.POOL, Kind.REDUCE)
"""Operations on one tensor, whose own weights, of norms, change no correlation."""


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
        if node.kind in UNWEIGHTED:
            return _passed(value, values[node.inputs[0]])
        key = self._key(node)
        if key is None or self._uses[key] < 2:
            return value
        earlier = self.made.setdefault(key, [])
        found = [self._alike(node, value, other, law, values) for other, law in earlier[-MANY:]]
        value = parts.regressed(value, [law.latent for _, law in earlier[-MANY:]], found, key)
        earlier.append((node, value))
        return value

    @cached_property
    def _uses(self) -> Counter[tuple | None]:
        return Counter(self._key(node) for node in self.graph.nodes)

    def _key(self, node: Node) -> tuple | None:
        """What two layers have in common whose weights are the same."""
        if node.kind is Kind.ATTENTION:
            return node.kind, node.shape[1:]
        if node.kind not in (Kind.DENSE, Kind.CONV) or node.attrs.get("weight") is None:
            return None
        name = self._name(node, "weight")
        return None if name is None else (node.kind, len(node.shape), name)

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

    def _alike(
        self, node: Node, law: Law, other: Node, before: Law, values: Mapping[str, Value]
    ) -> dict[Groups, float]:
        """Correlation of what two layers of the same weights made, by the parts of the latents."""
        apart = frozenset().union(*(axis_groups(a) for a, b in zip(law.axes, before.axes, strict=True) if a != b))
        if node.kind is Kind.ATTENTION:
            mine, theirs = ([values[i] for i in n.inputs[:3]] for n in (node, other))
            return _by_part_of_attention(law, before, mine, theirs, apart)
        x, y = (values[n.inputs[n.attrs.get("x", 0)]] for n in (node, other))
        bias = values[node.inputs[node.attrs["bias"]]] if node.attrs.get("bias") is not None else None
        own, same = [law.second, before.second], 0.0
        if isinstance(bias, Law):
            own = [max(size - bias.second, 0.0) for size in own]
            same = bias.second if self._name(node, "bias") == self._name(other, "bias") else 0.0
        whole = float(np.sqrt(law.second * before.second))
        if not whole:
            return {}
        size, inner = float(np.sqrt(own[0] * own[1])), 1 if node.kind is Kind.CONV else -1
        found, mine = correlations(x, y, inner), correlations(x, x, inner)

        def met(s: Groups) -> float:
            """Share of the taps that places of a map both have; as for two places of one input."""
            if node.kind is not Kind.CONV or not s or abs(mine(s)) < SLIGHT or not own[0]:
                return 1.0
            kept = (law.pair(s) - (law.second - own[0])) / own[0]
            return max(kept / mine(s), 0.0)

        alike = lambda s: (found(s | apart) * met(s | apart) * size + same) / whole  # noqa: E731
        return parts.by_part(lambda s: _of_latents(alike(s), law, s), law.groups)


def _of_latents(alike: float, law: Law, differ: Groups) -> float:
    """Correlation of latents at which tensors of this law are so much alike: as it is between its own places.

    Where these differ in law (a border) the two are not the same.
    """
    near = differ or frozenset(("sample",)) & law.groups
    own, r = law.pair(near) / law.second if near else 1.0, law.correlation(near)
    if not near or abs(own - r) < SLIGHT:
        return alike
    if not differ and own < alike:
        return r + (alike - own) / (1 - own) * (1 - r)
    return alike * r / own if own else alike


def correlations(x: Value, y: Value, inner: int = -1) -> Callable[[Groups], float]:
    """Correlation (not centred) of two tensors at places that differ in some groups.

    Args:
        inner: the axis over which weights sum.
    """
    if isinstance(x, Known) and isinstance(y, Known):
        if x.key == y.key:
            second, pairs = known_pairs(x.array, x.axes, inner % len(x.shape))
            return lambda s: pairs.get(s, 0.0) / max(float(second.mean()), 1e-300) if s else 1.0
        return _of_known(x, y, inner % len(x.shape)) if len(x.shape) == len(y.shape) else lambda s: 0.0
    if not isinstance(x, Law) or not isinstance(y, Law) or len(x.shape) != len(y.shape) or not x.second * y.second:
        return lambda s: 0.0
    size = float(np.sqrt(x.second * y.second))
    one, other = x.latent, y.latent
    if (one.feature_view, one.place_view) == (other.feature_view, other.place_view):  # cut alike
        x, y = (replace(v, latent=replace(v.latent, feature_view=(), place_view=())) for v in (x, y))
    return lambda s: float(np.clip(parts.product(x, y, s) / size, -1, 1))


def _of_known(x: Known, y: Known, inner: int) -> Callable[[Groups], float]:
    """Of two known arrays the mean products of their rows."""
    arrays = [np.moveaxis(np.asarray(v.array, float), inner, -1) for v in (x, y)]
    axes = [a for i, a in enumerate(x.axes) if i != inner]
    if arrays[0].shape[-1] != arrays[1].shape[-1] or axes_of_groups(x) != axes_of_groups(y):
        return lambda s: 0.0
    size = float(np.sqrt(np.mean(arrays[0] ** 2) * np.mean(arrays[1] ** 2)))
    groups = frozenset().union(*(axis_groups(a) for a in axes))
    uneven = [i for i in range(len(axes)) if arrays[0].shape[i] != arrays[1].shape[i]]
    always, totals = frozenset().union(*(axis_groups(axes[i]) for i in uneven)), {}
    for chosen in (frozenset(), *subsets(groups)):
        over = tuple(i for i, a in enumerate(axes) if axis_groups(a) & (chosen | always))
        one, two = (a.mean(over, keepdims=True) for a in arrays)
        count = math.prod(arrays[0].shape[i] for i in over if i not in uneven)
        totals[chosen] = float(np.mean(one * two)), count
    pairs = apart(totals) | {frozenset(): totals[frozenset()][0]}
    return lambda s: pairs.get(s & groups, 0.0) / size if size else 0.0


def axes_of_groups(x: Known) -> list[Groups]:
    """Which axes lie along what."""
    return [frozenset(a.group for a in axis) for axis in x.axes]


def _by_part_of_attention(
    law: Law, before: Law, mine: list[Value], theirs: list[Value], apart: Groups
) -> dict[Groups, float]:
    """The whole of what is alike at one place belongs to all parts, but what values of other samples have in common.

    Of two inputs of which a place is no more like its own than like that of another sample, pairs of samples say it.
    """
    here, v, w = frozenset(), mine[2], theirs[2]
    of_v = correlations(v, w)
    if "sample" not in law.groups or not isinstance(v, Law) or not of_v(here):
        return {t: c * _of_attention(law, before, mine, theirs) for t, c in _own(law).items()}
    sample = frozenset(("sample",))
    across, own = v.pair(sample) / v.second, of_v(sample)
    alike = (of_v(here | apart) - own) / max(1 - across, 1e-300)
    if alike > ALIKE:
        return {t: c * _of_attention(law, before, mine, theirs) for t, c in _own(law).items()}
    share = own / across if across else 0.0
    return {t: 0.0 if "sample" in t else share * c for t, c in _own(law).items()}


def _own(law: Law) -> dict[Groups, float]:
    return parts.variances(law.latent, law.groups)


def _of_attention(law: Law, before: Law, mine: list[Value], theirs: list[Value]) -> float:
    """Of sums of ``a_j v_j`` and of ``a'_j v'_j``: what tokens have in common whole, the rest by ``sum_j a_j a'_j``.

    As of two queries of one row, logits of correlation c overlap by ``(A n)^c / n``, A the smaller of both.
    """
    of_q, of_k, of_v = (correlations(a, b)(frozenset()) for a, b in zip(mine, theirs, strict=True))
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


def _passed(law: Law, x: Value) -> Law:
    """Behind an operation without weights that makes a latent of its own."""
    if not isinstance(x, Law) or law.latent.id == x.latent.id or not parts.told(x.latent):
        return law
    return parts.through(law, x)


def _dropped(law: Law, x: Value) -> Law:
    """Behind dropout: ``E[m x x] = E[x^2]``, of a mask of mean one."""
    if not isinstance(x, Law) or law.latent.id == x.latent.id:
        return law
    slopes = float(law.level_weight @ law.slopes) * float(x.level_weight @ x.slopes)
    rho = min((x.second - x.mean**2) / slopes, 1.0) if slopes > 0 else 0.0
    if rho <= SLIGHT:
        return law
    handed = {key: rho * c for key, c in x.latent.made_of.items()}
    rest = law.latent.part(law.groups) if parts.told(x.latent) else law.latent.made_of_itself
    terms = handed | {rest: float(np.sqrt(max(1 - sum(c**2 for c in handed.values()), 0.0)))}
    return replace(law, latent=replace(law.latent, terms=terms))
