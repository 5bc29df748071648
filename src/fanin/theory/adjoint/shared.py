"""Weights that are used several times: what their uses' gradients have in common.

The gradient of a weight W is a sum over its uses, ``G = sum_a sum_p g_a(p) x_a(p)``. Along a residual stream two uses
meet nearly the same input and nearly the same cotangent, so beside the squares there are the products

    2 E[G_a G_b] = 2 rho_g rho_x sqrt(E G_a^2 E G_b^2),

with ``rho_x`` the correlation of both inputs at one place and ``rho_g`` that of both cotangents. They follow from where
random numbers come from. A sum has the correlations of its summands, by their shares; norms over features and dropout
hand on what they read; and what the *same* weights make of two tensors correlates as these do: ``E[(w x)(w x')] =
n Var(w) E[x x']``. Functions of correlated latents follow Mehler's formula. All else is independent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fanin.graph import Graph, Kind, Node
from fanin.theory import grid, shifts
from fanin.theory.adjoint.cotangent import ALIGNED, Cotangent, Part, identity
from fanin.theory.adjoint.origins import ELEMENTWISE, JOINED, Origin, of_one_node, of_pieces, one_by_one
from fanin.theory.contraction import axis_groups
from fanin.theory.latent import part_of
from fanin.theory.law import FEATURE, Law
from fanin.theory.moments import moments_of
from fanin.theory.state import Known, Value
from fanin.theory.twins import MANY, SLIGHT, Twins

WEIGHTED = (Kind.DENSE, Kind.CONV, Kind.EMBED)
PASSING = (Kind.NORM, Kind.DROP, Kind.MOVE, Kind.SUM)
NOBODY: frozenset = frozenset()
ONE = np.ones((1, grid.POINTS))
TWINS = (*WEIGHTED, Kind.ATTENTION)
VALUES = 2  # of attention, whose weights are nearly the same where its inputs are


@dataclass
class Uses:
    """Where random numbers come from, told node by node of the pass in reverse."""

    graph: Graph
    values: Mapping[str, Value]
    copies: Mapping[str, str] = field(default_factory=dict)
    origins: dict[int, Origin] = field(default_factory=dict)
    sums: dict[int, list[tuple[int, float]]] = field(default_factory=dict)
    met: dict[int, frozenset] = field(default_factory=dict)
    grown: dict[int, float] = field(default_factory=dict)
    latents: dict[int, Node] = field(default_factory=dict)
    _grew: float = 1.0  # at the tensor that is being summed
    _bases: dict[tuple[int, int], float] = field(default_factory=dict)
    _twinned: dict[tuple[int, int], float] = field(default_factory=dict)
    _ids: dict[tuple[int, int], float] = field(default_factory=dict)
    _factors: dict[tuple[str, str], float] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: Graph, values: Mapping[str, Value], twins: Twins | None) -> Uses | None:
        """None where no weight is used more than once, and none is a copy."""
        if twins is None:
            return None
        found = cls(graph, values, twins.copies)
        for node in graph.nodes:
            law = values.get(node.id)
            if isinstance(law, Law):
                for id_ in (*(key[0] for key in law.latent.terms), law.latent.id):  # what a bias was added to first
                    found.latents.setdefault(id_, node)
        return found

    def gathered(self, parts: Sequence[Part], g: Cotangent) -> None:
        """Parts were added: a new base is the sum of those that are no longer there."""
        grew, self._grew = self._grew, 1.0
        left = {p.base for p in g.parts}
        added = [p for p in parts if p.base not in left]
        made = [p for p in g.parts if p.base not in {q.base for q in parts} and p.base not in self.origins]
        if not made or not added:
            return
        alone = [grew * p.mean_profile(g.law) / self.grown.get(p.base, 1.0) for p in added]
        whole = max(sum(alone) + self._crossed(added, alone, g.law), 1e-300)
        for part in made:
            self.sums[part.base] = [(p.base, float(np.sqrt(a / whole))) for p, a in zip(added, alone, strict=True)]
            keys = frozenset.intersection(*(self.met.get(p.base, NOBODY) for p in added))
            if keys and len(made) == 1 and len(g.parts) > 1:  # those that are left have met it
                self.met[part.base], self.grown[part.base] = keys, part.mean_profile(g.law) / whole

    def sent(self, node: Node, g: Cotangent, sent: Sequence[Sequence[Part]] | None) -> None:
        """A node sends parts to its inputs: those on new bases were made of its cotangent."""
        mine = {p.base for p in g.parts}
        singly = node.kind in ELEMENTWISE and node.attrs.get("how") not in JOINED
        for place, parts in enumerate(sent or ()):
            origins = one_by_one(parts, g) if singly else [(None, False)] * len(parts)
            for part, (of, rest) in zip(parts, origins, strict=True):
                if part.base in mine or part.base in self.origins or part.base == ALIGNED:
                    continue
                self.origins[part.base] = Origin(node, place, g, of, rest)
                if of is not None and of.base in self.met:  # so did what they were made of
                    self.met[part.base] = frozenset((*key, node.id, place) for key in self.met[of.base])
                    self.grown[part.base] = self.grown[of.base]

    def together(self, parts: Sequence[Part], law: Law) -> float:
        """What parts have in common at the tensor that they meet at, over their mean squares: twins send alike.

        Parts that have met go on side by side, each larger by it, and add no more where they are next looked at.
        """
        if not 1 < len(parts) <= MANY:
            return 0.0
        sizes = [p.mean_profile(law) for p in parts]
        alone = [size / self.grown.get(p.base, 1.0) for size, p in zip(sizes, parts, strict=True)]
        whole = self._crossed(parts, alone, law, new=True)
        more = max(whole / max(sum(sizes), 1e-300), -1.0)
        if more > -1.0 and abs(more) > 0.0:
            meeting = frozenset(((identity(),),))
            for base in {p.base for p in parts} - {ALIGNED}:
                self.met[base] = self.met.get(base, NOBODY) | meeting
                self.grown[base] = self.grown.get(base, 1.0) * (1 + more)
            self._grew = 1 + more
        return more

    def _crossed(self, parts: Sequence[Part], alone: Sequence[float], law: Law, new: bool = False) -> float:
        """Twice the sum over pairs of what they have in common; of ``new`` ones those that have not met."""
        whole = 0.0
        for i, p in enumerate(parts[:MANY]):
            for j, q in enumerate(parts[:i]):
                if p.base == q.base or {one.base for one in (p, *p.same)} & {one.base for one in (q, *q.same)}:
                    continue  # these meet without it
                if new and self.met.get(p.base, NOBODY) & self.met.get(q.base, NOBODY):
                    continue
                r = self._through_twins(p.base, q.base)
                whole += 2 * float(np.sqrt(alone[i] * alone[j])) * r * _forms(p, law, q, law, 1.0) if r else 0.0
        return whole

    def common(self, parts: Sequence[Part]) -> float:
        """Twice the sum over pairs of uses of E[G_a G_b], for the parts that a weight was sent."""
        whole = 0.0
        uses = [(p, self.origins[p.base]) for p in parts if p.base in self.origins]
        for i, (one, a) in enumerate(uses):
            for other, b in uses[:i]:
                if a.node.kind is not b.node.kind or a.place != b.place:
                    continue
                beside = self._beside(a, b)
                size = np.sqrt(one.mean_second * other.mean_second) * _mean_of(one) * _mean_of(other)
                whole += 2 * size * beside * self._cotangents(a.g, b.g) if beside else 0.0
        return float(whole)

    def _beside(self, a: Origin, b: Origin) -> float:
        """Correlation of what stands beside both cotangents in the sums: inputs, normalized signals, or ones."""
        names = a.node.attrs
        if a.node.kind is Kind.EMBED:
            return _same_rows(*(self.values[o.node.inputs[o.node.attrs["ids"]]] for o in (a, b)))
        if a.node.kind is Kind.PRODUCT:
            return self._beside_shift(a, b)
        if a.place == names.get("bias"):
            return 1.0
        if a.place != names.get("weight"):
            return 0.0
        if a.node.kind is Kind.NORM:
            return self._laws(self.values[a.node.id], self.values[b.node.id])
        if a.node.kind in WEIGHTED:
            return self._laws(*(self.values[o.node.inputs[o.node.attrs.get("x", 0)]] for o in (a, b)))
        return 0.0

    def _beside_shift(self, a: Origin, b: Origin) -> float:
        """Of a tensor and its own shift, both times one weight: how alike neighbours are."""
        x, y = (self.values[o.node.inputs[1 - o.place]] for o in (a, b))
        return shifts.alike(x, y) if isinstance(x, Law) and isinstance(y, Law) else 0.0

    def _cotangents(self, a: Cotangent, b: Cotangent) -> float:
        """Correlation of two cotangents at one place."""
        if a.law.shape != b.law.shape or a.second <= 0 or b.second <= 0:
            return 0.0
        rho = self._latents(a.law, b.law) if any(p.values is not None for p in (*a.parts, *b.parts)) else 0.0
        whole = 0.0
        met: dict[str, tuple[Node, set[Part], set[Part]]] = {}
        for p in a.parts:
            for q in b.parts:
                node = of_one_node(self.origins.get(p.base), self.origins.get(q.base))
                if node is not None:
                    both = met.setdefault(node.id, (node, set(), set()))
                    both[1].add(p)
                    both[2].add(q)
                    continue
                shares = self._share(p, a) * self._share(q, b)
                r = self._of_bases(p.base, q.base)
                whole += float(np.sqrt(shares)) * r * _forms(p, a.law, q, b.law, rho) if r else 0.0
        for node, *both in met.values():
            mine, theirs = (sum(self._share(p, g) for p in parts) for parts, g in zip(both, (a, b), strict=True))
            whole += float(np.sqrt(mine * theirs)) * self._of_operands(node)
        return float(np.clip(whole, -1, 1))

    def _of_operands(self, node: Node) -> float:
        """What both operands are sent: of a sum the same, or less it; of a product each a multiple of the other."""
        x, y = (self.values[i] for i in node.inputs)
        return self._laws(x, y) if node.kind is Kind.PRODUCT else float(np.sign(node.attrs.get("alpha", 1.0)))

    def _share(self, part: Part, g: Cotangent) -> float:
        """Mean square of a part by itself over that of the cotangent, in which it has grown by what it met."""
        return part.mean_profile(g.law) / self.grown.get(part.base, 1.0) / max(g.second, 1e-300)

    def _of_bases(self, a: int, b: int) -> float:
        """Correlation of two bases: the one that was made later, further back in the graph, is taken apart first."""
        if a == b:
            return 1.0
        a, b = max(a, b), min(a, b)
        if (a, b) not in self._bases:
            self._bases[a, b] = 0.0  # while it is being found
            self._bases[a, b] = self._apart(a, b, self._of_bases)
        return self._bases[a, b]

    def _through_twins(self, a: int, b: int) -> float:
        """The same of what twins sent alone: what rules have told apart otherwise is independent, or meets its base."""
        if a == b:
            return 0.0
        a, b = max(a, b), min(a, b)
        if (a, b) not in self._twinned:
            self._twinned[a, b] = 0.0
            self._twinned[a, b] = self._apart(a, b, self._through_twins)
        return self._twinned[a, b]

    def _apart(self, a: int, b: int, of_bases: Callable[[int, int], float]) -> float:
        mine, theirs = self.origins.get(a), self.origins.get(b)
        pieces = of_pieces(mine, theirs)
        if pieces is not None:
            return pieces
        cut = [self._is_cut(origin) for origin in (mine, theirs)]
        if all(cut) and mine is not None and theirs is not None and mine.of is not None and theirs.of is not None:
            same = mine.node.attrs == theirs.node.attrs and mine.node.shape == theirs.node.shape
            return of_bases(mine.of.base, theirs.of.base) if same else 0.0
        for one, other in ((b, a), (a, b)) if cut[0] else ((a, b), (b, a)):
            made = self.sums.get(one)
            if made is None:
                made = self._passed(one)
            if made is not None:
                found = sum(w * of_bases(base, other) for base, w in made) + self._beside_factors(mine, theirs)
                return float(np.clip(found, -1, 1))
        if mine is None or theirs is None or not self._twins(mine, theirs):
            return 0.0
        return self._cotangents(mine.g, theirs.g)

    def _passed(self, base: int) -> list[tuple[int, float]] | None:
        """The bases that a norm, dropout or a sum has made this one of, with their shares; None where weights did."""
        origin = self.origins.get(base)
        if origin is None or (origin.node.kind is Kind.PRODUCT and origin.of is None):
            return None
        if origin.node.kind not in (*PASSING, Kind.PRODUCT) or not self._keeps_features(origin.node):
            return None
        kept = float(np.sqrt(1 - origin.node.attrs.get("p", 0.0))) if origin.node.kind is Kind.DROP else 1.0
        g = origin.g
        if origin.of is None:
            return [(p.base, kept * float(np.sqrt(self._share(p, g) * p.straight(g.law)))) for p in g.parts]
        if origin.node.kind is Kind.PRODUCT:
            mean, second = self._factor(origin)
            kept *= mean / np.sqrt(second) if second > 0 else 0.0
        return [] if origin.rest else [(origin.of.base, kept * float(np.sqrt(origin.of.straight(g.law))))]

    def _factor(self, origin: Origin) -> tuple[float, float]:
        """Mean and mean square of the other factor of a product, where both have the product's shape."""
        y = self.values[origin.node.inputs[1 - origin.place]]
        if y.shape != origin.g.law.shape or self.values[origin.node.inputs[origin.place]].shape != y.shape:
            return 0.0, 0.0
        if isinstance(y, Known):
            return float(np.mean(y.array)), float(np.mean(np.square(y.array, dtype=float)))
        return (y.mean, y.second) if isinstance(y, Law) else (0.0, 0.0)

    def _beside_factors(self, a: Origin | None, b: Origin | None) -> float:
        """Of two products what they have by that their other factors go together beyond their means."""
        if a is None or b is None or a.of is None or b.of is None or a.rest or b.rest or a.node.id == b.node.id:
            return 0.0
        if a.node.kind is not Kind.PRODUCT or b.node.kind is not Kind.PRODUCT or a.place != b.place:
            return 0.0
        (mean, second), (other, square) = self._factor(a), self._factor(b)
        if second <= 0 or square <= 0:
            return 0.0
        beyond = self._between_factors(a, b) - mean * other / np.sqrt(second * square)
        return beyond * self._of_bases(a.of.base, b.of.base) if abs(beyond) > SLIGHT else 0.0

    def _between_factors(self, a: Origin, b: Origin) -> float:
        one, other = (o.node.inputs[1 - o.place] for o in (a, b))
        if (one, other) not in self._factors:
            self._factors[one, other] = self._laws(self.values[one], self.values[other])
        return self._factors[one, other]

    def _is_cut(self, origin: Origin | None) -> bool:
        """Whether a base is what some of the features sent back."""
        if origin is None or origin.node.kind is not Kind.MOVE or origin.node.attrs["how"] != "slice":
            return False
        x = self.values.get(origin.node.inputs[0])
        return isinstance(x, Law) and axis_groups(x.axes[origin.node.attrs["axis"] % len(x.axes)]) == {FEATURE}

    def _keeps_features(self, node: Node) -> bool:
        x = self.values.get(node.inputs[0])
        if node.kind is not Kind.NORM or not isinstance(x, Law):
            return node.kind is not Kind.NORM
        return {g for i in node.attrs["axes"] for g in axis_groups(x.axes[i])} <= {FEATURE}

    def _twins(self, a: Origin, b: Origin) -> bool:
        """Whether the same weights made both."""
        if a.node.kind is not b.node.kind or a.place != b.place or a.node.kind not in TWINS:
            return False
        if a.node.kind is Kind.ATTENTION:
            return a.place == VALUES
        return self._weight(a.node) == self._weight(b.node)

    def _weight(self, node: Node) -> str:
        found = self.graph.by_id[node.inputs[node.attrs.get("weight", 1)]]
        while found.kind is Kind.MOVE and found.attrs["how"] in ("permute", "same"):
            found = self.graph.by_id[found.inputs[0]]
        return self.copies.get(found.attrs.get("parameter", ""), found.attrs.get("parameter", found.id))

    def _laws(self, x: Value, y: Value) -> float:
        """Correlation (not centred) of two tensors at one place."""
        if isinstance(x, Known) and isinstance(y, Known):
            return 1.0 if x.key == y.key else 0.0
        if not isinstance(x, Law) or not isinstance(y, Law) or x.shape != y.shape or not x.second * y.second:
            return 0.0
        mean = _mean_coefficients(x) * _mean_coefficients(y)
        return float(np.clip(_series(mean, self._latents(x, y)) / np.sqrt(x.second * y.second), -1, 1))

    def _latents(self, x: Law, y: Law) -> float:
        mine, theirs = (_by_id(law.latent.made_of) for law in (x, y))
        whole = sum(c * theirs[i] for i, c in mine.items() if i in theirs)
        passed, looked_up = ([i for i in mine if self._is(i, kinds)] for kinds in (PASSING, (Kind.EMBED,)))
        for j, d in ((j, d) for j, d in theirs.items() if not isinstance(j, tuple)):
            some = mine if self._is(j, PASSING) else (*passed, *looked_up) if self._is(j, (Kind.EMBED,)) else passed
            whole += sum(mine[i] * d * self._of_ids(i, j) for i in some if i != j and not isinstance(i, tuple))
        return float(np.clip(whole, -1, 1))

    def _is(self, latent: int | tuple, kinds: tuple[Kind, ...]) -> bool:
        node = None if isinstance(latent, tuple) else self.latents.get(latent)  # parts are only with themselves
        return node is not None and node.kind in kinds

    def _of_ids(self, a: int, b: int) -> float:
        """Correlation of two latents by what made them."""
        if a == b:
            return 1.0
        a, b = max(a, b), min(a, b)
        if (a, b) not in self._ids:
            self._ids[a, b] = 0.0
            self._ids[a, b] = self._made(a, b)
        return self._ids[a, b]

    def _made(self, a: int, b: int) -> float:
        for one, other in ((a, b), (b, a)):
            node = self.latents.get(one)
            if node is not None and node.kind in PASSING and node.inputs and self._keeps_features(node):
                x, y = self.values.get(node.inputs[0]), self.latents.get(other)
                if node.kind is not Kind.DROP and isinstance(x, Law) and y is not None and x.latent.id != one:
                    return sum(c * self._of_ids(k[0], other) for k, c in x.latent.made_of.items())
        mine, theirs = self.latents.get(a), self.latents.get(b)
        if mine is None or theirs is None or mine.kind is not theirs.kind or mine.kind is not Kind.EMBED:
            return 0.0  # of layers, what they have in common is among their summands (``twins``)
        if self._weight(mine) != self._weight(theirs):
            return 0.0
        return self._laws(*(self.values[node.inputs[node.attrs.get("ids", 0)]] for node in (mine, theirs)))


