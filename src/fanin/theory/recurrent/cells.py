"""The cells, a unit at a time: from what weights bring to a unit to its new state, and the same in reverse.

Arrays are (2, units), or (gates, 2, units): two samples see the same unit. ``x`` is what the input brings to each gate,
biases included, ``h`` what the last state brings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Array = np.ndarray
State = tuple[Array, ...]


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x)."""
    return 0.5 * (1 + np.tanh(0.5 * x))


@dataclass(frozen=True)
class Cell:
    """A cell.

    Attributes:
        gates: number of weighted sums a unit.
        forward: (x, h, state) -> (new state, what backward needs); the first entry of a state is the unit's output.
        backward: (gradient of the output, gradients carried from the next step, saved) ->
            (gradient of x, gradient of h, gradients of the state before).
    """

    gates: int
    states: int
    forward: Callable[[Array, Array, State], tuple[State, tuple]]
    backward: Callable[[Array, State, tuple], tuple[Array, Array, State]]


def _lstm(x: Array, h: Array, state: State) -> tuple[State, tuple]:
    i, f, o = (sigmoid(x[k] + h[k]) for k in (0, 1, 3))
    g = np.tanh(x[2] + h[2])
    c = f * state[1] + i * g
    t = np.tanh(c)
    return (o * t, c), (i, f, g, o, t, state[1])


def _lstm_back(gm: Array, carried: State, saved: tuple) -> tuple[Array, Array, State]:
    i, f, g, o, t, before = saved
    gc = gm * o * (1 - t**2) + carried[1]
    ga = np.stack([gc * g * i * (1 - i), gc * before * f * (1 - f), gc * i * (1 - g**2), gm * t * o * (1 - o)])
    return ga, ga, (np.zeros_like(gm), gc * f)


def _gru(x: Array, h: Array, state: State) -> tuple[State, tuple]:
    r, z = sigmoid(x[0] + h[0]), sigmoid(x[1] + h[1])
    n = np.tanh(x[2] + r * h[2])
    return ((1 - z) * n + z * state[0],), (r, z, n, h[2], state[0])


def _gru_back(gm: Array, carried: State, saved: tuple) -> tuple[Array, Array, State]:
    r, z, n, hn, before = saved
    g = gm + carried[0]
    gn = g * (1 - z) * (1 - n**2)
    gr, gz = gn * hn * r * (1 - r), g * (before - n) * z * (1 - z)
    return np.stack([gr, gz, gn]), np.stack([gr, gz, gn * r]), (g * z,)


def _plain(fn: Callable[[Array], Array], slope: Callable[[Array], Array]) -> Cell:
    def forward(x: Array, h: Array, state: State) -> tuple[State, tuple]:
        y = fn(x[0] + h[0])
        return (y,), (y,)

    def backward(gm: Array, carried: State, saved: tuple) -> tuple[Array, Array, State]:
        ga = (gm * slope(saved[0]))[None]
        return ga, ga, (np.zeros_like(gm),)

    return Cell(1, 1, forward, backward)


CELLS: dict[str, Cell] = {
    "lstm": Cell(4, 2, _lstm, _lstm_back),
    "gru": Cell(3, 1, _gru, _gru_back),
    "rnn_tanh": _plain(np.tanh, lambda y: 1 - y**2),
    "rnn_relu": _plain(lambda a: np.maximum(a, 0), lambda y: (y > 0).astype(y.dtype)),
}
"""By the front ends' names; gates in PyTorch's order: i f g o, and r z n."""
