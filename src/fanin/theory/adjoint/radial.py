"""What a cotangent has along its signal: ``R = sum_c x_c g_c`` over the features of one place.

Features whose gradients have independent bases give ``E R^2 = n E[x^2 g^2]``. But ``R`` is handed on whole:
a layer without a bias has ``x . W^T g = (W x) . g``, and both factors of ``h = a b`` have ``a (b g) = b (a g) = h g``.
A gated unit's two branches so return the same number to the tokens that they read, ``E R^2`` doubles where the gate is
linear, and with it the gradient of the deviation that a normalization spelled out divides by.

``R`` is kept in units of what independence gives, as coefficients on independent random numbers of variance one. A
coefficient is one number, or one for every run of positions: behind causal attention the first tokens are most of the
stream that they are added to, and the last hardly any.
Behind a function, ``x f'(x) g`` has a correlation with ``f(x) g``; the rest is a number of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fanin.graph import Kind, Node
from fanin.theory import grid, places
from fanin.theory.adjoint.amounts import (
    Amount,
    Amounts,
    as_profile,
    by_place,
    correlation,
    fitting,
    level_weights,
    one_number,
    summed,
    table,
)
from fanin.theory.adjoint.cotangent import Cotangent, Part, fresh, identity
from fanin.theory.adjoint.joint import levels_onto
from fanin.theory.adjoint.slopes import asked_once, slope
from fanin.theory.combine import divides
from fanin.theory.law import FEATURE, Law
from fanin.theory.records import replace
from fanin.theory.rules.pointwise import laid_out
from fanin.theory.state import Value, as_law

Radial = Mapping[Any, Amount]
"""By identity, of a number or of one of copies (``copies``)."""


def of(g: Cotangent) -> Amounts:
    """``R`` of all parts together; a part that does not know of it has independent features."""
    return _together(g, each(g))


def each(g: Cotangent) -> list[Amounts]:
    """``R`` of every part, in units of its own."""
    return [table({identity(): 1.0}) if part.radial is None else fitting(part.radial, g.law) for part in g.parts]


def _together(g: Cotangent, radials: Sequence[Amounts]) -> Amounts:
    if len(radials) == 1:
        return radials[0]
    own = [_own(part, g.law) for part in g.parts]
    total = np.maximum(sum(own), 1e-300)
    if not radials:
        return table({})
    return _remembered(
        summed([radial.times(np.sqrt(square / total)) for radial, square in zip(radials, own, strict=True)])
    )


def power(radial: Radial) -> Amount:
    """``E R^2`` over what independent features give."""
    return table(radial).power()


def mean_power(g: Cotangent) -> float:
    """The same of all places together."""
    found = power(of(g))
    if np.ndim(found) == 0:
        return float(found)
    own = np.broadcast_to(sum(_own(part, g.law) for part in g.parts), np.shape(found))
    weight = own * places.runs(places.length(g.law) or 1).width
    return float(weight @ found / max(weight.sum(), 1e-300))


def by_profile(g: Cotangent) -> Amount:
    """The same place by place, to multiply a profile of the tensor by."""
    return as_profile(power(of(g)), g.law)


def _own(part: Part, law: Law) -> Amount:
    """E[x^2 g^2] of one part."""
    squares = law.seconds if part.values is None else grid.expectation((law.values * part.values) ** 2)
    return by_place(law, part.second * squares[law.level])


def elsewhere(radial: Radial) -> Radial:
    """The same of other places, whose numbers are independent of those here."""
    return {identity(): one_number(np.sqrt(power(radial)))}


def returned(g: Cotangent) -> Radial:
    """``R`` in front of a layer without a bias or of dropout, whose own units are ``n E x^2 E g^2``."""
    units = by_place(g.law, g.profile()) * by_place(g.law, g.law.profile(g.law.seconds))
    root = np.sqrt(sum(_own(part, g.law) for part in g.parts) / np.maximum(units, 1e-300))
    return _times(of(g), root)


def beside_bias(whole: Radial, total: float, bias: float) -> Radial:
    """``R`` in front of a layer of which a bias is a summand: its share of the whole, and a rest."""
    return _shared(whole, float(np.sqrt(max(1 - bias / total, 0.0)))) if 0 < bias < total else whole


def behind(
    node: Node, g: Cotangent, inputs: Sequence[Value], sent: list[list[Part]], fn: Callable[..., np.ndarray]
) -> list[list[Part]]:
    """What an elementwise function sends back, with its ``R`` where that follows from the result's."""
    if node.kind is Kind.PRODUCT and len(inputs) == 2:
        return _factors(g, laid_out(tuple(inputs)), sent, (1.0, 1.0))
    if len(inputs) == 2 and _divides(fn):
        return _factors(g, [as_law(v) for v in inputs], sent, (1.0, -1.0))
    if node.kind is Kind.SUM and len(inputs) == 2:
        return _summands(g, [as_law(v) for v in inputs], sent)
    if len(inputs) == 1 and len(sent[0]) == len(g.parts):
        x = as_law(inputs[0])
        return [[_carrying(p, _through(fn, replace(g, parts=(q,)), x)) for p, q in zip(sent[0], g.parts, strict=True)]]
    return [[_unknown(p) for p in parts] for parts in sent]


