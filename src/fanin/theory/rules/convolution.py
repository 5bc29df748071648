"""Convolutions: the effective fan of every output position counts the taps that are really there."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from fanin.graph import Node
from fanin.theory import border, branches, folds, kurtosis, lags, spread, windows, zero_sum
from fanin.theory.contraction import about_sums, add_bias, apart, known_pairs, weighted_sum
from fanin.theory.law import FEATURE, Atom, Axis, Groups, Law, Source, gaussian, subsets
from fanin.theory.records import replace
from fanin.theory.state import Known


def conv(node: Node, *inputs: Law | Known) -> Law:
    """Variance Var(W) * sum over existing taps of E[x^2] * c_in / groups, at every position."""
    a = node.attrs
    x, weight = inputs[0], inputs[a["weight"]]
    x = windows.forgotten(x) if isinstance(x, Law) else x
    bias = inputs[a["bias"]] if a["bias"] is not None else None
    kernel = weight.shape[2:]
    channels = (weight.shape[0] if a["transposed"] else weight.shape[1] * a["groups"]) // a["groups"]
    shape = node.shape
    axes = _axes(node, x)
    if (
        isinstance(x, Known)
        and _unfold_size(node, kernel, channels) <= 3e7
        and not a["transposed"]
        and a["groups"] == 1
    ):
        law = _lagged(_first(node, x, weight, kernel, shape, axes), x, node, 0.0)
    else:
        profile = x.profile(x.seconds) if isinstance(x, Law) else _mean_squares(x.array, 1)
        if profile.shape[1] > 1:
            profile = profile.mean(1, keepdims=True)
        taps = tap_sum(profile, node, kernel)
        source = x if isinstance(x, Law) else _summary(x)
        n = channels * float(np.prod(kernel))
        diagonal = (channels * (weight.second - weight.mean**2) + weight.mean**2 * channels) * taps
        of = {"channels": channels, "grouped": a["groups"] > 1, "met": shared_taps(node, kernel, axes)}
        if zero_sum.centred(weight, n):
            of["taken"] = tap_sum(np.ones((1,) * len(source.shape)), node, kernel) / float(np.prod(kernel))
        law = weighted_sum(source, weight, n, frozenset((FEATURE,)), diagonal, shape, axes, **of)
        law = law if "taken" in of else _bordered(law, source, weight, channels, node, kernel)
        law = _lagged(law, x, node, source.mean**2 if "taken" in of else 0.0)
        if isinstance(x, Law) and channels == 1 and a["groups"] == node.shape[1] and not a["transposed"]:
            law = branches.of_kernel(law, x, n, len(kernel))
    law = add_bias(law, bias, 1)
    if not isinstance(x, Law) or float(np.prod(kernel)) != 1:
        return law
    return replace(law, latent=replace(law.latent, source=Source(x.latent.id, int(channels))))  # as of a dense layer


def _lagged(law: Law, x: Law | Known, node: Node, unheard: float) -> Law:
    """What outputs have in common by how far apart they are, as the places that one tap reads for both."""
    if node.attrs["transposed"] and any(s > 1 for s in node.attrs["stride"]):
        return law
    if isinstance(x, Law):
        return lags.drawn(law, x, node.attrs["stride"], unheard)
    return lags.of_known(law, x, node.attrs["stride"])


def _bordered(law: Law, x: Law, weight: Law, channels: float, node: Node, kernel: tuple[int, ...]) -> Law:
    """Pair moments of the outputs place by place, where taps are missing at the border or inputs tell it apart."""
    shared = read_by_both(x, node, kernel)
    if shared is None or len(weight.values) > 1 or weight.mean**2 > 1e-12 * weight.second:
        return law
    return border.with_pairs(law, {s: channels * weight.second * m for s, m in shared.items()}, tuple(node.shape[2:]))


def read_by_both(x: Law, node: Node, kernel: tuple[int, ...]) -> dict[Groups, np.ndarray] | None:
    """Sums over taps of the pair moments of what two outputs read, for every two kinds of output; None for one kind."""
    a, sizes, out = node.attrs, tuple(x.shape[2:]), tuple(node.shape[2:])
    if a["transposed"] or border.sizes_of(x) != sizes or 1 in out:
        return None
    taps = [
        np.arange(n)[None, :] * stride - padding + np.arange(k)[:, None] * dilation
        for n, k, stride, padding, dilation in zip(out, kernel, a["stride"], a["padding"], a["dilation"], strict=True)
    ]
    missing = any((t < 0).any() or (t >= n).any() for t, n in zip(taps, sizes, strict=True))
    if not missing and border.carried(x) is None and border.POSITION not in x.level_groups:
        return None
    return border.read(x, sizes, out, taps)


def _axes(node: Node, x: Law | Known) -> tuple[Axis, ...]:
    spatial = []
    for size, axis in zip(node.shape[2:], x.axes[2:], strict=True):
        group = next((atom.group for atom in axis if atom.size > 1), "position")
        spatial.append((Atom(size, group),))
    return (x.axes[0], (Atom(node.shape[1], FEATURE),), *spatial)


def _unfold_size(node: Node, kernel, channels: int) -> float:
    return node.shape[0] * float(np.prod(node.shape[2:])) * float(np.prod(kernel)) * channels


def as_conv(node: Node) -> Node:
    """A pool as a convolution: its windows are read as a kernel's."""
    return replace(node, attrs={"transposed": False, **node.attrs})