def _by_id(terms: Mapping[tuple, float]) -> dict:
    """Summands by identity, wherever they were read; parts of latents, which are independent of all others, by name."""
    found: dict = {}
    for key, c in terms.items():
        name = key[0] if part_of(key) is None else key
        found[name] = found.get(name, 0.0) + c
    return found


def _mean_of(part: Part) -> float:
    """Mean of a part's function: the sign with which a difference hands a gradient on."""
    return 1.0 if part.values is None else float(np.mean(grid.expectation(part.values)))


def _mean_coefficients(law: Law) -> np.ndarray:
    return law.level_weight @ law.coefficients


def _series(products: np.ndarray, r: float) -> float:
    """Mehler's sum of products of Hermite coefficients."""
    return float(products @ r ** np.arange(len(products)))


def _forms(p: Part, x: Law, q: Part, y: Law, r: float) -> float:
    """Correlation of two functions of latents that correlate by r."""
    if p.values is None and q.values is None:
        return 1.0
    forms = [moments_of(ONE if f is None else f) for f in (p.values, q.values)]
    weights = [law.level_weight if len(f.values) > 1 else np.ones(1) for f, law in zip(forms, (x, y), strict=True)]
    a, b = (w @ f.hermite for w, f in zip(weights, forms, strict=True))
    sizes = [float(w @ f.seconds) for w, f in zip(weights, forms, strict=True)]
    whole = float(np.sqrt(max(sizes[0] * sizes[1], 1e-300)))
    tail = max(whole - float(np.sqrt((a @ a) * (b @ b))), 0.0) if r >= 1 else 0.0
    return (_series(a * b, r) + tail) / whole


def _same_rows(a: Value, b: Value) -> float:
    """Of two look-ups in one table, how often they take one row at a place."""
    if not isinstance(a, Known) or not isinstance(b, Known) or a.shape != b.shape:
        return 0.0
    return float(np.mean(np.asarray(a.array) == np.asarray(b.array)))


__all__ = ["Uses"]
