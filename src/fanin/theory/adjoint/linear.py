"""Backward through weights: dense layers, convolutions, embeddings, experts; and the gradients of the weights."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from fanin.graph import Node
from fanin.theory import border, lags
from fanin.theory.adjoint import coherent, lagged, orthogonal, radial, sequence, white
from fanin.theory.adjoint.aligned import returned
from fanin.theory.adjoint.cotangent import Cotangent, Divided, Part, fresh, translated
from fanin.theory.adjoint.weights import ONE, Moments, along_weights, moments_of, paired, standardized, weight_part
from fanin.theory.contraction import axis_groups
from fanin.theory.kurtosis import kurtosis
from fanin.theory.law import FEATURE, Groups, Law, subsets
from fanin.theory.padding import same_row
from fanin.theory.records import replace
from fanin.theory.rules.convolution import _gather, _spread, patch_pairs, read_by_both, shared_taps, tap_shares, tap_sum
from fanin.theory.rules.route import met
from fanin.theory.state import Known, Value, as_law
from fanin.theory.statistic import mean_inverse

Pair = Callable[[Groups], float]


def _along_its_input(part: Part, g: Cotangent, x: Law, n_in: int, bias: Value | None) -> Part:
    """Along x the gradient is R, whatever the weights across it are; less what it is along a bias.

    R tells the size only where x is what a norm made: behind other functions it knows what is in common, not what is
    added at random.
    """
    whole = radial.beside_bias(radial.returned(g), g.law.second, as_law(bias).second if bias is not None else 0.0)
    if x.latent.sphere != n_in:
        return replace(part, radial=whole)
    size = max(1 + (float(np.mean(radial.power(whole))) - 1) / n_in, 0.0)
    return replace(part, second=part.second * size, radial=radial.regrouped(whole, size))


def dense(node: Node, g: Cotangent, inputs: tuple[Value, ...]) -> list[list[Part]]:
    """E g_x^2 = n_out Var(W) E g^2; the weight's gradient sums g x over samples and positions."""
    a = node.attrs
    x, weight = inputs[a["x"]], inputs[a["weight"]]
    parts: list[list[Part]] = [[] for _ in inputs]
    profile = g.profile()
    n_out, n_in = weight.shape if a["out_first"] else weight.shape[::-1]
    if isinstance(x, Law):
        own, between, lost = own_deviation(g, float(n_in), weight)
        second = (1 - own) * white.left(g, n_out, n_in, lost) * n_out * weight.second * profile.mean(-1, keepdims=True)
        along = returned(g, x, n_out * weight.second, lambda p: p.mean(-1, keepdims=True))
        parts[a["x"]] = [
            fresh(second, _carried(g, x), matrix=sequence.correlation(g, x), balanced=g.balanced & x.groups),
            *along,
        ]
        shun, one = white.behind_weights(g, n_out, n_in, between, lost), parts[a["x"]][0]
        parts[a["x"]][0] = replace(one, white=shun, orthogonal=orthogonal.behind(g, x, one, n_in, n_in))
        if not along:
            bias = inputs[a["bias"]] if a["bias"] is not None else None
            parts[a["x"]] = [_along_its_input(parts[a["x"]][0], g, x, n_in, bias)]
    places = tuple(range(len(g.law.shape) - 1))
    count = float(np.prod([g.law.shape[i] for i in places]))
    axes = g.law.axes[:-1]
    pairs = moments_of(x, -1)
    total = paired(g, pairs, axes) + along_weights(g, pairs, float(n_in), axes)
    total = _across(total, g, n_in, as_law(weight))
    part = weight_part(weight, count * max(total, 0.0))
    parts[a["weight"]] = [standardized(part, weight, n_in, g, x.pair, axes, total) if isinstance(x, Law) else part]
    if a["bias"] is not None:
        bias = inputs[a["bias"]]
        parts[a["bias"]] = [weight_part(bias, count * paired(g, ONE, axes))]
    return parts