def tap_sum(profile: np.ndarray, node: Node, kernel: tuple[int, ...]) -> np.ndarray:
    """Sum of a profile (sample, 1, spatial...) over the taps that reach each output position."""
    a = node.attrs
    for d, k in enumerate(kernel):
        axis, out = d + 2, node.shape[d + 2]
        stride, padding, dilation = a["stride"][d], a["padding"][d], a["dilation"][d]
        if a["transposed"]:
            profile = _spread(profile, axis, out, k, stride, padding, dilation, node_input=a["input_size"][d])
        else:
            profile = _gather(profile, axis, out, k, stride, padding, dilation, size=a["input_size"][d])
    return profile


def shared_taps(node: Node, kernel: tuple[int, ...], axes: tuple[Axis, ...]) -> Callable[[Groups], float]:
    """Share of an output's taps that another output has, too: both read the same weights, but not beyond a border.

    A tap that a share f of N outputs has is had by two different ones with probability (N f^2 - f) / (N - 1).
    """
    own, both, count, groups = 1.0, 1.0, 1.0, frozenset()
    for d, k in enumerate(kernel):
        share = tap_shares(node, d, k)
        own, both, count = own * share.sum(), both * (share**2).sum(), count * node.shape[d + 2]
        groups |= frozenset(t.group for t in axes[d + 2] if t.size > 1)
    if count <= 1 or own <= 0:
        return lambda differ: 1.0
    met = max((count * both - own) / (count - 1) / own, 0.0)
    return lambda differ: met if differ & groups else 1.0


def tap_shares(node: Node, d: int, k: int) -> np.ndarray:
    """For each tap along one direction the share of outputs for which it falls on the input."""
    a, size, out = node.attrs, node.attrs["input_size"][d], node.shape[d + 2]
    stride, padding, dilation = a["stride"][d], a["padding"][d], a["dilation"][d]
    tap = np.arange(k)[:, None] * dilation
    if a["transposed"]:
        at = np.arange(out)[None, :] + padding - tap
        return ((at % stride == 0) & (at >= 0) & (at < size * stride)).mean(1)
    at = np.arange(out)[None, :] * stride - padding + tap
    return ((at >= 0) & (at < size)).mean(1)


def _gather(
    p: np.ndarray, axis: int, out: int, k: int, stride: int, padding: int, dilation: int, size: int
) -> np.ndarray:
    if p.shape[axis] == 1 and padding == 0 and (out - 1) * stride + (k - 1) * dilation < size:
        return p * k
    p = np.repeat(p, size, axis) if p.shape[axis] == 1 else p
    total = np.zeros((*p.shape[:axis], out, *p.shape[axis + 1 :]))
    moved, source = np.moveaxis(total, axis, 0), np.moveaxis(p, axis, 0)
    for tap in range(k):
        reading, read = _inside(out, size, stride, tap * dilation - padding)
        moved[reading] += source[read]
    return total


