"""Backward through pools: a mean shares its gradient out, a maximum sends it to the largest."""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np
from scipy.special import ndtri

from fanin.graph import Node
from fanin.theory import grid, lags
from fanin.theory.adjoint import lagged
from fanin.theory.adjoint.cotangent import Cotangent, Part, fresh
from fanin.theory.adjoint.itself import onto_its_bases
from fanin.theory.adjoint.linear import adjoint_taps
from fanin.theory.contraction import axis_groups
from fanin.theory.fields import Maxima
from fanin.theory.lags import PLACES
from fanin.theory.largest import agreement
from fanin.theory.largest import chance as chances
from fanin.theory.law import FEATURE, Groups, Law, subsets
from fanin.theory.records import replace
from fanin.theory.rules.maximum import inside, maxima, windows_of
from fanin.theory.rules.pool import _taps
from fanin.theory.state import Value, as_law


def pool(node: Node, g: Cotangent, inputs: tuple[Value, ...]) -> list[list[Part]]:
    """Mean: a share to every tap. Max: all of it to one tap, the likelier the larger its latent."""
    x = as_law(inputs[0])
    kernel = node.attrs["kernel"]
    first = len(node.shape) - len(kernel)
    profile = g.profile()
    profile = profile.mean(1, keepdims=True) if first == 2 and profile.shape[1] > 1 else profile
    conv_like = replace(node, attrs={"transposed": False, **node.attrs})
    taps = _taps(node, x, first)
    n = float(np.prod(kernel))
    n_in, n_out = float(np.prod(x.shape[first:])), float(np.prod(node.shape[first:]))
    along = frozenset(t for axis in x.axes[first:] for t in axis_groups(axis)) - {FEATURE}
    mean = node.attrs["op"] == "mean"
    near = lagged.behind_means(g, x, windows_of(node), alone=not mean) if first == 2 and along == PLACES else None
    if mean and first == 2:
        divisor = n if node.attrs.get("count_pad", True) else taps
        reads = [adjoint_taps(np.broadcast_to(1 / divisor**k, taps.shape), conv_like, kernel) for k in (1, 2)]
        second = adjoint_taps(profile / divisor**2, conv_like, kernel)
        part = _of_means(g, x, along, second, reads, taps / divisor, _met(g, node, near), near)
        same = node.shape == x.shape
        return [[replace(part, same=onto_its_bases(part, g, x, 1.0, part.mean_second / g.second))] if same else [part]]
    r = 0.0 if mean else inside(node, x, along)
    twice = (0.0, 0.0) if mean else windows_with_one_largest(node, first)
    found = None if mean or first != 2 else maxima(node, x, along)
    if found is not None:
        twice = _of_drawn(found, g, node.shape[2:], twice)
    ratio = shared_out(g, x, along, float(np.mean(taps)), n_in, n_out, mean, twice)
    if mean:
        return [[fresh(profile * n_out / (n * n_in), ratio)]]
    second = adjoint_taps(profile / taps, conv_like, kernel) if first == 2 else profile * n_out / n_in
    second = second * several(g, along, twice[0])
    sent = to_the_largest(x, second, ratio, float(np.mean(taps)), r)
    if near is None:
        return [sent]
    own = float(np.mean(second)) * float(np.mean(taps)) ** 2
    near = near / max(own, 1e-300)
    near.flat[0] = 1.0
    return [[replace(sent[0], lags=near), *sent[1:]]]


