"""Operations that are several of the vocabulary's in a row: einsum, gated units, shuffles, repeats, interpolation.

A row returns a ``Chain``: links that become nodes one after another, of which the last is the operation's own tensor.
The ones before carry no row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fanin.graph import Kind

if TYPE_CHECKING:
    from fanin.frameworks.torch.ops import Arguments

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Link:
    """One node of a chain; ``inputs`` are handles: the step's references first, then the links."""

    kind: Kind
    attrs: dict[str, Any]
    inputs: tuple[int, ...]
    shape: Shape
    run: Callable[..., np.ndarray]


class Chain:
    """Links in the order in which they run, and the shapes of all handles."""

    def __init__(self, a: Arguments):
        self.first = len(a.refs)
        self.links: list[Link] = []
        self.shapes: list[Shape] = [a.shape_of(ref) for ref in a.refs]

    def add(self, kind: Kind, attrs: dict, inputs: Sequence[int], shape: Shape, run: Callable) -> int:
        """Append a link; its handle."""
        self.links.append(Link(kind, attrs, tuple(inputs), tuple(shape), run))
        self.shapes.append(tuple(shape))
        return len(self.shapes) - 1

    def reshape(self, x: int, shape: Shape) -> int:
        shape = tuple(shape)
        return self.add(Kind.MOVE, {"how": "reshape"}, [x], shape, lambda v: np.reshape(v, shape))

    def permute(self, x: int, perm: Sequence[int]) -> int:
        perm = tuple(perm)
        shape = tuple(self.shapes[x][i] for i in perm)
        return self.add(Kind.MOVE, {"how": "permute", "perm": perm}, [x], shape, lambda v: np.transpose(v, perm))

    def expand(self, x: int, shape: Shape) -> int:
        shape = tuple(shape)
        return self.add(Kind.MOVE, {"how": "expand"}, [x], shape, lambda v: np.broadcast_to(v, shape))

    def slice(self, x: int, axis: int, start: int, stop: int) -> int:
        shape = _with(self.shapes[x], axis, stop - start)
        attrs = {"how": "slice", "axis": axis, "start": start, "stop": stop, "step": 1}
        return self.add(Kind.MOVE, attrs, [x], shape, lambda v: v[(slice(None),) * axis + (slice(start, stop),)])

    def gather(self, x: int, axis: int, index: np.ndarray) -> int:
        shape = _with(self.shapes[x], axis, len(index))
        attrs = {"how": "gather", "axis": axis, "index": index}
        return self.add(Kind.MOVE, attrs, [x], shape, lambda v: np.take(v, index, axis))

    def pad(self, x: int, widths: Sequence[tuple[int, int]]) -> int:
        shape = tuple(n + sum(w) for n, w in zip(self.shapes[x], widths, strict=True))
        attrs = {"how": "pad", "widths": tuple(widths), "value": 0.0}
        return self.add(Kind.MOVE, attrs, [x], shape, lambda v: np.pad(v, widths))

    def weigh(self, x: int, matrices: dict[int, np.ndarray]) -> int:
        """Weighted sums along axes: the matrix of each is (out, in)."""
        shape = self.shapes[x]
        for axis, m in matrices.items():
            shape = _with(shape, axis, len(m))
        attrs = {"op": "weighted", "axes": tuple(matrices), "keepdim": True, "matrices": tuple(matrices.values())}

        def run(v: np.ndarray) -> np.ndarray:
            v = np.asarray(v, float)
            for axis, m in matrices.items():
                v = np.moveaxis(np.tensordot(v, m.T, (axis, 0)), -1, axis)
            return v

        return self.add(Kind.REDUCE, attrs, [x], shape, run)

    def map(self, x: int, fn: Callable) -> int:
        return self.add(Kind.POINTWISE, {"fn": fn}, [x], self.shapes[x], fn)

    def constant(self, array: np.ndarray) -> int:
        return self.add(Kind.CONSTANT, {"value": array}, [], array.shape, lambda: array)


def _with(shape: Shape, axis: int, n: int) -> Shape:
    return (*shape[:axis], n, *shape[axis + 1 :])


# --- functions of halves, masks, places ---------------------------------------------------------------------------


def _slopes(x: np.ndarray, slope: np.ndarray) -> np.ndarray:
    return np.where(np.asarray(x) > 0, x, np.asarray(slope) * x)