def _carrying(part: Part, radial: Radial | None) -> Part:
    return part if part.radial is radial else replace(part, radial=radial)


def _unknown(part: Part) -> Part:
    return _carrying(part, None)


_divides = asked_once(divides)


def _factors(g: Cotangent, laws: list[Law], sent: list[list[Part]], signs: tuple[float, float]) -> list[list[Part]]:
    """Both factors have the result's (a divisor its negative); one that all features share has it as its gradient."""
    radials, result = each(g), []
    for law, parts, sign in zip(laws, sent, signs, strict=True):
        if len(parts) == len(radials) and law.shape == g.law.shape:
            result.append([replace(p, radial=_times(r, sign)) for p, r in zip(parts, radials, strict=True)])
        elif parts and _over_features(law, g.law) and not any(p.awaited for p in parts):
            whole = _times(_together(g, radials), sign)
            result.append([_of_shared(g, law, [_unknown(p) for p in parts], whole)])
        else:
            result.append([_unknown(p) for p in parts])
    return result


def _times(radial: Radial, factor: Amount) -> Amounts:
    return table(radial).times(factor)


def _one_latent(x: Law, y: Law) -> bool:
    """Whether the same random numbers stand in both; two pieces of one tensor are others."""
    if x.deterministic or y.deterministic:
        return False
    return x.latent.id == y.latent.id and x.latent.feature_view == y.latent.feature_view


def _as_gradient(own: Cotangent, whole: Radial) -> Part:
    """The gradient of what all features share: ``R`` itself, of all parts together."""
    whole = fitting(whole, own.law)
    size = power(whole)
    unit = _times(whole, 1 / np.sqrt(np.maximum(size, 1e-300))) if np.any(size > 0) else {}
    size = as_profile(size, own.law)
    if len(own.parts) != 1:
        return replace(fresh(own.profile() * size, own.ratios()), radial=unit)
    part = own.parts[0]
    made = fresh(part.second * size, part.ratio, part.values)
    return replace(made, radial=unit, given=part.given, loads=part.loads, beside=part.beside)


def _of_shared(g: Cotangent, law: Law, parts: list[Part], whole: Radial) -> Part:
    """The gradient of numbers that features share: ``R``, of k experts' numbers the k-th part of it and a rest.

    Rests sum to nothing, and without a norm behind ``R`` has a mean square of P: each has ``1 + (E R^2 - P)/k``.
    """
    copied = {p.copied for p in g.parts}
    from fanin.theory.adjoint.joining import gathered

    own = gathered(law, parts)
    if copied == {0} or len(copied) > 1:
        return _as_gradient(own, whole)
    (k,) = copied
    whole = {name: one_number(value) for name, value in whole.items()}
    size = max(1 + float(power(whole) - together(g.law, k) / g.law.second) / k, 0.0)
    return replace(fresh(own.profile() * size, own.ratios()), radial=_times(whole, size**-0.5) if size > 0 else {})


def _summands(g: Cotangent, laws: list[Law], sent: list[list[Part]]) -> list[list[Part]]:
    """A summand has its share of the sum's, and a rest: a norm leaves none to the sum, but some to its branches."""
    x, y = laws
    result, radials = [], each(g)
    one, rest = _one_latent(x, y), identity()
    mean = y if _less_its_mean(x, y) else x if _less_its_mean(y, x) else None
    for law, parts, sign in zip(laws, sent, (1.0, -1.0), strict=True):
        if mean is law:  # what it has along the signal, the other summand's part lacks
            result.append([replace(p, radial={}) for p in parts])
        elif len(parts) != len(g.parts) or law.shape != g.law.shape:
            result.append([_unknown(p) for p in parts])
        elif one and not (x.deterministic or y.deterministic):
            result.append(_on_one_latent(g, law, parts, radials, (rest, sign)))
        elif y.deterministic or x.deterministic or mean is not None:
            result.append([replace(p, radial=r) for p, r in zip(parts, radials, strict=True)])  # an eps
        else:
            share = _share(*(by_place(v, v.profile(v.seconds)) for v in (g.law, law, y if law is x else x)))
            result.append(_summand(g, parts, radials, share, (rest, sign)))
    return result


