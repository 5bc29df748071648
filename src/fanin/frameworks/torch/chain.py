"""Several nodes for one operation: links that run one after another, of which the last is the operation's own tensor.

The ones before carry no row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fanin.graph import Kind

if TYPE_CHECKING:
    from fanin.frameworks.torch.arguments import Arguments

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
        shape = resized(self.shapes[x], axis, stop - start)
        attrs = {"how": "slice", "axis": axis, "start": start, "stop": stop, "step": 1}
        return self.add(Kind.MOVE, attrs, [x], shape, lambda v: v[(slice(None),) * axis + (slice(start, stop),)])

    def gather(self, x: int, axis: int, index: np.ndarray) -> int:
        shape = resized(self.shapes[x], axis, len(index))
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
            shape = resized(shape, axis, len(m))
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


def resized(shape: Shape, axis: int, n: int) -> Shape:
    return (*shape[:axis], n, *shape[axis + 1 :])