def own_deviation(g: Cotangent, n: float, weight: Law) -> tuple[float, float, float]:
    """What dividing by the deviation of one's own outputs takes away: a channel of large weights has a large deviation.

    Over n inputs ``s^2 = w C w`` has f degrees of freedom, and the covariance of |w|^2 and s^2 makes the regression
    ``E[|w|^2 | s^2] / E|w|^2 = 1 + (f / n) (s^2 / v - 1)``, with ``(kurtosis - 1) / 2`` of f / n where weights are not
    Gaussian. So the mean over inputs of E[w_i^2 / (s^2 + eps)] is the mean inverse times one minus
    ``(f / n) (1 - E[s^2 / v / (s^2 + eps)] / E[1 / (s^2 + eps)])``: without eps 2 / n, and nothing where eps is what is
    divided by.

    Returns:
        the share of the squared gradient that is lost; of two inputs' product for a correlation of one (``white``); and
        along a direction for which all of s^2 is made.
    """
    d = _divided(g)
    if d is None:
        return 0.0, 0.0, 0.0
    if d.freedom <= 2 and d.eps <= 0:  # the mean inverse is infinite
        return 0.0, 0.0, 0.0
    f = d.freedom
    sized = mean_inverse(d.variance * (1 + 2 / f), d.eps, f + 2)  # E[s^2 / v / (s^2 + eps)]
    lost = 1 - sized / mean_inverse(d.variance, d.eps, f)
    return min(f / n * (kurtosis(weight) - 1) / 2, 1.0) * lost, f / n * lost, lost


def _divided(g: Cotangent) -> Divided | None:
    """What a norm over places divided these very outputs by; None where there is none."""
    by = {p.divided for p in g.parts}
    d = by.pop() if len(by) == 1 else None
    known = d is not None and d.latent == g.law.latent.id and np.isfinite(d.freedom) and d.variance > 0
    return d if known else None


def along_outputs(g: Cotangent, n: float, weight: Law) -> float:
    """What ``paired`` misses in front of a batch norm: the gradient is orthogonal to the output, ``y = sum_i w_i x_i``.

    With r the correlation of x_i and y over places, a sum of g x_i loses r^2 of what it would be without: with C the
    inputs' covariance the mean of ``w C^2 w / (w C w)``, ``tr C^2 / (tr C)^2`` of their variance. Of that ``paired``
    has what places have in common in the mean. What they agree by chance is left, 1/n at least: n directions. Less what
    places whose y agree by chance have in common beside (``coherent.met``), which it was taken of.
    """
    d = _divided(g)
    if d is None or weight.second <= 0:
        return 0.0
    return (d.plain * d.chance - d.met) * g.second * d.variance / (n * weight.second)


def _across(total: float, g: Cotangent, n: float, weight: Law) -> float:
    """``total`` less what is along the outputs, which is no more of it than one of as many directions as there are."""
    d = _divided(g)
    least = max(1 - 1 / d.freedom, 0.0) if d is not None else 1.0
    return max(total - along_outputs(g, n, weight), least * total, 0.0)


def _carried(g: Cotangent, x: Law, axis: int = -1) -> dict[Groups, float]:
    """Correlations of the cotangent in the words of the input: the same weights act at every place.

    Places that were laid among the features (patches that are merged) are read by weights of their own: of m such
    places beside P others, P - 1 of all P m - 1 are read by the same.
    """
    ratios, inside = g.ratios(), x.axes[axis]
    outside = tuple(() if i == axis % len(x.axes) else a for i, a in enumerate(x.axes))

    def ratio(s: Groups) -> float:
        share, met = 1.0, s
        for t in s & axis_groups(inside):
            m, others = (prod(a.size for axis in axes for a in axis if a.group == t) for axes in ((inside,), outside))
            share *= (others - 1) / (others * m - 1)
            met = met if others > 1 else met - {t}
        return share * ratios.get(translated(met, outside, g.law.axes), 0.0) if share and FEATURE not in s else 0.0

    return {s: ratio(s) for s in subsets(x.groups)}


