"""Rows of the table that only say where elements go: views, transposes, slices, joins, padding, picks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fanin.frameworks.torch.arguments import Arguments, Built, Row, Step, op_name
from fanin.frameworks.torch.chain import Chain
from fanin.frameworks.torch.program import Ref
from fanin.graph import Kind


def _how(how: str, **attrs: Any) -> Row:
    return lambda a: (Kind.MOVE, {"how": how, **attrs})


def _view(a: Arguments) -> Built:
    if isinstance(a.get("dtype"), torch.dtype):
        raise TypeError("the same bytes read as numbers of another type")
    return Kind.MOVE, {"how": "reshape"}


def _permute(a: Arguments) -> Built:
    rank = len(a.size("self"))
    return Kind.MOVE, {"how": "permute", "perm": tuple(int(d) % rank for d in a["dims"])}


def _transpose(a: Arguments) -> Built:
    rank = len(a.size("self"))
    perm = list(range(rank))
    if rank >= 2:
        first, second = next((n for n in (("dim0", "dim1"), ("axis0", "axis1")) if n[0] in a._values), ("", ""))
        i, j = (int(a[first]) % rank, int(a[second]) % rank) if first else (0, 1)
        perm[i], perm[j] = perm[j], perm[i]
    return Kind.MOVE, {"how": "permute", "perm": tuple(perm)}


def _turned(a: Arguments) -> Built:
    rank = len(a.size("self"))
    return Kind.MOVE, {"how": "permute", "perm": (*range(rank - 2), rank - 1, rank - 2)}


def _movedim(a: Arguments) -> Built:
    rank = len(a.size("self"))
    listed = lambda v: [int(d) % rank for d in (v if isinstance(v, list | tuple) else [v])]  # noqa: E731
    target = dict(zip(listed(a["destination"]), listed(a["source"]), strict=True))
    rest = iter(d for d in range(rank) if d not in target.values())
    return Kind.MOVE, {"how": "permute", "perm": tuple(target[i] if i in target else next(rest) for i in range(rank))}


def _gather(a: Arguments) -> Built:
    return Kind.MOVE, {"how": "take", "axis": int(a["dim"]) % len(a.size("self")), "index": a.at("index")}


def _slice(a: Arguments) -> Built:
    size = a.size("self")
    axis = int(a.get("dim") or 0) % len(size)
    start, stop, step = slice(a.get("start"), a.get("end"), a.get("step") or 1).indices(size[axis])
    return Kind.MOVE, {"how": "slice", "axis": axis, "start": start, "stop": stop, "step": step}


def _narrow(a: Arguments) -> Built:
    axis, start = int(a["dim"]), int(a["start"])
    return Kind.MOVE, {"how": "slice", "axis": axis, "start": start, "stop": start + int(a["length"]), "step": 1}


def _select(a: Arguments) -> Built:
    size = a.size("self")
    axis = int(a["dim"]) % len(size)
    return Kind.MOVE, {"how": "select", "axis": axis, "index": int(a["index"]) % max(size[axis], 1)}


def _cat(how: str) -> Row:
    def build(a: Arguments) -> Built:
        attrs = {"how": how, "axis": int(a.get("dim") or 0)}
        handles = [a.refs.index(t.id) for t in a["tensors"]]
        if len(handles) == len(a.refs):
            return Kind.MOVE, attrs
        chain = Chain(a)  # one tensor several times
        join = np.concatenate if how == "cat" else np.stack
        chain.add(Kind.MOVE, attrs, handles, a.shape, lambda *v: join(v, axis=attrs["axis"]))
        return chain

    return build


def _pad(a: Arguments) -> Built:
    rank = len(a.size("self"))
    flat = [int(p) for p in (a.get("pad") or a.get("padding"))]
    widths = [(0, 0)] * rank
    for i in range(len(flat) // 2):
        widths[rank - 1 - i] = (flat[2 * i], flat[2 * i + 1])
    named = op_name(a.step.target).partition("_pad")[0]  # replication_pad1d and its like say it in their name
    said = {"replication": "replicate", "reflection": "reflect"}.get(named) or a.get("mode")
    mode = said or ("constant" if "value" in a._values else "reflect")
    value = float(a.get("value") or 0.0) if mode == "constant" else None
    return Kind.MOVE, {"how": "pad", "widths": tuple(widths), "value": value, "mode": mode}


def _flip(a: Arguments) -> Built:
    rank = len(a.size("self"))
    return Kind.MOVE, {"how": "flip", "axes": tuple(int(d) % rank for d in a["dims"])}


def _roll(a: Arguments) -> Built:
    rank = len(a.size("self"))
    return Kind.MOVE, {"how": "roll", "axes": tuple(int(d) % rank for d in a["dims"]), "shifts": tuple(a["shifts"])}


def _index(a: Arguments) -> Built:
    given = [(d, i) for d, i in enumerate(a["indices"]) if isinstance(i, Ref)]
    return Kind.MOVE, {
        "how": "index",
        "axes": tuple(d for d, _ in given),
        "positions": tuple(a.refs.index(i.id) for _, i in given),
    }


def _index_select(a: Arguments) -> Built:
    axis = int(a["dim"]) % len(a.size("self"))
    return Kind.MOVE, {"how": "index", "axes": (axis,), "positions": (a.at("index"),)}


MOVING: dict[str, Row] = {
    "view": _view,
    **dict.fromkeys(
        ("reshape", "flatten", "unflatten", "unsqueeze", "squeeze", "_unsafe_view", "view_as", "reshape_as", "ravel"),
        _how("reshape"),
    ),
    **dict.fromkeys(
        (
            "contiguous",
            "clone",
            "to",
            "alias",
            "lift_fresh_copy",
            "_to_copy",
            "type_as",
            "lift_fresh",
            "real",
        ),
        _how("same"),
    ),
    **dict.fromkeys(("detach", "detach_"), _how("same", detached=True)),
    "view_as_complex": _how("parts"),
    "view_as_real": _how("whole"),
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), _how("expand")),
    "permute": _permute,
    **dict.fromkeys(("transpose", "t", "swapaxes", "swapdims"), _transpose),
    **dict.fromkeys(("mT", "mH", "matrix_H", "adjoint"), _turned),
    **dict.fromkeys(("movedim", "moveaxis"), _movedim),
    "numpy_T": lambda a: (Kind.MOVE, {"how": "permute", "perm": tuple(reversed(range(len(a.size("self")))))}),
    "slice": _slice,
    "narrow": _narrow,
    "select": _select,
    **dict.fromkeys(("cat", "concat", "concatenate"), _cat("cat")),
    "stack": _cat("stack"),
    **dict.fromkeys(("pad", "constant_pad_nd"), _pad),
    **{f"{mode}_pad{d}d": _pad for mode in ("replication", "reflection") for d in (1, 2, 3)},
    "flip": _flip,
    "roll": _roll,
    "index": _index,
    "index_select": _index_select,
    "gather": _gather,
}
"""Copies and changes of type move nothing."""

SPLITS = ("split", "split_with_sizes", "chunk", "unbind", "tensor_split", "unsafe_split", "unsafe_chunk")


def split_piece(step: Step, op: str, index: int, shape: tuple[int, ...]) -> dict[str, Any]:
    """One piece of a split as a slice or a selection."""
    axis = int(
        (step.args[2] if len(step.args) > 2 else step.kwargs.get("dim", 0))
        if op != "unbind"
        else (step.args[1] if len(step.args) > 1 else 0)
    )
    axis %= len(shape)
    if op == "unbind":
        return {"how": "select", "axis": axis, "index": index}
    sizes = [v.shape[axis] for v in step.value]
    start = sum(sizes[:index])
    return {"how": "slice", "axis": axis, "start": start, "stop": start + sizes[index], "step": 1}