def _spread(p, axis, out, k, stride, padding, dilation, node_input) -> np.ndarray:
    p = np.repeat(p, node_input, axis) if p.shape[axis] == 1 else p
    result = np.zeros((*p.shape[:axis], out, *p.shape[axis + 1 :]))
    moved, source = np.moveaxis(result, axis, 0), np.moveaxis(p, axis, 0)
    for tap in range(k):
        writing, written = _inside(node_input, out, stride, tap * dilation - padding)
        moved[written] += source[writing]  # a tap writes nowhere twice
    return result


def _inside(count: int, size: int, stride: int, offset: int) -> tuple[slice, slice]:
    """Which of so many windows have a tap at ``i stride + offset`` inside, and where these taps are."""
    first = max(-(offset // stride), 0)
    end = max(min((size - 1 - offset) // stride + 1, count), first)
    begin = first * stride + offset
    return slice(first, end), slice(begin, begin + (end - first) * stride, stride) if end > first else slice(0)


def _first(node: Node, x: Known, weight: Law, kernel, shape, axes) -> Law:
    """A convolution of known inputs: patches are formed, so neighbouring pixels count as they are."""
    patches = unfold(np.asarray(x.array, float), node, kernel)  # (sample, spatial..., taps * channels)
    n = patches.shape[-1]
    spatial_axes = (axes[0], *axes[2:], (Atom(n, FEATURE),))
    second, pairs = known_pairs(patches, spatial_axes, patches.ndim - 1)
    variance = weight.second - weight.mean**2
    if zero_sum.centred(weight, n):
        patches, variance = patches - patches.mean(-1, keepdims=True), variance * n / (n - 1)
        second, pairs = known_pairs(patches, spatial_axes, patches.ndim - 1)
    if weight.mean**2 <= 1e-12 * weight.second:
        law = gaussian(shape, axes, n * variance * second[:, None], lambda s: n * variance * pairs.get(s, 0.0))
        scatter = spread.known(patches, spatial_axes, patches.ndim - 1)
        reach = (folds.widening(float(np.prod(kernel)), len(kernel)), 0.0, 0.0)
        return kurtosis.weighted(replace(law, latent=replace(law.latent, spread=scatter, reach=reach)), weight, n)
    sums = patches.sum(-1)
    _, sum_pairs = known_pairs(sums[..., None], (*spatial_axes[:-1], ()), patches.ndim - 1)
    return about_sums(shape, axes, weight, n * variance * second[:, None], sums[:, None], n, pairs, sum_pairs)


def unfold(x: np.ndarray, node: Node, kernel, places: np.ndarray | None = None) -> np.ndarray:
    """Patches of (sample, channel, spatial...) as (sample, spatial out..., channel * taps).

    Args:
        places: which of them, counted along samples and outputs, as (places, channel * taps); all by default.
    """
    a, dims = node.attrs, len(kernel)
    reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, a["dilation"], strict=True))
    x = _padded(x, node, kernel)
    view = np.lib.stride_tricks.sliding_window_view(x, reach, axis=tuple(range(2, 2 + dims)))
    picks = [slice(None), slice(None)]
    picks += [slice(0, (out - 1) * s + 1, s) for out, s in zip(node.shape[2:], a["stride"], strict=True)]
    picks += [slice(None, None, d) for d in a["dilation"]]
    view = np.moveaxis(view[tuple(picks)], 1, 1 + dims)  # sample, spatial, channel, taps
    if places is not None:
        return view[np.unravel_index(places, view.shape[: 1 + dims])].reshape(len(places), -1)
    return view.reshape(*view.shape[: 1 + dims], -1)


def _padded(x: np.ndarray, node: Node, kernel) -> np.ndarray:
    """With the zeros that taps beyond the border read: behind the end as far as the last output reads."""
    a, widths = node.attrs, []
    for i, (before, k) in enumerate(zip(a["padding"], kernel, strict=True)):
        read = (node.shape[2 + i] - 1) * a["stride"][i] + (k - 1) * a["dilation"][i] + 1
        widths.append((before, max(read - before - x.shape[2 + i], 0)))
    return np.pad(x, [(0, 0), (0, 0), *widths])


def patch_pairs(x: np.ndarray, node: Node, kernel, axes: Sequence[Axis]) -> tuple[float, dict[Groups, float]]:
    """Mean square of a patch, and mean products of two, as ``known_pairs`` of ``unfold``, which takes much more memory.

    Sums over samples, and over outputs of what one tap reads, are taken one axis after the other.

    Args:
        axes: of x but the channels.
    """
    if any(sum(atom.size > 1 for atom in axis) > 1 for axis in axes[1:]):
        patches = unfold(x, node, kernel)
        second, pairs = known_pairs(patches, (*axes, ()), patches.ndim - 1)
        return float(second.mean()), pairs
    atoms = [atom for atom in axes[0] if atom.size > 1]
    sizes = [atom.size for atom in atoms]
    if math.prod(sizes) != x.shape[0]:
        sizes = [x.shape[0]]
    owner = [atom.group for atom in atoms][: len(sizes)] or [""] * len(sizes)
    owner += [next((atom.group for atom in axis if atom.size > 1), "") for axis in axes[1:]]
    x = x.reshape(*sizes, *x.shape[1:])
    totals = {}
    for chosen in (frozenset(), *subsets(frozenset(owner) - {""})):
        totals[chosen] = _squared_mean(x, node, kernel, [group in chosen for group in owner])
    return totals[frozenset()][0], apart(totals)


def _squared_mean(x: np.ndarray, node: Node, kernel, chosen: list[bool]) -> tuple[float, int]:
    """Mean over all else of the squared mean over the chosen axes, and over how many places that is.

    Args:
        x: (leading axes, channels, spatial axes).
        chosen: for every leading and every spatial axis.
    """
    front = len(chosen) - len(kernel)
    over = tuple(i for i in range(front) if chosen[i])
    count = math.prod(x.shape[i] for i in over)
    x = x.sum(over, dtype=float, keepdims=True) if over else x
    if not any(chosen[front:]):  # what is read often counts as often
        square = _mean_squares(x.reshape(-1, *x.shape[front:]), 0)[0]
        for d in range(len(kernel)):
            at, inside = _reads(node, kernel, d, square.shape[1])
            often = np.bincount(at[inside], minlength=square.shape[1]) / at.size
            square = np.tensordot(square, often, (1, 0))
        return float(square.mean()) / count**2, count
    for d, is_chosen in enumerate(chosen[front:]):
        x = np.moveaxis(x, front + 1, -1)  # the next axis; what was read of those before stands behind
        if is_chosen:
            count *= node.shape[2 + d]
            taps = _taps(node, kernel, d, x.shape[-1])
            x = np.stack([x[..., read].sum(-1, dtype=float) for read in taps], -1)
        else:
            at, inside = _reads(node, kernel, d, x.shape[-1])
            x = np.where(inside, x[..., np.clip(at, 0, x.shape[-1] - 1)], 0.0)
    return float(((x / count) ** 2).mean()), count


def _reads(node: Node, kernel, d: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Where along an axis each tap reads for each output, (taps, outputs), and whether that is inside the input."""
    a, outputs = node.attrs, np.arange(node.shape[2 + d])
    at = (np.arange(kernel[d]) * a["dilation"][d])[:, None] + outputs * a["stride"][d] - a["padding"][d]
    return at, (at >= 0) & (at < size)


def _taps(node: Node, kernel, d: int, size: int) -> list[slice]:
    """What each tap reads along an axis inside the input."""
    stride, dilation, padding = (node.attrs[key][d] for key in ("stride", "dilation", "padding"))
    return [_inside(node.shape[2 + d], size, stride, tap * dilation - padding)[1] for tap in range(kernel[d])]


def _mean_squares(x: np.ndarray, axis: int) -> np.ndarray:
    """Mean square along the first or the second axis, which stays; images are laid out as float64 one at a time."""
    if axis:
        return np.stack([_mean_squares(one, axis - 1) for one in x])
    total = np.zeros((1, *x.shape[1:]))
    for one in x:
        total += np.square(one, dtype=float)
    return total / len(x)


def _summary(x: Known) -> Law:
    """A known image as a law with its mean squares and pair moments (for large ones, whose patches would not fit)."""
    second, pairs = known_pairs(x.array, x.axes, 1)
    axes = (x.axes[0], (Atom(x.shape[1], FEATURE),), *x.axes[2:])
    q = float(second.mean())
    return gaussian(x.shape, axes, np.full((1,) * len(x.shape), q), lambda s: pairs.get(s, 0.0))
