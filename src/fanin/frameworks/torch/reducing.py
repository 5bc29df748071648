"""Rows of the table that leave fewer places: pools, means, sums, maxima, the largest few."""

from __future__ import annotations

from fanin.frameworks.torch.arguments import Arguments, Built, Row
from fanin.frameworks.torch.elementwise import pointwise
from fanin.graph import Kind


def _pool(op: str, dims: int) -> Row:
    def build(a: Arguments) -> Built:
        tuple_ = lambda v: tuple(v) if len(v) == dims else tuple(v) * dims  # noqa: E731
        kernel = tuple_(a["kernel_size"])
        return Kind.POOL, {
            "op": op,
            "kernel": kernel,
            "stride": tuple_(a["stride"]) if a["stride"] else kernel,
            "padding": tuple_(a["padding"]),
            "dilation": tuple_(a.get("dilation") or [1]),
            "count_pad": bool(a.get("count_include_pad", True)),
            "input_size": a.size("self")[-dims:],
        }

    return build


def _adaptive(op: str, dims: int) -> Row:
    def build(a: Arguments) -> Built:
        size, out = a.size("self")[-dims:], a.shape[-dims:]
        if all(n == 1 for n in out):
            rank = len(a.size("self"))
            return Kind.REDUCE, {"op": op, "axes": tuple(range(rank - dims, rank)), "keepdim": True}
        stride = tuple(max(n // m, 1) for n, m in zip(size, out, strict=True))
        kernel = tuple(n - (m - 1) * s for n, m, s in zip(size, out, stride, strict=True))
        return Kind.POOL, {
            "op": op, "kernel": kernel, "stride": stride, "padding": (0,) * dims, "dilation": (1,) * dims,
            "count_pad": True, "input_size": size,
        }  # fmt: skip

    return build


OF_ONE = ("mean", "sum", "max", "min")
"""What is the element itself where there is one."""


def single(size: tuple[int, ...], axes: tuple[int, ...]) -> bool:
    """Whether a reduction over axes (all of them, where none is named) meets one element."""
    return all(size[d] == 1 for d in axes or range(len(size)))


def _reduce(op: str) -> Row:
    def build(a: Arguments) -> Built:
        dims = a.get("dim")
        axes = () if dims is None else tuple(dims) if isinstance(dims, list | tuple) else (int(dims),)
        if op in OF_ONE and single(a.size("self"), axes):
            return Kind.MOVE, {"how": "reshape"}
        correction = a.get("correction", 1 if a.get("unbiased", True) else 0)
        return Kind.REDUCE, {
            "op": op,
            "axes": axes,
            "keepdim": bool(a.get("keepdim", False)),
            "correction": 1 if correction is None else float(correction),
        }

    return build


def _extreme(op: str) -> Row:
    """Of two tensors, element by element, or of all elements of one."""
    return lambda a: pointwise(a) if "other" in a.names else _reduce(op)(a)


def _topk(a: Arguments) -> Built:
    return Kind.ROUTE, {"axis": int(a.get("dim", -1)), "largest": bool(a.get("largest", True))}


def _sorted(a: Arguments) -> Built:
    return Kind.ROUTE, {"axis": int(a.get("dim", -1)), "largest": bool(a.get("descending", False))}


REDUCING: dict[str, Row] = {
    **{f"max_pool{d}d": _pool("max", d) for d in (1, 2, 3)},
    **{f"avg_pool{d}d": _pool("mean", d) for d in (1, 2, 3)},
    **{f"adaptive_avg_pool{d}d": _adaptive("mean", d) for d in (1, 2, 3)},
    **{f"adaptive_max_pool{d}d": _adaptive("max", d) for d in (1, 2, 3)},
    **{name: _reduce(name) for name in ("mean", "sum", "var", "std")},
    "max": _extreme("max"),
    "min": _extreme("min"),
    "amax": _reduce("max"),
    "amin": _reduce("min"),
    "topk": _topk,
    "sort": _sorted,
}
"""A pool over a whole map is a reduction."""
