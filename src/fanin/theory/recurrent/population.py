"""A recurrent layer as a population of units, each driven by Gaussian processes with the population's own moments.

With random weights of many units, what reaches a unit's gates at all times is Gaussian over units, with the covariance
``Var(W_ih) n_in E[x x'] + Var(W_hh) n E[h h']`` between any two steps and samples: the weights are the same at every
step, so steps correlate. Units that follow this law are simulated one step after another, since the covariance of the
next step needs the moments of those before. Biases are one number a unit and gate, at all times.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from weakref import WeakValueDictionary

import numpy as np

from fanin.theory import grid
from fanin.theory.recurrent.cells import CELLS, Cell
from fanin.theory.recurrent.process import Process, all_moments, moments, standard, window

ELEMENTS, UNITS = 1 << 18, (1024, 4096)


@dataclass(frozen=True)
class Kernel:
    """Mean products of a tensor between steps, summed over its features: (steps, steps) each."""

    within: np.ndarray
    across: np.ndarray

    def flipped(self) -> Kernel:
        """In the other direction of time."""
        return Kernel(self.within[::-1, ::-1], self.across[::-1, ::-1])

    def scaled(self, factor: float) -> Kernel:
        """Times a number."""
        return Kernel(factor * self.within, factor * self.across)

    def __add__(self, other: Kernel) -> Kernel:
        return Kernel(self.within + other.within, self.across + other.across)


@dataclass(frozen=True)
class Layer:
    """One layer in one direction.

    Attributes:
        cell: a key of ``CELLS``.
        x: kernel of the input, in the order in which it is read.
        w_ih, w_hh: mean squares of the weights.
        hidden: number of units; ``projected`` that of the output, and ``w_hr`` the mean square of the projection.
        biases: b_ih and b_hh, their laws' values on the grid, a gate each.
        initial: the states before the first step: (mean, mean square, mean product of two samples), output first.
    """

    cell: str
    x: Kernel
    w_ih: float
    w_hh: float
    hidden: int
    projected: int | None
    w_hr: float
    biases: tuple[np.ndarray, ...]
    initial: tuple[tuple[float, float, float], ...]

    @property
    def steps(self) -> int:
        """Length of the sequence."""
        return len(self.x.within)

    @property
    def gain(self) -> float:
        """From mean products of units to sums over the output's features."""
        return self.w_hr * self.hidden * self.projected if self.projected else float(self.hidden)


@dataclass(frozen=True, eq=False)
class Population:
    """What the units did.

    Attributes:
        states: (steps + 1, 2, units) of each state, the initial one first.
        saved: what the cell keeps for its way back, a step each.
        h: kernel of the output before each step and after the last, (steps + 1,) squared.
    """

    layer: Layer
    states: tuple[np.ndarray, ...]
    saved: tuple[tuple, ...]
    h: Kernel


