"""Fluctuations on the way back: of every base of a cotangent, and of its mean square on the forward latent.

A part is a base u times a function d(z) of the tensor's latent. Over n features the mean of u^2 d^2 strays by the
forward fluctuations of the mean of d^2, and by those of u^2 - 1 = sqrt(2) h_2(u) beside every h_k(z), of variance
2 E[rho^2 r^k] / n over pairs of places.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from fanin.graph import Kind, Node
from fanin.theory import grid, places
from fanin.theory.adjoint import sequence
from fanin.theory.adjoint.cotangent import Cotangent, Part, translated
from fanin.theory.failures import FAILURES, reason
from fanin.theory.law import Groups, Law, subsets
from fanin.theory.moments import moments_of
from fanin.theory.records import replace
from fanin.theory.state import Value
from fanin.theory.width import attention, pairs, statistic
from fanin.theory.width.rule import Setting
from fanin.theory.width.state import COLUMNS, DEGREES, NOTHING, STILL, Spread, logged, of_square, of_squares, variance
from fanin.theory.width.weights import matrix

LATE = 16
"""Answers that are kept: a tensor and its views ask in turn."""
SUMS = (Kind.DENSE, Kind.CONV, Kind.EXPERTS, Kind.EMBED)


@dataclass(eq=False)
class Base:
    """Fluctuations of a base.

    Attributes:
        drift: of the log of its mean square, from behind.
        wander: variance of its correlations between places.
        extra: variance that the law of the weights adds.
        rigid: share of its own fluctuation that is left, 0 where it is in the drift already.
        rows: (DEGREES + 1, COLUMNS) fluctuations of h_2(u) h_k(z), made when they are first asked for.
        beside: the spread of the latent it is a function of, where that is not its tensor's own: before a norm, a
            gradient follows the normalized signal.
    """

    drift: np.ndarray
    wander: dict[Groups, float] = field(default_factory=dict)
    extra: float = 0.0
    rigid: float = 1.0
    rows: np.ndarray | None = None
    beside: Spread | None = None


@dataclass(eq=False)
class Behind:
    """The bases seen so far, and the fluctuation of each tensor's log mean squared cotangent.

    Attributes:
        late: of a base what was asked of it last, and the answer.
    """

    setting: Setting
    values: dict[str, Value]
    spreads: dict[str, Spread]
    bases: dict[int, Base] = field(default_factory=dict)
    found: dict[str, np.ndarray] = field(default_factory=dict)
    rough: set[str] = field(default_factory=set)
    late: OrderedDict[int, tuple[Base, tuple, np.ndarray]] = field(default_factory=OrderedDict)

    def watch(self, node: Node, parts: Sequence[Part], g: Cotangent, sent: Sequence[Sequence[Part]] | None) -> None:
        """Called for every node in reverse order, with what was collected, its sum, and what it sends on."""
        spread = self.spreads.get(node.id, STILL)
        with np.errstate(all="ignore"):
            self._watch(node, parts, g, sent, spread)

    def _watch(
        self, node: Node, parts: Sequence[Part], g: Cotangent, sent: Sequence[Sequence[Part]] | None, spread: Spread
    ) -> None:
        self._collect(g, parts, spread)
        total = self._whole(g, spread)
        self.found[node.id] = total
        for i, one in enumerate(sent if sent is not None else ()):
            for part in one:
                if part.base not in self.bases:
                    try:
                        self.bases[part.base] = self._sent(node, i, part, g, total, spread)
                    except (NotImplementedError, *FAILURES) as error:  # a case that the rule was not written for
                        reason(node.op, error)
                        self.bases[part.base] = Base(total, rigid=0.0)
                        self.rough.add(node.inputs[i])

    # --- one tensor ------------------------------------------------------------------------------------------

    def _collect(self, g: Cotangent, parts: Sequence[Part], spread: Spread) -> None:
        """Bases that were made by adding up parts."""
        known = [p for p in parts if p.base in self.bases]
        new = [p for p in g.parts if p.base not in self.bases]
        if not new:
            return
        kept = {p.base for p in g.parts}
        merged = [p for p in known if p.base not in kept] or known
        for part in new:
            self.bases[part.base] = self._merged(g.law, merged, spread) if merged else Base(NOTHING)

    def _merged(self, law: Law, parts: Sequence[Part], spread: Spread) -> Base:
        means = np.array([p.mean_profile(law) for p in parts])
        shares = means / means.sum() if means.sum() > 0 else np.full(len(parts), 1 / len(parts))
        bases = [self.bases[p.base] for p in parts]
        wander = {
            s: float(sum(w**2 * b.wander.get(s, 0.0) for w, b in zip(shares, bases, strict=True)))
            for s in subsets(law.groups)
        }
        if all(b.rigid > 0 and p.values is None for b, p in zip(bases, parts, strict=True)):
            drift = sum((w * b.drift for w, b in zip(shares, bases, strict=True)), NOTHING)
            return Base(drift, wander)
        whole = [self._of_part(law, p, spread) for p in parts]
        drift = sum((w * d for w, d in zip(shares, whole, strict=True)), NOTHING)
        crossed = 1 - float((shares**2).sum())
        rho2 = self._powers(law, parts[0], bases[0], spread)[0]
        drift = drift + self.setting.sources.single(2 * crossed * rho2 / pairs.features(law))
        return Base(drift, wander, rigid=0.0)

    def _whole(self, g: Cotangent, spread: Spread) -> np.ndarray:
        second = g.second
        if second <= 0:
            return NOTHING
        total, shares = NOTHING, []
        for part in g.parts:
            share = part.mean_profile(g.law) / second
            shares.append(share)
            total = total + share * self._of_part(g.law, part, spread)
        crossed = 1 - sum(s**2 for s in shares)
        if crossed > 1e-3:
            rho2 = self._powers(g.law, g.parts[0], self.bases[g.parts[0].base], spread)[0]
            total = total + self.setting.sources.single(2 * crossed * rho2 / pairs.features(g.law))
        return total

    def _of_part(self, law: Law, part: Part, spread: Spread) -> np.ndarray:
        """Fluctuation of the log mean square of one part."""
        base = self.bases[part.base]
        if base.rows is None:
            base.rows = self._rows(law, part, base, spread)
        asked = part.values, spread, law.level_weight
        late = self.late.get(part.base)
        if late is not None and late[0] is base and _same(late[1], asked):
            return late[2]
        found = base.drift
        if part.values is None:
            found = base.drift + logged(base.rows[0])
        elif (form := _form_of_square(law, part.values)) is not None:
            moments = (base.beside or spread).moments
            found = base.drift + logged(form @ moments + base.rows[0] + form @ base.rows[1:])
        self.late[part.base] = base, asked, found
        if len(self.late) > LATE:
            self.late.popitem(last=False)
        return found

    def _rows(self, law: Law, part: Part, base: Base, spread: Spread) -> np.ndarray:
        powers = 2 * self._powers(law, part, base, spread) / pairs.features(law)
        powers[0] = powers[0] * base.rigid + base.extra
        found = np.empty((DEGREES + 1, COLUMNS), np.float32)
        found[0], found[1:] = self.setting.sources.single(powers[0]), self.setting.sources.rows(powers[1:])
        return found

    def _powers(self, law: Law, part: Part, base: Base, spread: Spread) -> np.ndarray:
        """E over pairs of places of rho^2 r^k, k = 0 .. DEGREES."""
        total = np.zeros(DEGREES + 1)
        for differ, share in pairs.shares(law, part.profile(law)):
            rho2 = _agreement(law, part, differ) + base.wander.get(differ, 0.0) if differ else 1.0
            r = pairs.correlation(law, differ)
            total += share * min(rho2, 1.0) * pairs.about(r, spread.wander.get(differ, 0.0))
        return np.maximum(total, 0.0)

    # --- one operation ---------------------------------------------------------------------------------------

    def _sent(self, node: Node, i: int, part: Part, g: Cotangent, total: np.ndarray, spread: Spread) -> Base:
        """The base that a node sends to its i-th input."""
        to = self.values.get(node.inputs[i])
        if not isinstance(to, Law):
            return Base(NOTHING)
        if node.kind in SUMS or self._is_product_with_weight(node, i):
            return self._through_weights(node, i, g, total, spread, to)
        before = [self.bases[p.base] for p in g.parts]
        wander = {
            s: max((b.wander.get(translated(s, to.axes, g.law.axes), 0.0) for b in before), default=0.0)
            for s in subsets(to.groups)
        }
        if node.kind is Kind.NORM and i == 0:
            return self._through_norm(node, to, part, g, total, spread, wander)
        if node.kind is Kind.ATTENTION:
            laws = [self.values[j] for j in node.inputs[:3]]
            drift = self._behind(g) + self._others(node, i)
            return Base(drift, wander, extra=attention.extra(laws, i, part, self.values[node.id]))
        drift = total + self._others(node, i)
        return Base(drift, wander, rigid=0.0 if pairs.features(to) == pairs.features(g.law) else 1.0)

    def _behind(self, g: Cotangent) -> np.ndarray:
        """What parts bring from behind, without the draw of the tensor's own features: other places weigh it anew."""
        means = [part.mean_profile(g.law) for part in g.parts]
        whole = sum(means)
        bases = [self.bases[part.base] for part in g.parts]
        return sum((m / whole * b.drift for m, b in zip(means, bases, strict=True)), NOTHING) if whole > 0 else NOTHING

    def _others(self, node: Node, i: int) -> np.ndarray:
        """What the other factors of a product bring."""
        if node.kind not in (Kind.PRODUCT, Kind.MIX, Kind.ATTENTION):
            return NOTHING
        total = NOTHING
        powers = [float(j != i) for j in range(len(node.inputs))]
        if node.kind is Kind.ATTENTION:
            powers = attention.factors(node, [self.values[j] for j in node.inputs[:3]], i)
        for power, name in zip(powers, node.inputs, strict=False):
            law = self.values.get(name)
            if power and isinstance(law, Law):
                total = total + power * of_square(law, self.spreads.get(name, STILL))
        return total

    def _through_norm(
        self, node: Node, to: Law, part: Part, g: Cotangent, total: np.ndarray, spread: Spread, wander
    ) -> Base:
        """What comes from behind, over a variance; what still follows the signal keeps its draw and its latent."""
        divided = self._divided(node, to, self.spreads.get(node.inputs[0], STILL), self._fourth(g, spread))
        if part.values is None or len(g.parts) != 1:
            return Base(total + divided, wander, rigid=0.0)
        return replace(self.bases[g.parts[0].base], drift=self._behind(g) + divided, wander=wander, beside=spread)

    def _divided(self, node: Node, x: Law, spread: Spread, fourth: float) -> np.ndarray:
        """Minus the fluctuation of the log variance that a norm divides by, and its dispersion over channels."""
        a = node.attrs
        if a.get("running_mean") is not None and not a.get("batch_stats", True):
            return NOTHING
        if statistic.over_places(a, x):  # a channel's own variance is in its dispersion
            inherited = spread.drift if spread.apart is None else spread.apart
            own = statistic.dispersion(a, x) * fourth / pairs.features(x)
            return logged(self.setting.sources.single(own)) - inherited - 2 * spread.scale
        about = x.with_values(x.values - x.mean) if a.get("centred", True) else x
        drift = -of_square(about, spread)
        drift[-1] -= variance(drift)  # the prediction has E[1/s^2] in it, of which this is what places share
        return drift

    def _is_product_with_weight(self, node: Node, i: int) -> bool:
        if node.kind is not Kind.MIX or i != 0 or len(node.inputs) != 2:
            return False
        other = self.values.get(node.inputs[1])
        return isinstance(other, Law) and not other.groups and len(other.shape) == 2

    def _through_weights(self, node: Node, i: int, g: Cotangent, total: np.ndarray, spread: Spread, to: Law) -> Base:
        """A fresh base over the features of the input: the cotangent's own mean square is its drift."""
        position = node.attrs["weight"] if node.kind in SUMS else 1
        weight = self.values.get(node.inputs[position])
        if i == position or not isinstance(weight, Law):
            return Base(total, rigid=0.0)
        n_in, n_out = pairs.features(to), pairs.features(g.law)
        size = matrix(self.setting.graph, self.setting.laws, node, position, n_in, n_out)
        taps = float(np.prod(weight.shape[2:])) if node.kind is Kind.CONV else 1.0
        wander = self._wandered(g, spread, to, taps)
        rigid = 1.0
        if size.orthogonal:
            rigid = 0.0 if n_in >= n_out else 1 - n_in / n_out
        extra = size.excess * self._fourth(g, spread) / (n_out * taps) / n_in
        return Base(total, wander, extra=extra, rigid=rigid)

    def _main(self, g: Cotangent) -> Part:
        return max(g.parts, key=lambda p: p.mean_profile(g.law))

    def _fourth(self, g: Cotangent, spread: Spread) -> float:
        """Mean over pairs of places of E[g^2 g'^2] / (E g^2)^2."""
        part = self._main(g)
        base = self.bases[part.base]
        powers = self._powers(g.law, part, base, spread)
        r = pairs.powers(g.law, spread.wander)
        if part.values is None:
            return 1 + 2 * powers[0]
        form = _form_of_square(g.law, part.values)
        return 1 + 2 * powers[0] + (float(form**2 @ (r + 2 * powers[1:])) if form is not None else 0.0)

    def _wandered(self, g: Cotangent, spread: Spread, to: Law, taps: float) -> dict[Groups, float]:
        part = self._main(g)
        base, n = self.bases[part.base], pairs.features(g.law)
        values = np.ones(grid.POINTS)
        if part.values is not None:
            middle = part.values[int(np.argmax(g.law.level_weight))]
            values = middle / np.sqrt(max(float(grid.expectation(middle**2)), 1e-300))
        function = pairs.Map(values)
        beside = part.ratio.get(frozenset((sequence.POSITION,)), 0.0)
        if beside:  # places that hear alike wander together: a kernel's sum does not average that out
            alike = beside * function.mean(pairs.correlation(g.law, frozenset((sequence.POSITION,))))
            taps = taps / (1 + (taps - 1) * min(alike**2, 1.0))
        found = {}
        for s in subsets(to.groups):
            t = translated(s, to.axes, g.law.axes)
            r = pairs.correlation(g.law, t)
            slope = function.mean(r)
            fresh = function.noise(r, part.ratio.get(t, 0.0)) / n
            turned = (part.ratio.get(t, 0.0) * function.slope(r)) ** 2 * spread.wander.get(t, 0.0)
            found[s] = (slope**2 * base.wander.get(t, 0.0) + fresh + turned) / taps
        return found


