"""Operations that write one tensor into another: slices as concatenations, everything else as a write at places."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fanin.frameworks.torch.chain import Chain
from fanin.frameworks.torch.program import Ref
from fanin.graph import Kind

if TYPE_CHECKING:
    from fanin.frameworks.torch.arguments import Arguments


def slice_scatter(a: Arguments) -> Chain | tuple[Kind, dict]:
    """x with src in x[start:end:step] along an axis: what is before, src, what is after."""
    size = a.size("self")
    axis = int(a.get("dim") or 0) % len(size)
    start, stop, step = slice(a.get("start"), a.get("end"), a.get("step") or 1).indices(size[axis])
    if step == 1:
        return _spliced(a, axis, start, max(stop, start))
    places = np.arange(size[axis])[start:stop:step]
    return Kind.MOVE, {"how": "put", "axes": (axis,), "index": (places,), "source": a.given("src")}


def select_scatter(a: Arguments) -> Chain:
    """x with src in x[index] along an axis."""
    size = a.size("self")
    axis = int(a["dim"]) % len(size)
    index = int(a["index"]) % size[axis]
    return _spliced(a, axis, index, index + 1)


def _spliced(a: Arguments, axis: int, start: int, stop: int) -> Chain:
    chain, size = Chain(a), a.size("self")
    x, middle = a.given("self"), a.given("src")
    wide = (*size[:axis], stop - start, *size[axis + 1 :])
    if chain.shapes[middle] != wide:
        middle = chain.reshape(middle, wide)
    pieces = [chain.slice(x, axis, 0, start)] if start else []
    pieces.append(middle)
    pieces += [chain.slice(x, axis, stop, size[axis])] if stop < size[axis] else []
    if len(pieces) == 1:
        chain.reshape(middle, size)
        return chain
    attrs = {"how": "cat", "axis": axis}
    chain.add(Kind.MOVE, attrs, pieces, size, lambda *v: np.concatenate(v, axis))
    return chain


def index_put(a: Arguments) -> tuple[Kind, dict]:
    """x[indices] = values, or += where accumulated."""
    given = [(d, i) for d, i in enumerate(a["indices"]) if isinstance(i, Ref)]
    return Kind.MOVE, {
        "how": "put",
        "axes": tuple(d for d, _ in given),
        "index": tuple(a.refs.index(i.id) for _, i in given),
        "source": a.given("values"),
        "add": bool(a.get("accumulate", False)),
    }


def along(source: str, *, add: bool = False) -> Callable[[Arguments], Any]:
    """index_copy, index_add, index_fill: one list of places along an axis."""

    def build(a: Arguments) -> tuple[Kind, dict]:
        axis = int(a["dim"]) % len(a.size("self"))
        if a.get("alpha", 1) != 1:
            raise TypeError("a factor on what is added")
        return Kind.MOVE, {
            "how": "put", "axes": (axis,), "index": (a.given("index"),), "source": _source(a, source), "add": add,
        }  # fmt: skip

    return build


def _source(a: Arguments, name: str) -> int | float:
    """Position of what is written among the inputs, or the number itself."""
    position = a.at(name)
    return position if position is not None else float(a[name])


def scatter(a: Arguments) -> tuple[Kind, dict]:
    """x with src at places of its own along an axis, element by element."""
    reduce = a.get("reduce")
    if reduce not in (None, "add", "sum"):
        raise TypeError(f"a scatter that takes the {reduce}")
    name = "src" if "src" in a.names else "value"
    axis = int(a["dim"]) % len(a.size("self"))
    source: Any = _source(a, name)
    if isinstance(source, float):
        return Kind.MOVE, {"how": "put", "along": axis, "index": (a.given("index"),), "value": source}
    return Kind.MOVE, {
        "how": "put", "along": axis, "index": (a.given("index"),), "source": source, "add": reduce is not None,
    }  # fmt: skip


def scatter_add(a: Arguments) -> tuple[Kind, dict]:
    """x plus src at places of its own along an axis."""
    kind, attrs = scatter(a)
    return kind, {**attrs, "add": True}


def scatter_reduce(a: Arguments) -> Chain | tuple[Kind, dict]:
    """x with sums or means, beside what is there, of src at places of its own along an axis."""
    if a["reduce"] == "sum" and a.get("include_self", True):
        return scatter_add(a)
    if a["reduce"] not in ("sum", "mean"):
        raise TypeError(f"a scatter that takes the {a['reduce']}")
    chain, axis, own = Chain(a), int(a["dim"]) % len(a.size("self")), bool(a.get("include_self", True))
    x, index, source = a.given("self"), a.given("index"), a.given("src")

    def put(total: np.ndarray, i: np.ndarray, what: np.ndarray | float) -> np.ndarray:
        total, to = np.array(total, float), np.asarray(i, np.int64)
        at = tuple(to if d == axis else grid for d, grid in enumerate(np.indices(to.shape)))
        np.add.at(total, at, what if isinstance(what, float) else np.asarray(what)[tuple(slice(n) for n in to.shape)])
        return total

    def times(i: np.ndarray) -> np.ndarray:
        return put(np.zeros(a.shape), i, 1.0)

    if not own:  # what is there counts where nothing comes
        kept = lambda i: (times(i) == 0).astype(float)  # noqa: E731
        mask = chain.add(Kind.POINTWISE, {"fn": kept}, [index], a.shape, kept)
        x = chain.add(Kind.PRODUCT, {}, [x, mask], a.shape, np.multiply)
    attrs = {"how": "put", "along": axis, "index": (1,), "source": 2, "add": True}
    total = chain.add(Kind.MOVE, attrs, [x, index, source], a.shape, put)
    if a["reduce"] == "mean":
        count = lambda i: np.maximum(times(i) + own, 1.0)  # noqa: E731
        sizes = chain.add(Kind.POINTWISE, {"fn": count}, [index], a.shape, count)
        chain.add(Kind.POINTWISE, {"fn": np.divide}, [total, sizes], a.shape, np.divide)
    return chain


def masked_scatter(a: Arguments) -> tuple[Kind, dict]:
    """x with the elements of source, in order, where a mask is true."""
    return Kind.MOVE, {"how": "put", "mask": a.given("mask"), "source": a.given("source")}


def fill(a: Arguments) -> Chain:
    """A number everywhere."""
    chain = Chain(a)
    if a.at("value") is not None:
        chain.expand(a.given("value"), a.shape)
        return chain
    chain.constant(np.broadcast_to(np.asarray(a.get("value", 0.0), float), a.shape))
    return chain


def masked_fill(a: Arguments) -> tuple[Kind, dict]:
    """x with one number where a mask is true; the number may be a tensor of its own."""
    if a.at("value") is None:
        from fanin.frameworks.torch.arguments import numpy_function

        return Kind.POINTWISE, {"fn": numpy_function(a.step, a.booleans)}
    order = [a.given(name) for name in ("self", "mask", "value")]

    def fill_in(*arrays: np.ndarray) -> np.ndarray:
        x, mask, value = (arrays[i] for i in order)
        return np.where(np.asarray(mask) > 0.5, value, x)

    return Kind.POINTWISE, {"fn": fill_in}
