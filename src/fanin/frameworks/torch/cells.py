"""Cells called step by step (``LSTMCell``, ``GRUCell``, ``RNNCell``) as two dense layers and gates.

In a loop the same weights act at every call; what they make at two steps is alike as of any layer that is run again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from fanin.frameworks.torch.chain import Chain
from fanin.graph import Kind

if TYPE_CHECKING:
    from fanin.frameworks.torch.arguments import Arguments


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(x, float)))


def _shut(x: np.ndarray) -> np.ndarray:
    return 1.0 - np.asarray(x, float)


def _tanh(x: np.ndarray) -> np.ndarray:
    return np.tanh(np.asarray(x, float))


def _relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(np.asarray(x, float), 0.0)


class _Step:
    """One call: what a chain is made of, and where the states are."""

    def __init__(self, a: Arguments):
        self.a, self.chain = a, Chain(a)
        hx = a["hx"]
        self.states = [a.refs.index(h.id) for h in (hx if isinstance(hx, list | tuple) else [hx])]

    def sums(self, gates: int) -> tuple[list[int], list[int]]:
        """What every gate hears of the input, and of the state."""
        found = (self._dense(self.a.given("input"), "ih"), self._dense(self.states[0], "hh"))
        width = self.chain.shapes[found[0]][-1] // gates
        axis = len(self.chain.shapes[found[0]]) - 1
        cut = lambda x: [self.chain.slice(x, axis, k * width, (k + 1) * width) for k in range(gates)]  # noqa: E731
        return (cut(found[0]), cut(found[1])) if gates > 1 else ([found[0]], [found[1]])

    def _dense(self, x: int, name: str) -> int:
        weight, bias = self.a.given(f"w_{name}"), self.a.at(f"b_{name}")
        inputs = [x, weight] if bias is None else [x, weight, self.a.given(f"b_{name}")]
        attrs = {"x": 0, "weight": 1, "bias": None if bias is None else 2, "out_first": True}
        shape = (*self.chain.shapes[x][:-1], self.chain.shapes[weight][0])
        return self.chain.add(Kind.DENSE, attrs, inputs, shape, _dense)

    def plus(self, x: int, y: int, **attrs: bool) -> int:
        return self.chain.add(Kind.SUM, attrs, [x, y], self.chain.shapes[x], np.add)

    def times(self, x: int, y: int) -> int:
        return self.chain.add(Kind.PRODUCT, {}, [x, y], self.chain.shapes[x], np.multiply)

    def gate(self, x: int, y: int, fn: Callable = _sigmoid) -> int:
        return self.chain.map(self.plus(x, y), fn)


def _dense(x: np.ndarray, w: np.ndarray, b: np.ndarray | float = 0.0) -> np.ndarray:
    return np.asarray(x, float) @ np.asarray(w, float).T + b


def gru(a: Arguments) -> Chain:
    """``(1 - z) tanh(W x + r U h) + z h``."""
    s = _Step(a)
    (xr, xz, xn), (hr, hz, hn) = s.sums(3)
    r, z = s.gate(xr, hr), s.gate(xz, hz)
    n = s.gate(xn, s.times(r, hn), _tanh)
    s.plus(s.times(s.chain.map(z, _shut), n), s.times(z, s.states[0]))
    return s.chain


def plain(fn: Callable) -> Callable[[Arguments], Chain]:
    """``fn(W x + U h)``."""

    def row(a: Arguments) -> Chain:
        s = _Step(a)
        (x,), (h,) = s.sums(1)
        s.gate(x, h, fn)
        return s.chain

    return row


def lstm(index: int) -> Callable[[Arguments], Chain]:
    """The output ``o tanh(c)``, or the cell ``f c + i g``.

    Each is a chain of its own: the cell lacks what comes back from the output of its step, and its row has no gradient.
    """

    def row(a: Arguments) -> Chain:
        s = _Step(a)
        (xi, xf, xg, xo), (hi, hf, hg, ho) = s.sums(4)
        i, f, g = s.gate(xi, hi), s.gate(xf, hf), s.gate(xg, hg, _tanh)
        o = None if index else s.gate(xo, ho)
        c = s.plus(s.times(f, s.states[1]), s.times(i, g), **({"partial": True} if index else {}))
        if o is not None:
            s.times(o, s.chain.map(c, _tanh))
        return s.chain

    return row


CELLS: dict[str, Callable[[Arguments], Chain]] = {
    "gru_cell": gru,
    "rnn_tanh_cell": plain(_tanh),
    "rnn_relu_cell": plain(_relu),
    "lstm_cell/0": lstm(0),
    "lstm_cell/1": lstm(1),
}
"""Rows of the table: operation and output."""