def _same(asked: tuple, again: tuple) -> bool:
    """Whether the same is asked: of one function, one latent, and levels with the same shares."""
    if asked[0] is None and again[0] is None:
        return True
    return asked[0] is again[0] and asked[1] is again[1] and np.array_equal(asked[2], again[2])


def _form_of_square(law: Law, values: np.ndarray) -> np.ndarray | None:
    """Hermite coefficients of the square of a part's function over its mean, (DEGREES,); None of nothing."""
    mean = float(law.level_weight @ moments_of(values).seconds)
    return law.level_weight @ of_squares(values) / mean if mean > 0 else None


def _agreement(law: Law, part: Part, differ: Groups) -> float:
    """Mean of the squared correlation of a base over pairs of places, by what each pair adds to the mean square."""
    mean = part.ratio.get(differ, 0.0) ** 2
    size = places.length(law)
    if part.matrix is None or size is None or differ != {sequence.POSITION}:
        return mean
    runs = places.runs(size)
    if len(part.matrix) != len(runs.index):
        return mean
    share = runs.width * sequence.by_position(part.profile(law), law.axes, size)
    weight, whole = _pairs_of(share.tobytes())
    squares = part.matrix**2
    squares *= weight
    return float(squares.sum() / whole) if whole > 0 else mean


@lru_cache(maxsize=8)  # a tensor and its views ask in turn
def _pairs_of(share: bytes) -> tuple[np.ndarray, float]:
    """Weights of pairs of different places, and their sum."""
    one = np.frombuffer(share)
    weight = np.outer(one, one)
    np.fill_diagonal(weight, 0.0)
    return weight, weight.sum()