def conv(node: Node, g: Cotangent, inputs: tuple[Value, ...]) -> list[list[Part]]:
    """Every input gets what the taps that read it send back; the weight sums over samples and positions."""
    a = node.attrs
    x, weight = inputs[a["x"]], inputs[a["weight"]]
    kernel = weight.shape[2:]
    parts: list[list[Part]] = [[] for _ in inputs]
    profile = g.profile()
    profile = profile.mean(1, keepdims=True) if profile.shape[1] > 1 else profile
    channels = node.shape[1] // a["groups"]
    reads = weight.shape[0] // a["groups"] if a["transposed"] else weight.shape[1]
    if isinstance(x, Law):
        n_in = reads * float(np.prod(kernel))
        own, between, lost = own_deviation(g, n_in, weight)
        second = (
            (1 - own)
            * white.left(g, channels, n_in, lost)
            * channels
            * weight.second
            * adjoint_taps(profile, node, kernel)
        )
        whole = lambda p: adjoint_taps(p.mean(1, keepdims=True), node, kernel)  # noqa: E731
        along = returned(g, x, channels * weight.second, whole)
        part = fresh(second, _thinned(_carried(g, x, 1), node, x, kernel))
        part = replace(part, lags=lagged.behind_kernel(g, x, a["stride"], a["transposed"]))
        part = replace(part, orthogonal=orthogonal.behind(g, x, part, reads, n_in))
        shun = white.behind_weights(g, channels, n_in, between, lost, _within(weight, a["groups"]))
        heard = adjoint_taps(np.ones((1,) * len(node.shape)), node, kernel)
        sent = [*coherent.returned(g, x, replace(part, white=shun), heard, weight.second), *along]
        parts[a["x"]] = [replace(p, balanced=_kept_balance(g, node, kernel) & x.groups) for p in sent]
    places = float(np.prod([node.shape[0], *node.shape[2:]]))
    axes = (g.law.axes[0], *g.law.axes[2:])
    pairs = _patches(node, g, x, kernel)
    n_in = reads * float(np.prod(kernel))
    total = paired(g, pairs, axes) + along_weights(g, pairs, n_in, axes)
    total = _across(total, g, n_in, as_law(weight))
    part = weight_part(weight, places * max(total, 0.0))
    if isinstance(x, Law):
        part = standardized(part, weight, n_in, g, x.pair, axes, total)
    parts[a["weight"]] = [part]
    if a["bias"] is not None:
        parts[a["bias"]] = [weight_part(inputs[a["bias"]], places * paired(g, ONE, axes))]
    return parts


def _kept_balance(g: Cotangent, node: Node, kernel: tuple[int, ...]) -> Groups:
    """A kernel of one tap that reads nothing beyond the border sends a sum of zero back as one."""
    return g.balanced if not any(node.attrs["padding"]) and prod(kernel) == 1 else frozenset()


def _within(weight: Law, groups: int) -> float:
    """Share of pairs of input channels that are in one group of a convolution."""
    each = weight.shape[1]
    return (each - 1) / (each * groups - 1) if groups > 1 else 1.0


def _thinned(ratios: dict[Groups, float], node: Node, x: Law, kernel: tuple[int, ...]) -> dict[Groups, float]:
    """Two inputs meet in outputs that read them by one tap: c - 1 of n - 1 others, for a tap that c outputs have."""
    inputs, own, both = float(np.prod(x.shape[2:])), 1.0, 1.0
    for d, k in enumerate(kernel):
        count = tap_shares(node, d, k) * node.shape[d + 2]
        own, both = own * float(count.sum()), both * float((count**2).sum())
    share = min((both / own - 1) / (inputs - 1), 1.0) if inputs > 1 and own > 0 else 1.0
    spatial = frozenset(t.group for axis in x.axes[2:] for t in axis if t.size > 1)
    return {s: r * share if s & spatial else r for s, r in ratios.items()}


def adjoint_taps(profile: np.ndarray, node: Node, kernel: tuple[int, ...]) -> np.ndarray:
    """Sum over the output positions that each input position feeds."""
    a = node.attrs
    for d, k in enumerate(kernel):
        axis, size, out = d + 2, a["input_size"][d], node.shape[d + 2]
        stride, padding, dilation = a["stride"][d], a["padding"][d], a["dilation"][d]
        if a["transposed"]:
            profile = _gather(profile, axis, size, k, stride, padding, dilation, out)
        else:
            profile = _spread(profile, axis, size, k, stride, padding, dilation, out)
    return profile


