"""More operations that are several of the vocabulary's in a row: norms, folds, outer products, transforms."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from fanin.frameworks.torch.chain import Chain
from fanin.frameworks.torch.reducing import single
from fanin.graph import Kind

if TYPE_CHECKING:
    from fanin.frameworks.torch.arguments import Arguments


def _axes(dims: Any) -> tuple[int, ...]:
    return () if dims is None else tuple(int(d) for d in dims) if isinstance(dims, list | tuple) else (int(dims),)


def norm(a: Arguments) -> Chain:
    """The norm of a vector: Euclidean, sum of absolute values, or the largest of them."""
    order = a.get("ord", a.get("p"))
    axes, keep = _axes(a.get("dim")), bool(a.get("keepdim", False))
    chain = Chain(a)
    x = a.given("self" if "self" in a.names else "A")
    if single(a.size("self" if "self" in a.names else "A"), axes):
        chain.reshape(chain.map(x, np.abs), a.shape)
        return chain
    if order in (None, 2, 2.0, "fro"):
        attrs = {"op": "norm", "axes": axes, "keepdim": keep}
        chain.add(
            Kind.REDUCE, attrs, [x], a.shape, lambda v: np.sqrt(np.sum(np.square(v), axes or None, keepdims=keep))
        )
        return chain
    if order not in (1, 1.0, math.inf):
        raise TypeError(f"a norm of order {order}")
    size = chain.map(x, np.abs)
    op, run = ("sum", np.sum) if order == 1 else ("max", np.max)
    attrs = {"op": op, "axes": axes, "keepdim": keep}
    chain.add(Kind.REDUCE, attrs, [size], a.shape, lambda v: run(v, axes or None, keepdims=keep))
    return chain


def weight_norm(a: Arguments) -> Chain:
    """v g / |v|, the norm over all axes but one."""
    chain, size = Chain(a), a.size("v")
    v, g = a.given("v"), a.given("g")
    kept = int(a.get("dim", 0)) % len(size)
    axes = tuple(i for i in range(len(size)) if i != kept)
    length = tuple(n if i == kept else 1 for i, n in enumerate(size))
    attrs = {"op": "norm", "axes": axes, "keepdim": True}
    whole = chain.add(Kind.REDUCE, attrs, [v], length, lambda x: np.sqrt(np.sum(np.square(x), axes, keepdims=True)))
    scale = chain.add(Kind.POINTWISE, {"fn": np.divide}, [g, whole], length, np.divide)
    chain.add(Kind.PRODUCT, {}, [v, scale], size, np.multiply)
    return chain


def fold(a: Arguments) -> Chain:
    """Columns back to patches that do not overlap: (B, C kh kw, places) -> (B, C, H, W)."""
    kernel, stride = [int(n) for n in a["kernel_size"]], [int(n) for n in a["stride"]]
    height, width = (int(n) for n in a["output_size"])
    if kernel != stride or any(a["padding"]) or any(int(n) != 1 for n in a["dilation"]):
        raise TypeError("patches that overlap")
    chain = Chain(a)
    b, c = a.shape[0], a.shape[1]
    x = chain.reshape(0, (b, c, kernel[0], kernel[1], height // kernel[0], width // kernel[1]))
    x = chain.permute(x, (0, 1, 4, 2, 5, 3))
    chain.reshape(x, a.shape)
    return chain


def bag(a: Arguments) -> Chain:
    """Rows of a table, summed or averaged over bags that begin at the offsets; each times its own weight."""
    mode, indices, size = int(a.get("mode", 0)), a.given("indices"), a.size("weight")
    padding = a.get("padding_idx")
    if mode == 2 or (padding is not None and int(padding) >= 0) or a.get("include_last_offset"):
        raise TypeError("the largest of a bag, or a bag with padding")
    chain, many = Chain(a), math.prod(a.size("indices"))
    flat = chain.reshape(indices, (many,))
    attrs = {"ids": 0, "weight": 1, "padding": -1}
    rows = chain.add(Kind.EMBED, attrs, [flat, a.given("weight")], (many, size[1]), lambda i, w: w[i.astype(int)])
    if a.at("per_sample_weights") is not None:
        each = chain.reshape(a.given("per_sample_weights"), (many, 1))
        rows = chain.add(Kind.PRODUCT, {}, [rows, each], (many, size[1]), np.multiply)
    starts = lambda o: np.asarray(o, np.int64).ravel()  # noqa: E731
    owner = lambda o: np.searchsorted(starts(o), np.arange(many), side="right") - 1.0  # noqa: E731
    which = chain.add(Kind.POINTWISE, {"fn": owner}, [a.given("offsets")], (many,), owner)
    zero = chain.constant(np.zeros(a.shape))
    attrs = {"how": "put", "axes": (0,), "index": (1,), "source": 2, "add": True}

    def put(total: np.ndarray, to: np.ndarray, what: np.ndarray) -> np.ndarray:
        total = np.array(total, float)
        np.add.at(total, np.asarray(to, np.int64), what)
        return total

    summed = chain.add(Kind.MOVE, attrs, [zero, which, rows], a.shape, put)
    if mode == 1:
        count = lambda o: np.maximum(np.diff(np.append(starts(o), many)), 1.0)[:, None]  # noqa: E731
        sizes = chain.add(Kind.POINTWISE, {"fn": count}, [a.given("offsets")], (a.shape[0], 1), count)
        chain.add(Kind.POINTWISE, {"fn": np.divide}, [summed, sizes], a.shape, np.divide)
    return chain


def channel_shuffle(a: Arguments) -> Chain:
    """Channels dealt out over groups."""
    chain, (b, c, *rest) = Chain(a), a.size("self")
    groups = int(a["groups"])
    x = chain.reshape(0, (b, groups, c // groups, *rest))
    x = chain.permute(x, (0, 2, 1, *range(3, 3 + len(rest))))
    chain.reshape(x, (b, c, *rest))
    return chain


def joined(axis: int) -> Any:
    """hstack, vstack, dstack: a concatenation along a fixed axis."""

    def build(a: Arguments) -> Chain:
        chain = Chain(a)
        handles = [a.refs.index(t.id) for t in a["tensors"]]
        along = 0 if axis == 1 and len(chain.shapes[handles[0]]) == 1 else axis
        if any(len(chain.shapes[h]) <= along for h in handles):
            raise TypeError("tensors with too few axes")
        chain.add(Kind.MOVE, {"how": "cat", "axis": along}, handles, a.shape, lambda *v: np.concatenate(v, along))
        return chain

    return build


def diagonal(a: Arguments) -> Chain:
    """x[..., i, i + offset] of two axes, the places last."""
    chain, size = Chain(a), a.size("self")
    names = ("dim1", "dim2") if "dim1" in a.names else ("axis1", "axis2")
    one, other = (int(a.get(name, default)) % len(size) for name, default in zip(names, (0, 1), strict=True))
    offset, rest = int(a.get("offset", 0) or 0), [i for i in range(len(size)) if i not in (one, other)]
    x = chain.permute(0, (*rest, one, other))
    at = np.arange(a.shape[-1])
    first, second = chain.constant(at + max(-offset, 0)), chain.constant(at + max(offset, 0))
    attrs = {"how": "index", "axes": (len(size) - 2, len(size) - 1), "positions": (1, 2)}
    chain.add(Kind.MOVE, attrs, [x, first, second], a.shape, lambda v, i, j: v[..., i, j])
    return chain


def outer(a: Arguments) -> Chain:
    """x_i y_j."""
    chain = Chain(a)
    second = a.given("vec2" if "vec2" in a.names else "other")
    x = chain.reshape(a.given("self"), (a.shape[0], 1))
    y = chain.reshape(second, (1, a.shape[1]))
    chain.add(Kind.PRODUCT, {}, [x, y], a.shape, np.multiply)
    return chain


def cosine_similarity(a: Arguments) -> Chain:
    """sum x y / (|x| |y|) along an axis."""
    chain = Chain(a)
    x, y = a.given("x1"), a.given("x2")
    wide = tuple(np.broadcast_shapes(chain.shapes[x], chain.shapes[y]))
    axis = int(a.get("dim", 1)) % len(wide)
    sized = lambda n: tuple(m for i, m in enumerate(chain.shapes[n]) if i != axis)  # noqa: E731
    both = chain.add(Kind.PRODUCT, {}, [x, y], wide, np.multiply)
    attrs = {"op": "sum", "axes": (axis,), "keepdim": False}
    total = chain.add(Kind.REDUCE, attrs, [both], a.shape, lambda v: np.sum(v, axis))
    for vector in (x, y):
        attrs = {"op": "norm", "axes": (axis,), "keepdim": False}
        length = chain.add(Kind.REDUCE, attrs, [vector], sized(vector), lambda v: np.sqrt(np.sum(np.square(v), axis)))
        total = chain.add(Kind.POINTWISE, {"fn": np.divide}, [total, length], a.shape, np.divide)
    return chain


def fourier(a: Arguments) -> Chain:
    """The discrete Fourier transform, known weights along each axis; its law is that of the real part."""
    chain, size = Chain(a), a.size("self")
    axes = tuple(d % len(size) for d in (_axes(a.get("dim")) or tuple(range(len(size)))))
    if any(n is not None for n in _listed(a.get("s", a.get("n")))) or a.get("norm") not in (None, "backward"):
        raise TypeError("a transform of another length or norm")
    if len(axes) > 2:
        raise TypeError("a transform along more than two axes")
    turn = {d: 2 * np.pi * np.outer(np.arange(size[d]), np.arange(size[d])) / size[d] for d in axes}
    even = chain.weigh(0, {d: np.cos(t) for d, t in turn.items()})
    if len(axes) == 2:
        odd = chain.weigh(0, {d: np.sin(t) for d, t in turn.items()})
        chain.add(Kind.SUM, {"alpha": -1.0}, [even, odd], size, np.subtract)
    return chain


def _listed(value: Any) -> list:
    return list(value) if isinstance(value, list | tuple) else [value]


COMPOSED = {
    **dict.fromkeys(("norm", "linalg_vector_norm", "linalg_norm", "frobenius_norm"), norm),
    **dict.fromkeys(("_weight_norm", "_weight_norm_interface"), weight_norm),
    "col2im": fold,
    **dict.fromkeys(("embedding_bag", "_embedding_bag", "_embedding_bag_forward_only"), bag),
    **dict.fromkeys(("channel_shuffle", "native_channel_shuffle"), channel_shuffle),
    "hstack": joined(1),
    "vstack": joined(0),
    **dict.fromkeys(("diagonal", "linalg_diagonal"), diagonal),
    **dict.fromkeys(("outer", "ger"), outer),
    "cosine_similarity": cosine_similarity,
    **dict.fromkeys(("fft_fft", "fft_fft2", "fft_fftn"), fourier),
}
"""Rows of the table."""