def units(steps: int) -> int:
    """How many units: fewer where a long sequence averages over steps."""
    return int(np.clip(ELEMENTS // steps, *UNITS))


_DONE: WeakValueDictionary[bytes, Population] = WeakValueDictionary()


def run(layer: Layer) -> Population:
    """Forward through time; the same layer again (its last state beside its outputs) is not run again."""
    key = _key(layer)
    found = _DONE.get(key)
    if found is None:
        found = _DONE[key] = _run(layer)
    return found


def _key(layer: Layer) -> bytes:
    """Digest of all that a layer is."""
    digest = sha256(repr((layer.cell, layer.w_ih, layer.w_hh, layer.hidden, layer.projected, layer.w_hr)).encode())
    for array in (layer.x.within, layer.x.across, *layer.biases, np.array(layer.initial)):
        digest.update(np.ascontiguousarray(array, float).tobytes())
    return digest.digest()


def _run(layer: Layer) -> Population:
    cell, n, steps = CELLS[layer.cell], units(layer.steps), layer.steps
    rng = np.random.default_rng(0)
    bias_x, bias_h = (_biases(values, cell.gates, n, rng) for values in layer.biases)
    from_x, from_h = (Process(steps, cell.gates, n, rng) for _ in range(2))
    state = tuple(_initial(m, n, rng) for m in layer.initial)
    kept = [np.zeros((steps + 1, 2, n), np.float32) for _ in state]
    for rows, value in zip(kept, state, strict=True):
        rows[0] = value
    saved, scale, driven = [], layer.w_hh * layer.gain, layer.x.scaled(layer.w_ih)
    for t in range(steps):
        order = window(t, steps)
        x = from_x.step(t, order, driven.within[t, order], driven.across[t, order])
        within, across = moments(kept[0][order], kept[0][t])
        h = from_h.step(t, order, scale * within, scale * across)
        state, keep = cell.forward(x + bias_x, h + bias_h, state)
        saved.append(keep)
        for rows, value in zip(kept, state, strict=True):
            rows[t + 1] = value
    mean = Kernel(*all_moments(kept[0]))
    return Population(layer, tuple(kept), tuple(saved), mean.scaled(layer.gain))


def _biases(values: np.ndarray, gates: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """A bias a gate and unit, drawn by its quantiles; the same for both samples."""
    z = grid.ndtri((np.argsort(rng.random((gates, n)), -1) + 0.5) / n)
    return np.stack([np.interp(row, grid.Z_UNIT, v) for row, v in zip(z, values, strict=True)]).astype(np.float32)[
        :, None
    ]


def _initial(given: tuple[float, float, float], n: int, rng: np.random.Generator) -> np.ndarray:
    mean, second, pair = given
    spread = max(second - mean**2, 0.0)
    r = np.clip((pair - mean**2) / spread, -1, 1) if spread > 0 else 0.0
    common, apart = (standard((2, n), rng) for _ in range(2))
    return (mean + np.sqrt(spread) * (np.sqrt(max(r, 0)) * common[:1] + np.sqrt(1 - max(r, 0)) * apart)).astype(
        np.float32
    )


@dataclass(frozen=True)
class Gradients:
    """What came back.

    Attributes:
        x, h: kernels of the gradients of what input and state bring to the gates, mean over gates and units.
        out: kernel of the gradient of the output, mean over its features.
        initial: kernel of the gradients that reach the initial states.
        carried: mean square and mean product of the gradients of the initial states.
    """

    x: Kernel
    h: Kernel
    out: Kernel
    carried: tuple[tuple[float, float], ...]


def back(population: Population, given: Kernel, last: tuple[float, float] = (0.0, 0.0)) -> Gradients:
    """Backward through time, with weights on the way back taken as independent of those forward.

    Args:
        given: kernel of the cotangent of the output, mean over its features.
        last: mean square and mean product of the cotangent of the second state after the last step (an LSTM's cell).
    """
    layer = population.layer
    cell, steps = CELLS[layer.cell], layer.steps
    n = population.states[0].shape[-1]
    rng = np.random.default_rng(1)
    process = Process(steps, 1, n, rng)
    lift = layer.w_hr * layer.projected if layer.projected else 1.0  # from the output's gradient to the units'
    scale = layer.w_hh * layer.hidden * cell.gates
    gx, gh = (np.zeros((steps, 2, cell.gates * n), np.float32) for _ in range(2))
    carried = tuple(np.zeros((2, n), np.float32) for _ in range(cell.states))
    if cell.states > 1 and last[0] > 0:
        carried = (carried[0], _initial((0.0, *last), n, rng))
    out = Kernel(given.within.copy(), given.across.copy())
    for t in range(steps - 1, -1, -1):
        order = window(t, steps, backwards=True)
        if t + 1 < steps:
            later = slice(t + 1, min(order.stop + 1, steps))
            within, across = moments(gh[later], gh[t + 1])
            for full, part in ((out.within, within), (out.across, across)):
                full[t, t : t + len(part)] += scale * part
                full[t + 1 : t + len(part), t] += scale * part[1:]
        gm = process.step(t, order, lift * out.within[t, order], lift * out.across[t, order])[0]
        ax, ah, carried = cell.backward(gm, carried, population.saved[t])
        gx[t], gh[t] = (a.transpose(1, 0, 2).reshape(2, -1) for a in (ax, ah))
    ends = tuple((float(np.mean(c**2)), float(np.mean(c[0] * c[1]))) for c in carried)
    first = moments(gh[:1], gh[0])
    ends = ((ends[0][0] + scale * float(first[0][0]), ends[0][1] + scale * float(first[1][0])), *ends[1:])
    return Gradients(Kernel(*all_moments(gx)), Kernel(*all_moments(gh)), out, ends)


def weight_square(g: Kernel, x: Kernel, samples: int, width: float) -> float:
    """Mean square of the gradient of a weight: the sum of E[g g'] E[x x'] over pairs of steps and of samples."""
    own = float(np.sum(g.within * x.within))
    other = float(np.sum(g.across * x.across))
    return max(samples * own + samples * (samples - 1) * other, 0.0) / width


__all__ = ["CELLS", "Cell", "Gradients", "Kernel", "Layer", "Population", "back", "run", "weight_square"]