def prelu(a: Arguments) -> tuple[Kind, dict] | Chain:
    """where(x > 0, x, w x), the slopes laid along the second axis."""
    size, slopes = a.size("self"), a.size("weight")
    if len(slopes) != 1 or slopes[0] == 1 or len(size) <= 2:
        return Kind.POINTWISE, {"fn": _slopes}
    chain = Chain(a)
    laid = chain.reshape(a.given("weight"), (1, slopes[0], *[1] * (len(size) - 2)))
    chain.add(Kind.POINTWISE, {"fn": _slopes}, [a.given("self"), laid], size, _slopes)
    return chain


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(x, float)))


def glu(a: Arguments) -> Chain:
    """One half times the sigmoid of the other."""
    chain, size = Chain(a), a.size("self")
    axis = int(a.get("dim", -1)) % len(size)
    half = size[axis] // 2
    value, gate = chain.slice(0, axis, 0, half), chain.slice(0, axis, half, 2 * half)
    gate = chain.map(gate, _sigmoid)
    chain.add(Kind.PRODUCT, {}, [value, gate], chain.shapes[value], np.multiply)
    return chain


def triangle(upper: bool) -> Callable[[Arguments], Chain]:
    """tril and triu: a product with a known mask."""

    def triangular(a: Arguments) -> Chain:
        chain, size = Chain(a), a.size("self")
        mask = (np.triu if upper else np.tril)(np.ones(size[-2:]), int(a.get("diagonal", 0) or 0))
        other = chain.constant(mask)
        chain.add(
            Kind.PRODUCT, {}, [0, other], size, lambda x, m: np.where(m > 0, x, np.zeros((), np.asarray(x).dtype))
        )
        return chain

    return triangular


def logsumexp(a: Arguments) -> Chain:
    """log of a sum of exp."""
    chain = Chain(a)
    powers = chain.map(0, np.exp)
    dims = a["dim"]
    axes = tuple(int(d) for d in dims) if isinstance(dims, list | tuple) else (int(dims),)
    keep = bool(a.get("keepdim", False))
    attrs = {"op": "sum", "axes": axes, "keepdim": keep, "positive": True}
    total = chain.add(Kind.REDUCE, attrs, [powers], a.shape, lambda v: np.sum(v, axes, keepdims=keep))
    chain.map(total, np.log)
    return chain


def cumsum(a: Arguments) -> Chain:
    """Sums over growing prefixes."""
    chain, size = Chain(a), a.size("self")
    axis = int(a["dim"]) % len(size)
    chain.weigh(0, {axis: np.tri(size[axis])})
    return chain


def filled(value: float | None) -> Callable[[Arguments], Chain]:
    """zeros_like, new_full and so on: a constant, whatever the shape is borrowed from."""

    def constants(a: Arguments) -> Chain:
        number = a.get("fill_value", 0.0) if value is None else value
        chain = Chain(a)
        chain.constant(np.broadcast_to(np.asarray(number, float), a.shape))
        return chain

    return constants


def copied(a: Arguments) -> Chain:
    """copy_: what is written, not what is written over."""
    chain = Chain(a)
    chain.expand(a.given("src"), a.size("self"))
    return chain


# --- copies and rearrangements ------------------------------------------------------------------------------------


def repeat(a: Arguments) -> Chain:
    """Whole copies side by side along every axis."""
    chain = Chain(a)
    times = [int(n) for n in (a.get("repeats") or a.get("dims"))]
    size = a.size("self")
    rank = max(len(times), len(size))
    times, size = [1] * (rank - len(times)) + times, (1,) * (rank - len(size)) + tuple(size)
    fine = chain.reshape(0, tuple(m for n in size for m in (1, n)))
    wide = chain.expand(fine, tuple(m for k, n in zip(times, size, strict=True) for m in (k, n)))
    chain.reshape(wide, a.shape)
    return chain


def repeat_interleave(a: Arguments) -> Chain:
    """Every element several times in a row."""
    chain, size, times = Chain(a), a.size("self"), a["repeats"]
    if not isinstance(times, int):
        raise TypeError("a tensor of repeats")
    x = 0
    if a.get("dim") is None:
        size = (math.prod(size),)
        x = chain.reshape(0, size)
    _doubled(chain, x, int(a.get("dim") or 0) % len(size), times)
    return chain


def _doubled(chain: Chain, x: int, axis: int, times: int) -> int:
    size = chain.shapes[x]
    fine = chain.reshape(x, (*size[: axis + 1], 1, *size[axis + 1 :]))
    wide = chain.expand(fine, (*size[: axis + 1], times, *size[axis + 1 :]))
    return chain.reshape(wide, _with(size, axis, size[axis] * times))