def _of_means(
    g: Cotangent, x: Law, along: Groups, second: np.ndarray, reads: list[np.ndarray], whole: np.ndarray,
    met: float, near: np.ndarray | None,
) -> Part:  # fmt: skip
    """What means over windows send back: an input hears all windows that read it, which may overlap.

    With T_1 and T_2 the sums over an input's windows of their weight and of its square, and a the cotangent's square
    and b its pair moment between places, an input gets ``T_2 a + (T_1^2 - T_2) b``; the sum over all inputs is that
    over the windows.

    Args:
        second: the first term.
        reads: T_1 and T_2.
        whole: sum of the weights of every window.
        met: pair moment of two windows that one input is in.
        near: what two inputs get, by lag.
    """
    n_in, n_out = (float(np.prod(law.shape[2:])) for law in (x, g.law))
    crossed, alone = reads[0] ** 2 - reads[1], float(np.mean(reads[1]))
    pair = lambda s: g.pair(s & g.law.groups) if s & g.law.groups else g.second  # noqa: E731
    beside = lambda s: met if s == along else pair(s)  # noqa: E731
    one = {s: alone * pair(s) + float(np.mean(crossed)) * beside(s | along) for s in (frozenset(), *subsets(x.groups))}
    own = max(one[frozenset()], 1e-300)
    found = {}
    for s in subsets(x.groups):
        rest = s - along
        total = n_out * float(np.mean(whole**2)) * pair(rest)
        total = total + n_out * (n_out - 1) * float(np.mean(whole)) ** 2 * (pair(rest | along) if n_out > 1 else 0.0)
        found[s] = (total / n_in - one[rest]) / max(n_in - 1, 1.0) / own if s & along else one[s] / own
    second = np.maximum(second + crossed * (met if n_out > 1 else 0.0), 0.0)
    part = fresh(second, {s: float(np.clip(r, -1, 1)) for s, r in found.items()})
    return part if near is None else replace(part, lags=near / near.flat[0])


def _met(g: Cotangent, node: Node, near: np.ndarray | None) -> float:
    """Mean product of the gradients of two windows that one input is in."""
    pair = g.pair(PLACES & g.law.groups)
    if near is None:
        return pair
    alone, both = 1.0, 1.0
    for n, m, w in zip(node.attrs["input_size"], node.shape[2:], windows_of(node), strict=True):
        alone, both = alone * w[0] / w[1], both * float(lagged.gathered(n, m, *w)[0].sum())
    return (float(near.flat[0]) - alone * g.second) / (both - alone) if both > alone * (1 + 1e-9) else pair


def to_the_largest(
    x: Law, second: np.ndarray, ratio: dict[Groups, float], n: float, r: float, sign: int = 1
) -> list[Part]:
    """The gradient of a window goes to one input, with a chance P(z) that grows with its value (or falls).

    An indicator b of chance P is P + (b - P): two places have in common what the chances have, and each has by itself
    the variance P (1 - P).

    Args:
        r: correlation of the latents of two inputs of a window: of those that are alike any may be the largest.
    """
    ranks = np.stack([ndtri(np.minimum(_rank(sign * row), 1 - 1e-12)) for row in x.values])
    power = r ** np.arange(grid.DEGREE + 1) if r > 0 else np.zeros(1)
    alike = float(x.level_weight @ (grid.hermite_coefficients(ranks)[:, : len(power)] ** 2 @ power))
    chance = grid.at(chances(n, round(min(max(alike, 0.0), 1.0), 4)), ranks)
    chance = np.minimum(np.maximum(chance, 0.0) / (n * grid.expectation(chance)[:, None]), 1.0)
    whole = second * n
    alone = Part(0, np.ones(()), dict.fromkeys(ratio, 1.0), chance)
    share = {s: r / n / max(alone.pair(x, s), 1e-300) for s, r in ratio.items()}
    left = np.sqrt(chance * (1 - chance))
    return [fresh(whole, share, chance), fresh(whole, dict.fromkeys(ratio, 0.0), left)]


def _rank(values: np.ndarray) -> np.ndarray:
    """Probability of a smaller value, at every point of the latent."""
    order = np.argsort(values, kind="stable")
    rank = np.empty_like(values)
    rank[order] = np.cumsum(grid.WEIGHT[order]) - grid.WEIGHT[order] / 2
    return np.maximum(rank, 1e-12)


