"""Gaussian processes over time for two samples at once, drawn step by step as their kernel becomes known.

Two exchangeable samples with the covariances ``within`` and ``across`` are a sum and a difference of two independent
processes, of covariances within + across and within - across. Each step is regressed on the last ones.
"""

from __future__ import annotations

import numpy as np

WINDOW = 48  # steps that the next one is regressed on


class Process:
    """Values of a process at every step, for ``gates`` independent copies a unit."""

    def __init__(self, steps: int, gates: int, units: int, rng: np.random.Generator):
        self.values = np.zeros((2, steps, gates, units), np.float32)  # sum and difference, over root two
        self.kernel = np.zeros((2, steps, steps))
        self.rng = rng

    def step(self, t: int, steps: slice, within: np.ndarray, across: np.ndarray) -> np.ndarray:
        """The values at step ``t``: (gates, 2, units).

        Args:
            steps: those that it is regressed on, which are drawn already, and at one end itself.
            within, across: its covariances with them.
        """
        for k, row in enumerate((within + across, within - across)):
            self._one(k, t, steps, row)
        s, d = self.values[0, t], self.values[1, t]
        return np.stack([s + d, s - d], 1) / np.sqrt(np.float32(2))

    def _one(self, k: int, t: int, steps: slice, row: np.ndarray) -> None:
        self.kernel[k, t, steps] = self.kernel[k, steps, t] = row
        first = t > steps.start  # forward in time: the past lies before
        past = slice(steps.start, t) if first else slice(t + 1, steps.stop)
        beside, own = (row[:-1], row[-1]) if first else (row[1:], row[0])
        left, mean = max(float(own), 0.0), 0.0
        if len(beside) and left > 0:
            known = self.kernel[k, past, past]
            scale = float(np.trace(known)) / len(beside)
            if scale > 0:
                weight = np.linalg.solve(known + 1e-6 * scale * np.eye(len(beside)), beside)
                explained = float(weight @ beside)
                weight *= min(1.0, np.sqrt(own / explained)) if explained > 0 else 0.0
                left = max(left - min(explained, left), 0.0)
                shape = self.values.shape[2:]
                mean = (weight.astype(np.float32) @ self.values[k, past].reshape(len(beside), -1)).reshape(shape)
        self.values[k, t] = mean + np.float32(np.sqrt(left)) * standard(self.values.shape[2:], self.rng)


def window(t: int, steps: int, backwards: bool = False) -> slice:
    """The steps that step ``t`` is regressed on, and ``t``."""
    return slice(t, min(t + WINDOW, steps - 1) + 1) if backwards else slice(max(t - WINDOW, 0), t + 1)


def standard(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Standard normals whose mean and mean square over the last axis are exact."""
    z = rng.standard_normal(shape, dtype=np.float32)
    z -= z.mean(-1, keepdims=True)
    return z / np.sqrt(np.mean(z**2, -1, keepdims=True))


def moments(rows: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean products within and across the two samples: (steps, 2, n) with (2, n) -> (steps,), (steps,)."""
    flat, n = rows.reshape(len(rows), 2, -1), row.shape[-1]
    within = (flat[:, 0] @ row[0] + flat[:, 1] @ row[1]) / (2 * n)
    across = (flat[:, 0] @ row[1] + flat[:, 1] @ row[0]) / (2 * n)
    return within.astype(float), across.astype(float)


def all_moments(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean products of all pairs of steps: (steps, 2, n) -> two (steps, steps)."""
    a, b = rows[:, 0], rows[:, 1]
    n = a.shape[-1]
    across = a @ b.T
    return (a @ a.T + b @ b.T).astype(float) / (2 * n), (across + across.T).astype(float) / (2 * n)
