"""Operations that are several of the vocabulary's in a row: gated units, masks, sums of exponentials, and the table."""

from __future__ import annotations

import numpy as np

from fanin.frameworks.torch.arguments import Arguments, Row
from fanin.frameworks.torch.chain import Chain
from fanin.frameworks.torch.contracting import bilinear, einsum
from fanin.frameworks.torch.interpolating import INTERPOLATING
from fanin.frameworks.torch.rearranging import REARRANGING
from fanin.graph import Kind


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


def triangle(upper: bool) -> Row:
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


def filled(value: float | None) -> Row:
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


CHAINS: dict[str, Row] = {
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
    **REARRANGING,
    **INTERPOLATING,
    "bilinear": bilinear,
    "einsum": einsum,
}
"""Rows of the table whose result is a chain."""