def pixel_shuffle(a: Arguments) -> Chain:
    """(C r r, H, W) -> (C, H r, W r)."""
    chain, r = Chain(a), int(a["upscale_factor"])
    *lead, c, h, w = a.size("self")
    fine, k = chain.reshape(0, (*lead, c // r**2, r, r, h, w)), len(lead)
    moved = chain.permute(fine, (*range(k), k, k + 3, k + 1, k + 4, k + 2))
    chain.reshape(moved, a.shape)
    return chain


def pixel_unshuffle(a: Arguments) -> Chain:
    """(C, H r, W r) -> (C r r, H, W)."""
    chain, r = Chain(a), int(a["downscale_factor"])
    *lead, c, h, w = a.size("self")
    fine, k = chain.reshape(0, (*lead, c, h // r, r, w // r, r)), len(lead)
    moved = chain.permute(fine, (*range(k), k, k + 2, k + 4, k + 1, k + 3))
    chain.reshape(moved, a.shape)
    return chain


def im2col(a: Arguments) -> Chain:
    """Patches as columns: (B, C, H, W) -> (B, C kh kw, places)."""
    chain, x = Chain(a), 0
    b, c, *_ = a.size("self")
    kernel, dilation = [int(n) for n in a["kernel_size"]], [int(n) for n in a["dilation"]]
    padding, stride = [int(n) for n in a["padding"]], [int(n) for n in a["stride"]]
    if any(padding):
        x = chain.pad(x, [(0, 0), (0, 0), *[(p, p) for p in padding]])
    outs = []
    for i in range(2):
        size = chain.shapes[x][2 + i]
        outs.append((size - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1)
        index = np.arange(kernel[i])[:, None] * dilation[i] + np.arange(outs[i]) * stride[i]
        x = chain.gather(x, 2 + i, index.ravel())
    x = chain.reshape(x, (b, c, kernel[0], outs[0], kernel[1], outs[1]))
    x = chain.permute(x, (0, 1, 2, 4, 3, 5))
    chain.reshape(x, (b, c * kernel[0] * kernel[1], outs[0] * outs[1]))
    return chain


def windows(a: Arguments) -> Chain:
    """Tensor.unfold: windows of one axis, their elements along a new last one."""
    chain, size = Chain(a), a.size("self")
    axis = int(a["dimension"]) % len(size)
    width, step = int(a["size"]), int(a["step"])
    count = (size[axis] - width) // step + 1
    index = np.arange(count)[:, None] * step + np.arange(width)
    x = chain.gather(0, axis, index.ravel())
    x = chain.reshape(x, (*size[:axis], count, width, *size[axis + 1 :]))
    order = [i for i in range(len(size) + 1) if i != axis + 1]
    chain.permute(x, (*order, axis + 1))
    return chain


# --- interpolation ------------------------------------------------------------------------------------------------


def nearest(a: Arguments) -> Chain:
    """Every place takes the nearest one: copies in a row where the factor is whole, else a gather."""
    chain, x = Chain(a), 0
    size = a.size("self") if "self" in a.names else a.size("input")
    for axis in range(2, len(size)):
        n, m = size[axis], a.shape[axis]
        if m % n == 0:
            x = _doubled(chain, x, axis, m // n) if m > n else x
        else:
            x = chain.gather(x, axis, np.minimum((np.arange(m) * (n / m)).astype(int), n - 1))
    return chain if chain.links else _unchanged(chain, size)


def _unchanged(chain: Chain, size: Shape) -> Chain:
    chain.reshape(0, size)
    return chain


def interpolation(mode: str) -> Callable[[Arguments], Chain]:
    """Interpolation, linear in its input and one axis after another; the weights are its own kernel's."""

    def interpolated(a: Arguments) -> Chain:
        size = a.size("self") if "self" in a.names else a.size("input")
        corners = bool(a.get("align_corners"))
        axes = [axis for axis in range(2, len(size)) if a.shape[axis] != size[axis]]
        chain = Chain(a)
        if not axes:
            return _unchanged(chain, size)
        chain.weigh(0, {axis: _between(size[axis], a.shape[axis], mode, corners) for axis in axes})
        return chain

    return interpolated


def _between(n: int, m: int, mode: str, corners: bool) -> np.ndarray:
    """Weights (m, n) of interpolation along one axis: what each unit vector becomes."""
    units = torch.eye(n, dtype=torch.float64)[:, None]
    if mode == "cubic":
        units = units[..., None]
    sizes, name = ((m, 1), "bicubic") if mode == "cubic" else (m, "linear")
    out = torch.nn.functional.interpolate(units, size=sizes, mode=name, align_corners=corners)
    return out.reshape(n, m).T.numpy()


# --- einsum -------------------------------------------------------------------------------------------------------


def einsum(a: Arguments) -> Chain:
    """Two operands as one matrix product: axes that are kept by both, contracted, and of either alone."""
    chain = Chain(a)
    handles = [a.refs.index(t.id) for t in a["tensors"]]
    terms, result = _letters(a["equation"], [chain.shapes[h] for h in handles])
    if any(len(set(t)) != len(t) for t in terms):
        raise TypeError("a diagonal")
    if len(terms) == 1 and set(terms[0]) == set(result):
        chain.permute(handles[0], [terms[0].index(c) for c in result])
        return chain
    if len(terms) != 2:
        raise TypeError(f"{len(terms)} operands")
    both = set(terms[0]) & set(terms[1])
    lone = set(terms[0]) ^ set(terms[1])
    if lone - set(result):
        raise TypeError("an axis of one operand is summed by itself")
    size = {c: n for t, h in zip(terms, handles, strict=True) for c, n in zip(t, chain.shapes[h], strict=True)}
    batch = [c for c in result if c in both]
    inner = [c for c in terms[0] if c in both and c not in result]
    if not batch and a.refs[handles[0]] in a.weights and a.refs[handles[1]] not in a.weights:
        terms, handles = terms[::-1], handles[::-1]
    free = [[c for c in t if c not in both] for t in terms]
    product = lambda letters: math.prod(size[c] for c in letters)  # noqa: E731
    whole = not batch and a.refs[handles[1]] in a.weights  # a dense layer: any number of axes before the last
    x = chain.permute(handles[0], [terms[0].index(c) for c in (*batch, *free[0], *inner)])
    rows = [size[c] for c in free[0]] if whole else [product(free[0])]
    x = chain.reshape(x, (*[size[c] for c in batch], *rows, product(inner)))
    y = chain.permute(handles[1], [terms[1].index(c) for c in (*batch, *inner, *free[1])])
    y = chain.reshape(y, (*[size[c] for c in batch], product(inner), product(free[1])))
    shape = (*chain.shapes[x][:-1], product(free[1]))
    out = chain.add(Kind.MIX, {}, [x, y], shape, np.matmul)
    letters = [*batch, *free[0], *free[1]]
    out = chain.reshape(out, tuple(size[c] for c in letters))
    chain.permute(out, [letters.index(c) for c in result])
    return chain


def _letters(equation: str, shapes: list[Shape]) -> tuple[list[list[str]], list[str]]:
    """Letters of every operand and of the result; an ellipsis becomes capital letters that are not used."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    spare = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in equation]
    terms, most = [], 0
    for term, shape in zip(left.split(","), shapes, strict=True):
        dots = len(shape) - len(term.replace("...", ""))
        most = max(most, dots if "..." in term else 0)
        head, mark, tail = term.partition("...")
        terms.append([*head, *(spare[:dots][::-1] if mark else []), *tail])
    if arrow:
        head, mark, tail = right.partition("...")
        return terms, [*head, *(spare[:most][::-1] if mark else []), *tail]
    every = [c for t in terms for c in t]
    return terms, [*spare[:most][::-1], *sorted(c for c in set(every) if every.count(c) == 1 and c not in spare)]


CHAINS: dict[str, Callable[[Arguments], Any]] = {
    "prelu": prelu,
    "_prelu_kernel": prelu,
    "glu": glu,
    "tril": triangle(upper=False),
    "triu": triangle(upper=True),
    "logsumexp": logsumexp,
    "cumsum": cumsum,
    "copy": copied,
    **dict.fromkeys(("zeros_like", "new_zeros", "empty_like", "new_empty"), filled(0.0)),
    **dict.fromkeys(("ones_like", "new_ones"), filled(1.0)),
    **dict.fromkeys(("full_like", "new_full"), filled(None)),
    "repeat": repeat,
    "tile": repeat,
    "repeat_interleave": repeat_interleave,
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    "im2col": im2col,
    "unfold": windows,
    **{f"upsample_nearest{d}d": nearest for d in (1, 2, 3)},
    **dict.fromkeys(("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d"), interpolation("linear")),
    "upsample_bicubic2d": interpolation("cubic"),
    "einsum": einsum,
}
"""Rows of the table whose result is a chain."""
