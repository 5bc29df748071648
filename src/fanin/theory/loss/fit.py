"""Describe a sampled gradient as parts: what follows the tensor itself, and the rest with its correlations.

``p - y`` of a cross-entropy is almost all label, hardly tied to the logits; ``2 (x - y)`` of a mean square error is the
output itself. The first is a base of its own; the second is a function ``h(z)`` of the tensor's
latent with no random base: the weights that made the tensor meet it again on the way back, and send on a multiple of
their input.
"""

from __future__ import annotations

import numpy as np

from fanin.theory import grid
from fanin.theory.adjoint.cotangent import ALIGNED, Part, fresh
from fanin.theory.contraction import known_pairs
from fanin.theory.law import FEATURE, Atom, Groups, Law, subsets
from fanin.theory.loss.draw import fine_atoms
from fanin.theory.state import SAMPLE

DEGREE = 5
SLIGHT = 3e-3  # share of the mean square below which what follows the tensor is left out


class Fit:
    """Running means over draws."""

    def __init__(self, law: Law):
        self.law = law
        atoms = fine_atoms(law)
        self.fine = [a.size for a in atoms]
        self.features = [i for i, a in enumerate(atoms) if a.group == FEATURE]
        self.axes = tuple((a,) for a in atoms if a.group != FEATURE)
        self.profiles: list[np.ndarray] = []
        self.pairs: list[dict[Groups, float]] = []
        self.shape: list[np.ndarray] = []

    def add(self, z: np.ndarray, gradient: np.ndarray) -> None:
        """Count one draw."""
        g = np.asarray(gradient, np.float64)
        keep = tuple(i for i, axis in enumerate(self.law.axes) if not {a.group for a in axis} & {FEATURE, SAMPLE})
        rest = tuple(i for i in range(g.ndim) if i not in keep)
        self.profiles.append(np.mean(g**2, axis=rest, keepdims=True) if rest else g**2)
        self.pairs.append(self._pairs(g))
        self.shape.append(_coefficients(z.ravel(), g.ravel()))

    def _pairs(self, g: np.ndarray) -> dict[Groups, float]:
        places = [i for i in range(len(self.fine)) if i not in self.features]
        laid = g.reshape(self.fine).transpose([*places, *self.features])
        laid = laid.reshape([self.fine[i] for i in places] + [-1])
        axes = (*self.axes, (Atom(laid.shape[-1], FEATURE),))
        return known_pairs(laid, axes, laid.ndim - 1)[1]

    def parts(self) -> tuple[Part, ...]:
        """The cotangent."""
        second = steadied(self.profiles)
        mean = float(np.mean(second))
        if mean <= 0:
            return (fresh(np.zeros((1,) * len(self.law.shape)), {}),)
        pair = {s: float(np.mean([p.get(s, 0.0) for p in self.pairs])) for s in subsets(self.law.groups)}
        along = np.mean(self.shape, axis=0)
        share = min(float(_halves(self.shape)) / mean, 1.0)
        if share < SLIGHT:
            return (fresh(second, {s: p / mean for s, p in pair.items()}),)
        along = along * np.sqrt(share / (along**2).sum())
        values = np.tile(along @ grid.HERMITE[: DEGREE + 1], (len(self.law.values), 1))
        aligned = Part(ALIGNED, second, dict.fromkeys(pair, 1.0), values)
        left = max(1 - share, 1e-12)
        ratio = {s: (p - aligned.pair(self.law, s)) / (left * mean) for s, p in pair.items()}
        return aligned, fresh(second * left, {s: float(np.clip(r, -1, 1)) for s, r in ratio.items()})


def _halves(shape: list[np.ndarray]) -> float:
    """Sum of squared coefficients without the share of chance: the product of two halves of the draws."""
    if len(shape) < 2:
        return float((shape[0] ** 2).sum())
    a, b = (np.mean(shape[i::2], axis=0) for i in (0, 1))
    return float(a @ b)


def _coefficients(z: np.ndarray, g: np.ndarray) -> np.ndarray:
    """E[g h_n(z)] for n = 0 ... DEGREE, shape (DEGREE + 1,)."""
    rows = [np.ones_like(z, np.float64), np.asarray(z, np.float64)]
    for n in range(2, DEGREE + 1):
        rows.append((rows[1] * rows[-1] - np.sqrt(n - 1) * rows[-2]) / np.sqrt(n))
    return np.array([row @ g for row in rows]) / len(z)


def steadied(profiles: list[np.ndarray]) -> np.ndarray:
    """Mean over draws, with what differs between places by chance shrunk away.

    Two halves of the draws agree in what is real: their covariance over places, against the variance of their
    difference, is how much of the profile is kept.
    """
    mean = np.mean(profiles, axis=0)
    level = float(np.mean(mean))
    if len(profiles) < 2 or mean.size == 1 or level == 0:
        return mean
    a, b = (np.mean(profiles[i::2], axis=0) / level for i in (0, 1))
    noise = float(np.mean((a - b) ** 2)) / 4
    signal = max(float(np.var(mean / level)) - noise, 0.0)
    kept = signal / (signal + noise) if signal > 0 else 0.0
    return level + kept * (mean - level)
