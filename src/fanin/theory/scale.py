"""Laws beyond the range of floating-point squares: a power of two apart from the values.

A thousand layers that each multiply the rms by 1.5 end at 1e176, whose square no double holds. A law that leaves the
window 2^-200 .. 2^200 carries ``exponent``: an element is ``values(z) 2^exponent``. The rules know nothing of it: what
a node computes is written in rescaled inputs, ``y = 2^f u(x')`` with ``x_i = 2^{r_i} x'_i``, so that forward the law of
``u`` gets the exponent f, and backward the cotangent of input i is that of ``u`` times ``2^(f - r_i)``. Weighted sums,
moves and means are homogeneous; a bias and an eps are rescaled with the signal; a function far out is a power law,
which is checked.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fanin.graph import Kind, Node
from fanin.theory.law import Law
from fanin.theory.records import replace
from fanin.theory.state import Value, as_law

WINDOW = 200  # squares and cubes of 2^200 are far from overflow
FAR = 180  # where a function's power law is read off, together with WINDOW


@dataclass(frozen=True)
class Scaled:
    """A node in rescaled inputs: ``y = 2^power u(x')``, ``x_i = 2^shifts[i] x'_i``."""

    node: Node
    inputs: tuple[Value, ...]
    power: int = 0
    shifts: tuple[int, ...] = ()


def exponent(value: Value) -> int:
    """Power of two that the values are to be multiplied by."""
    return value.exponent if isinstance(value, Law) else 0


def times(law: Law, power: int) -> Law:
    """Values times a power of two, without an exponent."""
    loose = None if law.loose is None else np.ldexp(law.loose, power)
    prefix = None if power else law.prefix
    return replace(law, values=np.ldexp(law.values, power), loose=loose, exponent=0, prefix=prefix)


def settled(law: Law, power: int = 0) -> Law:
    """The law times 2^power, its exponent zero if and only if it is inside the window."""
    size = _size(law, power)
    if size == 0 or not np.isfinite(size):
        return law
    own = math.frexp(size)[1]
    if abs(own + power) <= WINDOW:
        return times(law, power) if power else law
    return replace(times(law, -own), exponent=own + power)


def _size(law: Law, power: int) -> float:
    """Largest spread of a level: not its largest value, since masks are huge and no signal."""
    with np.errstate(all="ignore"):
        spread = float(np.max(law.moments.spread))
        return float(np.abs(law.values).max()) if spread == 0 and power else spread


def rescaled(node: Node, inputs: tuple[Value, ...]) -> Scaled | None:
    """The node in rescaled inputs; None where no input has an exponent.

    Raises:
        NotImplementedError: the kind has no rule for signals of this size.
    """
    if not any(exponent(v) for v in inputs):
        return None
    found = KINDS.get(node.kind)
    if found is None:
        raise NotImplementedError("a signal beyond 2^200 or below 2^-200")
    return found(node, inputs)


def _with(node: Node, inputs: tuple[Value, ...], kept: tuple[int, ...], power: int) -> Scaled:
    """x'_i = 2^kept[i] times the values of input i, and y = 2^power u."""
    new = tuple(v if k == 0 and not exponent(v) else times(as_law(v), k) for v, k in zip(inputs, kept, strict=True))
    shifts = tuple(exponent(v) - k for v, k in zip(inputs, kept, strict=True))
    return Scaled(node, new, power, shifts)


def _nonzero(value: Value) -> bool:
    return not isinstance(value, Law) or bool(np.any(value.values))


def _added(node: Node, inputs: tuple[Value, ...], powers: dict[int, int]) -> Scaled:
    """Summands with their own powers of two: all relative to the largest, beside which what is far smaller vanishes."""
    power = max((p for i, p in powers.items() if _nonzero(inputs[i])), default=0)
    kept = [powers[i] - power if i in powers else exponent(v) for i, v in enumerate(inputs)]
    return _with(node, inputs, tuple(0 if not _nonzero(v) else k for k, v in zip(kept, inputs, strict=True)), power)


def _linear(node: Node, inputs: tuple[Value, ...]) -> Scaled:
    """Linear in x, with a bias that is added."""
    x, bias = node.attrs["x"], node.attrs.get("bias")
    powers = {x: exponent(inputs[x])}
    if bias is not None:
        powers[bias] = exponent(inputs[bias])
    return _added(node, inputs, powers)


def _sum(node: Node, inputs: tuple[Value, ...]) -> Scaled:
    return _added(node, inputs, {i: exponent(v) for i, v in enumerate(inputs)})


def _product(node: Node, inputs: tuple[Value, ...]) -> Scaled:
    if node.attrs.get("bias") is None:
        return _with(node, inputs, (0,) * len(inputs), sum(exponent(v) for v in inputs))
    ix, iy, bias = node.attrs["x"], node.attrs["y"], node.attrs["bias"]
    product, own = exponent(inputs[ix]) + exponent(inputs[iy]), exponent(inputs[bias])
    power = max(product, own) if _nonzero(inputs[bias]) else product
    kept = [0] * len(inputs)
    kept[ix], kept[bias] = product - power, own - power
    return _with(node, inputs, tuple(kept), power)


def _homogeneous(node: Node, inputs: tuple[Value, ...]) -> Scaled:
    """Of degree one in the first input; the others (indices) have no scale."""
    return _with(node, inputs, (0, *(exponent(v) for v in inputs[1:])), exponent(inputs[0]))


def _move(node: Node, inputs: tuple[Value, ...]) -> Scaled:
    several = node.attrs["how"] in ("cat", "stack", "put") or node.attrs.get("value")
    return _sum(node, inputs) if several else _homogeneous(node, inputs)


def _reduce(node: Node, inputs: tuple[Value, ...]) -> Scaled:
    own = exponent(inputs[0])
    return _with(node, inputs, (0,) * len(inputs), 2 * own if node.attrs["op"] == "var" else own)


def _clipped(node: Node, inputs: tuple[Value, ...]) -> Scaled:
    """What saturates: as large as the window allows."""
    return _with(node, inputs, tuple(int(np.clip(exponent(v), -WINDOW, WINDOW)) for v in inputs), 0)


def _drop(node: Node, inputs: tuple[Value, ...]) -> Scaled:
    return _clipped(node, inputs) if node.attrs.get("alpha") else _homogeneous(node, inputs)


def _norm(node: Node, inputs: tuple[Value, ...]) -> Scaled:
    """Divided by statistics of x, with eps in its units; by stored ones, linear with mean and bias in its units."""
    a, own, bias = node.attrs, exponent(inputs[0]), node.attrs.get("bias")
    others = (0,) * (len(inputs) - 1)
    if not a.get("batch_stats", True) and a.get("running_var") is not None:
        shared = [i for i in (bias, a.get("running_mean")) if i is not None]
        return _added(node, inputs, {0: own, **dict.fromkeys(shared, 0)})
    if own > 0 or not a["eps"]:
        return _with(_changed(node, eps=math.ldexp(a["eps"], -2 * max(own, 0))), inputs, (0, *others), 0)
    near = max(own, -WINDOW)  # far below eps the norm is linear
    scaled = _changed(node, eps=math.ldexp(a["eps"], -2 * near))
    if bias is not None and _nonzero(as_law(inputs[bias])):
        return _with(scaled, inputs, (own - near, *others), 0)
    return _with(scaled, inputs, (0, *others), own - near)


def _attention(node: Node, inputs: tuple[Value, ...]) -> Scaled:
    logits = int(np.clip(exponent(inputs[0]) + exponent(inputs[1]), -2 * WINDOW, 2 * WINDOW))
    scale = math.ldexp(node.attrs["scale"], logits)
    kept = (0, 0, 0, *(exponent(v) for v in inputs[3:]))
    return _with(_changed(node, scale=scale), inputs, kept, exponent(inputs[2]))


def _pointwise(node: Node, inputs: tuple[Value, ...]) -> Scaled:
    """The function itself up to 2^200; beyond that its power law, read off between 2^180 and 2^200."""
    fn, top = node.attrs["fn"], max((exponent(v) for v in inputs), key=abs)
    if abs(top) <= WINDOW:
        return _with(node, inputs, tuple(exponent(v) for v in inputs), 0)
    end = WINDOW if top > 0 else -WINDOW
    relative = tuple(exponent(v) - top for v in inputs)
    if any(not isinstance(v, Law) for v in inputs) or max(relative) > 0:
        raise NotImplementedError("a function of several tensors, one of them beyond 2^200 or below 2^-200")
    degree = _degree(fn, inputs, relative, end)
    whole = math.floor(degree * top)
    factor = 2.0 ** (degree * top - whole - degree * end)

    def far(*values: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.asarray(fn(*[np.ldexp(v, end) for v in values]), float) * factor

    return _with(_changed(node, fn=far), inputs, relative, whole)


def _degree(fn: Callable[..., np.ndarray], inputs: tuple[Value, ...], relative: tuple[int, ...], end: int) -> float:
    """d where f(2^k x) goes as 2^(d k): for ReLU 1, for tanh 0 far out and 1 near zero."""
    z = np.linspace(-4, 4, 81)[:: 1 if len(inputs) == 1 else 7]
    rows = [np.ldexp(np.interp(z, (-4, 4), (float(v.values.min()), float(v.values.max()))), k)
            for v, k in zip((v for v in inputs if isinstance(v, Law)), relative, strict=True)]  # fmt: skip
    points = np.meshgrid(*rows)
    near = end * FAR // WINDOW
    with np.errstate(all="ignore"):
        a, b = (np.asarray(fn(*[np.ldexp(p, e) for p in points]), float) for e in (end, near))
    size_a, size_b = np.abs(a).max(), np.abs(b).max()
    if size_a == size_b == 0:
        return 0.0
    if not (0 < size_a < np.inf and 0 < size_b < np.inf):
        raise NotImplementedError("a function that is no power law at 2^200")
    degree = round(12 * (math.log2(size_a) - math.log2(size_b)) / (end - near)) / 12
    if not np.allclose(b * 2.0 ** (degree * (end - near)), a, rtol=1e-6, atol=1e-6 * size_a):
        raise NotImplementedError("a function that is no power law at 2^200")
    return degree


def _changed(node: Node, **attrs) -> Node:
    return replace(node, attrs={**node.attrs, **attrs})


KINDS: dict[Kind, Callable[[Node, tuple[Value, ...]], Scaled]] = {
    Kind.DENSE: _linear,
    Kind.CONV: _linear,
    Kind.EXPERTS: _linear,
    Kind.POINTWISE: _pointwise,
    Kind.SUM: _sum,
    Kind.PRODUCT: _product,
    Kind.MIX: _product,
    Kind.NORM: _norm,
    Kind.SOFTMAX: _clipped,
    Kind.ATTENTION: _attention,
    Kind.POOL: _homogeneous,
    Kind.REDUCE: _reduce,
    Kind.MOVE: _move,
    Kind.DROP: _drop,
    Kind.ROUTE: _homogeneous,
}


RANGE = {"float64": (1024, -1074), "float32": (128, -149), "bfloat16": (128, -133), "float16": (16, -24)}
"""Of each type the power of two that is too large, and that of the smallest positive number."""


def held(number: float, power: int, dtype: str) -> tuple[float, str]:
    """number 2^power as a tensor of that type would hold it, and what is to be said of it where it cannot."""
    if number == 0 or not math.isfinite(number):
        return number, ""
    largest, smallest = RANGE.get(dtype, RANGE["float64"])
    size = math.log2(abs(number)) + power
    true = f"the rms is 1e{size * math.log10(2):.1f}"
    if size >= largest:
        return math.copysign(math.inf, number), f"overflows {dtype}: {true}"
    if size < smallest - 1:
        return 0.0, f"underflows {dtype}: {true}"
    return math.ldexp(number, power), ""


__all__ = ["Scaled", "exponent", "held", "rescaled", "settled", "times"]
