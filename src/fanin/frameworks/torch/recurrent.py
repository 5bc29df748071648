"""Recurrent layers of ATen as chains: one RECUR a layer and direction, joined by what the module does between them.

Each of the outputs (every step, the last output, an LSTM's last cell) is a chain of its own over the same weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fanin.frameworks.torch.cells import CELLS
from fanin.frameworks.torch.chain import Chain
from fanin.graph import Kind

if TYPE_CHECKING:
    from fanin.frameworks.torch.arguments import Arguments

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
"""The operations, and the weighted sums a unit."""


def recurrent(a: Arguments, cell: str, index: int) -> Chain:
    """Output ``index`` of a recurrent layer.

    Raises:
        KeyError: the data of a packed sequence, whose samples differ in length.
    """
    if "input" not in a.names:
        raise KeyError("input")
    layers = _Layers(a, cell)
    return (layers.outputs, layers.last_outputs, layers.last_cells)[index]()


def _not_run(*arrays: np.ndarray) -> np.ndarray:
    raise NotImplementedError("a recurrent layer whose weights are all known")


class _Layers:
    """The layers of one call, bottom up."""

    def __init__(self, a: Arguments, cell: str):
        self.a, self.cell, self.chain = a, cell, Chain(a)
        self.both = 2 if a["bidirectional"] else 1
        hx = a["hx"]
        self.first = [a.refs.index(h.id) for h in (hx if isinstance(hx, list | tuple) else [hx])]
        self.weights = [a.refs.index(p.id) for p in a["params"]]
        self.each = len(self.weights) // (int(a["num_layers"]) * self.both)
        self.batched = len(a.size("input")) > 2
        self.time = 1 if a["batch_first"] and self.batched else 0
        self.x = a.given("input")
        self.lengths = tuple(a.get("lengths") or ())
        if self.lengths and a.size("input")[self.time] > max(self.lengths):
            self.x = self.chain.slice(self.x, self.time, 0, max(self.lengths))

    def outputs(self) -> Chain:
        """Every step of the top layer."""
        for layer in range(int(self.a["num_layers"])):
            self._layer(layer)
        return self.chain

    def last_outputs(self) -> Chain:
        """The last output of every layer and direction."""
        found = []
        for layer in range(int(self.a["num_layers"])):
            if self.lengths:
                found += [self._recur(self.x, layer, k, "last") for k in range(self.both)]
                if layer + 1 < int(self.a["num_layers"]):
                    self._layer(layer)
                continue
            for k, out in enumerate(self._layer(layer)):
                found.append(self._at(out, self.time, 0 if k else self.chain.shapes[out][self.time] - 1))
        return self._stacked(found)

    def last_cells(self) -> Chain:
        """The last cell of every layer and direction of an LSTM.

        Raises:
            KeyError: sequences of unlike length.
        """
        if len(set(self.lengths)) > 1:
            raise KeyError("lengths")
        found = []
        for layer in range(int(self.a["num_layers"])):
            x = self.x
            found += [self._recur(x, layer, k, "cell") for k in range(self.both)]
            if layer + 1 < int(self.a["num_layers"]):
                self._layer(layer)
        return self._stacked(found)

    def _layer(self, layer: int) -> list[int]:
        """Both directions of a layer; what the next one reads is left in ``x``."""
        outs = [self._recur(self.x, layer, k, "output") for k in range(self.both)]
        self.x = outs[0]
        if self.both == 2:
            shape = self.chain.shapes[outs[0]]
            wide = (*shape[:-1], 2 * shape[-1])
            join = {"how": "cat", "axis": len(shape) - 1}
            self.x = self.chain.add(Kind.MOVE, join, outs, wide, lambda *v: np.concatenate(v, -1))
        dropout = float(self.a["dropout"]) if self.a["train"] else 0.0
        if dropout and layer + 1 < int(self.a["num_layers"]):
            attrs = {"p": dropout, "active": True, "feature": False, "alpha": False}
            self.x = self.chain.add(Kind.DROP, attrs, [self.x], self.chain.shapes[self.x], _not_run)
        return outs

    def _recur(self, x: int, layer: int, direction: int, piece: str) -> int:
        k = layer * self.both + direction
        mine = self.weights[k * self.each : (k + 1) * self.each]
        states = [self._at(h, 0, k) for h in self.first]
        names = ["w_ih", "w_hh", *(("b_ih", "b_hh") if self.a["has_biases"] else ())]
        at: dict[str, Any] = {name: 1 + i for i, name in enumerate(names)}
        at |= {name: at.get(name) for name in ("b_ih", "b_hh")}
        at["w_hr"] = self.each if len(names) < self.each else None
        attrs = {
            **at,
            "cell": self.cell,
            "gates": GATES[self.cell],
            "time": self.time,
            "reverse": bool(direction),
            "piece": piece,
            "initial": tuple(range(1 + self.each, 1 + self.each + len(states))),
        }
        if len(set(self.lengths)) > 1 or piece == "last":
            attrs["lengths"] = self.lengths
        size, shapes = self.chain.shapes[x], self.chain.shapes
        state = shapes[states[1 if piece == "cell" else 0]]
        shape = (*size[:-1], state[-1]) if piece == "output" else state
        return self.chain.add(Kind.RECUR, attrs, [x, *mine, *states], shape, _not_run)

    def _at(self, x: int, axis: int, index: int) -> int:
        size = self.chain.shapes[x]
        attrs = {"how": "select", "axis": axis, "index": index}
        return self.chain.add(Kind.MOVE, attrs, [x], size[:axis] + size[axis + 1 :], lambda v: np.take(v, index, axis))

    def _stacked(self, found: list[int]) -> Chain:
        shape = (len(found), *self.chain.shapes[found[0]])
        self.chain.add(Kind.MOVE, {"how": "stack", "axis": 0}, found, shape, lambda *v: np.stack(v))
        return self.chain


def _recurrent(cell: str, index: int) -> Callable[[Arguments], Chain]:
    return lambda a: recurrent(a, cell, index)


def packed_rows(a: Arguments) -> Chain:
    """The rows of packed data: places of the padded tensor, in the order of time."""
    chain, size = Chain(a), a.size("input")
    lengths, first = a["lengths"], a["batch_first"]
    valid = np.arange(max(lengths))[:, None] < np.array(lengths)
    step, sample = np.nonzero(valid)
    index = sample * size[1] + step if first else step * size[1] + sample
    chain.gather(chain.reshape(a.given("input"), (size[0] * size[1], *size[2:])), 0, index)
    return chain


RECURRENT: dict[str, Callable[[Arguments], Chain]] = {
    f"{cell}/{i}": _recurrent(cell, i) for cell in GATES for i in range(3 if cell == "lstm" else 2)
}
RECURRENT |= {f"packed_{name}": row for name, row in RECURRENT.items()} | {"pack": packed_rows}
RECURRENT |= CELLS
"""Rows of the table: operation and output."""