def _patches(node: Node, g: Cotangent, x: Value, kernel) -> Moments:
    """Pair moments of what one tap reads at two places; taps beyond the border read zero."""
    pair, sizes = _read_at_two(node, g, x, kernel), border.sizes_of(g.law)
    table = None if node.attrs["transposed"] or sizes is None else lags.read(x, sizes, node.attrs["stride"])
    if table is not None and sizes is not None and (own := pair(frozenset())) > 0:
        table = lags.levelled(table * (own / table.flat[0]), own, pair(lags.PLACES), sizes)
    return Moments(pair, lags=table)


def _read_at_two(node: Node, g: Cotangent, x: Value, kernel) -> Pair:
    a = node.attrs
    if isinstance(x, Known) and not a["transposed"] and a["groups"] == 1:
        mean, pairs = patch_pairs(x.array, node, kernel, (x.axes[0], *x.axes[2:]))
        return lambda s: pairs.get(s, mean) if s else mean
    inside = _read(node, kernel)
    base = moments_of(x, 1)
    shared = read_by_both(x, node, kernel) if isinstance(x, Law) else None
    if shared is None or not isinstance(x, Law):
        met = shared_taps(node, kernel, (g.law.axes[0], (), *g.law.axes[2:]))
        return lambda s: base(s) * inside * (met(s) if s else 1.0)
    count, out = float(np.prod(kernel)), tuple(node.shape[2:])
    between = {s: border.mean_pair(m, out) / count for s, m in shared.items()}
    own = float(np.mean(tap_sum(x.profile(x.seconds).mean(1, keepdims=True), node, kernel))) / count
    return lambda s: between.get(s, base(s) * inside) if s else own


def _read(node: Node, kernel: tuple[int, ...]) -> float:
    """Share of an output's taps that read an input: none beyond the border, nor between strides if transposed."""
    return prod(float(tap_shares(node, d, k).mean()) for d, k in enumerate(kernel))


def embed(node: Node, g: Cotangent, inputs: tuple[Value, ...]) -> list[list[Part]]:
    """Rows that were looked up gather the gradient of every place with their id."""
    a = node.attrs
    ids, weight = inputs[a["ids"]], inputs[a["weight"]]
    parts: list[list[Part]] = [[] for _ in inputs]
    if not isinstance(weight, Law):
        return parts
    count = float(np.prod(ids.shape))
    total = count * paired(g, _looked_up(ids, weight.shape[0], a.get("padding", -1)), g.law.axes[:-1])
    parts[a["weight"]] = [weight_part(weight, total / weight.shape[0])]
    return parts


def _looked_up(ids: Value, rows: int, padding: int) -> Moments:
    """How often two places look up one row; that of padding is left alone."""
    if not isinstance(ids, Known):
        return Moments(lambda s: 1.0 / rows if s else 1.0)
    read = ids.array != padding
    if padding < 0 or read.all():
        same = same_row(ids)
        return Moments(lambda s: same.get(s, 1.0 / rows) if s else 1.0)
    alone = np.where(read, ids.array, rows + np.arange(read.size).reshape(read.shape))  # meets nothing
    same, share = same_row(replace(ids, array=alone)), float(read.mean())
    return Moments(lambda s: same.get(s, 0.0) if s else share, read[..., None].astype(float))


def experts(node: Node, g: Cotangent, inputs: tuple[Value, ...]) -> list[list[Part]]:
    """As a dense layer; each expert's weight sums over its own share of the tokens."""
    a = node.attrs
    x, weight = inputs[a["x"]], inputs[a["weight"]]
    parts: list[list[Part]] = [[] for _ in inputs]
    out_axis = 3 - a["in_axis"]
    n_out, count = weight.shape[out_axis], weight.shape[0]
    if isinstance(x, Law):
        second = n_out * weight.second * g.profile().mean(-1, keepdims=True)
        part = fresh(second, {s: r * met(x, s, count) for s, r in _carried(g, x).items()})
        parts[a["x"]] = [replace(part, radial=radial.returned(g))]
    places = float(np.prod(node.shape[:-1]))
    base = moments_of(x, -1)
    law = as_law(x)
    total = places * paired(g, lambda s: base(s) * (met(law, s, count) if s else 1), g.law.axes[:-1])
    parts[a["weight"]] = [weight_part(weight, total / count)]
    return parts