def windows_with_one_largest(node: Node, first: int) -> tuple[float, float]:
    """Of how many other windows that overlap with it the largest of a window is the largest, too; of another sample.

    Two windows of n that share m elements have one largest with the chance ``m / (2 n - m)``, however alike these are;
    where the places of the two are independent, with ``m / n^2``.
    """
    a, n = node.attrs, float(np.prod(node.attrs["kernel"]))
    stride, dilation = (a.get(key) or (1,) * len(a["kernel"]) for key in ("stride", "dilation"))
    if "stride" not in a or any(d > 1 for d in dilation):
        return 0.0, 0.0
    shared, count = np.ones(1), np.ones(1)
    for k, step, out in zip(a["kernel"], stride, node.shape[first:], strict=True):
        apart = np.arange(1 - out, out)
        shared = np.multiply.outer(shared, np.maximum(k - np.abs(apart) * step, 0)).ravel()
        count = np.multiply.outer(count, (out - np.abs(apart)) / out).ravel()
    other = count * (shared < n)
    return float(np.sum(other * shared / (2 * n - shared))), float(np.sum(other * shared) / n**2)


def _of_drawn(found: Maxima, g: Cotangent, out: tuple[int, ...], twice: tuple[float, float]) -> tuple[float, float]:
    """The same of windows of a map that were drawn, in units of what all pairs of windows have in common."""
    ratio, near, total = g.ratios().get(PLACES & g.law.groups, 0.0), lagged.ratios(g), 0.0
    for lag in product(*(range(n) for n in found.same.shape)):
        if not any(lag) or any(k >= n for k, n in zip(lag, out, strict=True)):
            continue
        many = prod((2 if k else 1) * (n - k) / n for k, n in zip(lag, out, strict=True))
        alike = ratio
        if near is not None:
            alike = float(
                lags.along(near, [lags.between(n, np.array([k])) for k, n in zip(lag, out, strict=True)]).flat[0]
            )
        total += many * float(found.same[lag]) * (alike / ratio if ratio else 0.0)
    return total, twice[1]


def several(g: Cotangent, along: Groups, twice: float) -> float:
    """What an input that is the largest of several windows gets more: their gradients have something in common."""
    return max(1 + twice * g.ratios().get(along & g.law.groups, 0.0), 0.0)


def shared_out(
    g: Cotangent,
    x: Law,
    along: Groups,
    n: float,
    inputs: float,
    outputs: float,
    mean: bool,
    twice: tuple[float, float] = (0.0, 0.0),
) -> dict[Groups, float]:
    """Correlation between inputs of a pool: the gradient's sum over the map is that over the outputs.

    Of windows of n a mean sends to all its inputs alike, so that two of them have all of it in common; a maximum sends
    to one, which another sample shares with the chance that its largest is at the same place (``largest.agreement``).

    Args:
        twice: of maxima, as ``windows_with_one_largest``.
    """
    own = several(g, along, twice[0])
    ratios = {frozenset(): 1.0, **g.ratios()}
    found = {}
    within = 0.0 if mean else max(x.correlation(along), 0.0) if along else 0.0
    for s in subsets(x.groups):
        rest = s - along
        one, others = ratios.get(rest, 0.0), (outputs - 1) * ratios.get(s & g.law.groups, 0.0)
        meet = 1.0 if mean else _agreement(x, rest, along, n, within)
        if mean:
            found[s] = (n * (one + others) - one) / max(inputs - 1, 1.0) if s & along else one
            continue
        alike = (meet - 1 / n) / (1 - 1 / n) if n > 1 else 1.0
        other = (twice[1] + (twice[0] - twice[1]) * alike) * ratios.get((rest | along) & g.law.groups, 0.0)
        if not s & along:
            found[s] = (one * meet + other) / max(own, 1e-300)
        else:
            found[s] = (others - other + (one * (1 - meet) if rest else 0.0)) / max(inputs - 1, 1.0) / max(own, 1e-300)
    return {s: float(np.clip(r, -1, 1)) for s, r in found.items()}


def _agreement(x: Law, differ: Groups, along: Groups, n: float, within: float) -> float:
    """Chance that windows of two samples have their largest at the same place."""
    if not differ or within >= 1 - 1e-9:
        return 1.0
    one, others = x.correlation(differ), x.correlation(differ | along) if along else 0.0
    return agreement(max(round(n), 1), round((one - others) / (1 - within), 4))