def _on_one_latent(
    g: Cotangent, law: Law, parts: list[Part], radials: Sequence[Amounts], rest: tuple[int, float]
) -> list[Part]:
    """A summand on the latent of the other: what ``x g`` has in common with ``s g``, element by element."""
    form = grid.WEIGHT * np.square(1.0 if g.parts[0].values is None else g.parts[0].values)
    alike = len(law.values) == len(g.law.values) and len(parts) == 1
    share = correlation(form, level_weights(g.law), law.values, g.law.values) if alike else None
    if share is None:
        return [_unknown(p) for p in parts]
    return [_carrying(parts[0], _times(radials[0], share) | {rest[0]: rest[1] * np.sqrt(1 - share**2)})]


def _less_its_mean(x: Law, y: Law) -> bool:
    """Whether y is the mean of x over features: what sums to zero has nothing along it, ``sum (x - m) g = sum x g``."""
    of = y.latent.mean_of
    return of is not None and of[:3] == (x.latent.id, x.latent.feature_view, x.latent.place_view)


def _share(total: Amount, own: Amount, other: Amount) -> Amount:
    """Correlation of a summand with the sum, E[x s] / sqrt(E x^2 E s^2), by the law of cosines: both may have means."""
    return np.clip((total + own - other) / (2 * np.sqrt(np.maximum(total * own, 1e-300))), -1, 1)


def _summand(
    g: Cotangent, parts: list[Part], radials: Sequence[Amounts], share: Amount, rest: tuple[int, float]
) -> list[Part]:
    """The parts that a summand gets, with one rest, to which each adds as much as it has of the mean square.

    What one summand has beside its share of the whole, the other lacks.
    """
    own = [_own(part, g.law) for part in g.parts]
    total = np.maximum(sum(own), 1e-300)
    roots = [rest[1] * np.sqrt((1 - share**2) * one / total) for one in own]
    return [
        replace(sent, radial=_times(radial, share) | {rest[0]: root})
        for sent, radial, root in zip(parts, radials, roots, strict=True)
    ]


def piece(g: Cotangent, part: Part, share: float, rest: tuple[int, float]) -> Part:
    """Of one of two tensors side by side along features: its share, and a rest that the other lacks."""
    root = float(np.sqrt(share))
    return replace(part, radial=_times(returned(g), root) | {rest[0]: rest[1] * float(np.sqrt(1 - share))})


FAINT = 1e-3
"""Coefficients below which a number counts as part of the rest: a thousand layers would remember as many."""
MANY = 32
"""Numbers that are remembered whatever their size."""


def _shared(whole: Radial, share: Amount) -> Radial:
    found = _times(whole, share)
    kept = _loud(found)
    lost = found.power() - kept.power()
    return kept | {identity(): np.sqrt(np.maximum(1 - share**2 + lost, 0.0))}


def _loud(found: Amounts) -> Amounts:
    return found.kept(np.abs(found.rows).max(1) > FAINT)


def _remembered(found: Amounts) -> Amounts:
    """A stream that a hundred layers were added to: what is faint together, as one number that nothing else has."""
    kept = _loud(found) if len(found) > MANY else found
    if len(found) - len(kept) < 2:
        return found
    return kept | {identity(): np.sqrt(np.maximum(found.power() - kept.power(), 0.0))}


def averaged(g: Cotangent, x: Law, part: Part, axes: Sequence[int]) -> Part:
    """In front of a mean over features, which takes them together: n (E x)^2 of the E x^2 that they give alone.

    Over some of the axes of features (of experts, that each have features of their own) every sum y keeps a gradient of
    its own: ``sum x g = sum y g``, so ``R`` is handed on whole, ``E y^2`` of the ``n E x^2`` that independence gives.
    """
    features = {i for i, axis in enumerate(x.axes) if {a.group for a in axis if a.size > 1} == {FEATURE}}
    if not set(axes) <= features or x.second <= 0:
        return part
    n = float(np.prod([x.shape[i] for i in axes]))
    if features - set(axes):
        factor = float(np.sqrt(together(x, n) / x.second))
        return replace(part, radial=_times(of(g), factor), copied=round(n))
    factor = float(np.sqrt(n * (x.level_weight @ x.means**2) / x.second))
    return replace(part, radial=_times(of(g), factor), alike=round(n))


def together(x: Law, n: float) -> float:
    """Mean square of a sum over n features, over n: all of them have a mean in common."""
    return x.second + (n - 1) * float(x.level_weight @ x.means**2)


def weighed(g: Cotangent, x: Law, part: Part) -> Part:
    """In front of ``y = x Y`` with a sum over features (experts): ``x . dx = y . dy``, k features have shares of it.

    Without a norm behind both have ``P = d E[y^2] E[dy^2]``; where ``R`` is other than that, so are its k parts.
    """
    if not all({a.group for a in axis if a.size > 1} == {FEATURE} for axis in (x.axes[-1], g.law.axes[-1])):
        return part
    if FEATURE in {a.group for a in x.axes[-2] if a.size > 1} or not part.mean_second * x.second > 0:
        return part
    k, d = x.shape[-1], g.law.shape[-1]
    natural = d * g.law.second * g.second / (k * x.second * part.mean_second)
    whole = {name: float(np.sqrt(natural)) * one_number(value) for name, value in of(g).items()}
    size = max(1 + float(power(whole) - natural) / k, 0.0)
    return replace(part, second=part.second * size, radial=_times(whole, size**-0.5) if size > 0 else {})


def of_length(g: Cotangent, n: float, part: Part) -> Part:
    """In front of a length over n features, which sends each of them its share ``c x_j / s`` of a number c.

    So do a variance and a deviation, of what is left of the signal without its mean.
    """
    return replace(part, radial=_times(of(g), np.sqrt(n)), along=round(n))


def over_copies(part: Part, sent: Part, law: Law, out: Law) -> Part:
    """In front of copies for all features, what these get together: the part behind them has it as its own ``R``."""
    if part.radial is None or not (_over_features(law, out) or _of_length(law, out)):
        return sent
    from fanin.theory.adjoint.joining import gathered

    return _as_gradient(gathered(law, [_unknown(sent)]), part.radial)


def regrouped(radial: Radial, factor: Amount) -> Radial:
    """The same ``R`` beside a mean square that is that many times as large."""
    return _times(radial, 1 / np.sqrt(np.where(np.asarray(factor) > 0, factor, np.inf))[()])


def without_form(part: Part, law: Law, plain: Part) -> Radial | None:
    """The same ``R`` in the units of a part that no longer follows the latent."""
    if part.radial is None:
        return None
    root = np.sqrt(_own(part, law) / np.maximum(_own(plain, law), 1e-300))
    return _times(fitting(part.radial, law), root)


def added(law: Law, a: Part, b: Part, both: Part) -> Radial | None:
    """``R`` of two parts on one base, which are one part now."""
    if a.radial is None or b.radial is None:
        return None
    root = lambda part: np.sqrt(_own(part, law) / np.maximum(_own(both, law), 1e-300))  # noqa: E731
    return summed([fitting(a.radial, law).times(root(a)), fitting(b.radial, law).times(root(b))])


def _of_length(law: Law, out: Law) -> bool:
    """Whether a length over features was copied for as many."""
    copies = [n for n, m in zip(out.shape, law.shape, strict=False) if m == 1 < n]
    return law.latent.length_of is not None and [law.latent.length_of[3]] == copies and law.level.size == out.level.size


def _over_features(law: Law, out: Law) -> bool:
    """Whether an operand was repeated along axes of features of the result, those of a head perhaps, and no others.

    Not so a factor of every input of a kernel (modulated weights): it is repeated along outputs and taps, on either
    side of the inputs, and gets sums over these, where the norm of an output's weights is over inputs and taps.
    """
    if len(law.shape) != len(out.shape):
        return False
    repeated = [n > 1 and m == 1 for n, m in zip(out.shape, law.shape, strict=True)]
    features = [{a.group for a in axis if a.size > 1} == {FEATURE} for axis in out.axes]
    among = [r for r, f in zip(repeated, features, strict=True) if f]
    runs = sum(r and not before for before, r in zip([False, *among], among, strict=False))
    return runs == 1 and sum(among) == sum(repeated)


def _through(fn: Callable[..., np.ndarray], g: Cotangent, x: Law) -> Radial | None:
    """In front of a function: the share that ``x f'(x) g`` has in common with ``f(x) g``, and the rest."""
    with np.errstate(all="ignore"):
        after = g.law.values if len(g.law.values) == len(x.values) else np.asarray(fn(x.values), float)
    squares = [p.mean_second * _form_squared(p, g.law, x) for p in g.parts]
    form2 = grid.WEIGHT * (squares[0] if len(squares) == 1 else sum(squares, np.zeros_like(x.values)))
    share = correlation(form2, level_weights(x), x.values * slope(fn, x.values), after)
    return None if share is None else _shared(of(g), share)


def _form_squared(part: Part, out: Law, x: Law) -> np.ndarray | float:
    """The squared function of a part at every level of what the result was made of, which may have others."""
    if part.values is None:
        return 1.0
    if len(out.values) == len(x.values):
        return part.values**2
    onto = levels_onto(out, x)
    return part.values[onto] ** 2 if onto is not None else out.level_weight @ part.values**2
