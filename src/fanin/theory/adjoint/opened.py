"""Backward through batch norm of what a function made: the gradient goes on following the latent.

With independent g of ``E[g^2] = d(z)^2`` at the latent z of ``x = f(z)``, what is left of
``g_x = (g - mean g - x^ mean(g x^)) / s`` at z is near enough, over N places,

    E[g_x^2 | z] = d(z)^2 (1 - (1 + x^(z)^2) / N) / s^2.

An identity branch (RepVGG) reads a ReLU through a batch norm and a sum, and ends in the next ReLU: where x is large
both are open, so that more than half of the gradient passes. And a channel that is open at few of its places gets next
to nothing at these, however small its deviation: ``x^2`` is N there.
"""

from __future__ import annotations

import numpy as np

from fanin.theory import channels, grid
from fanin.theory.adjoint.cotangent import Cotangent, Part
from fanin.theory.adjoint.joint import joint_with
from fanin.theory.adjoint.unary import SLIGHT
from fanin.theory.law import FEATURE, Law, mehler
from fanin.theory.levels import sums_of
from fanin.theory.records import replace


def followed(part: Part, g: Cotangent, x: Law, axes: tuple[int, ...]) -> Part:
    """The part in front of a batch norm with the function of the latent that g had behind it."""
    if straight(x) > 1 - SLIGHT:
        return part
    squares = np.zeros((len(g.law.values), grid.POINTS))
    for p in g.parts:
        squares += p.mean_second * (1.0 if p.values is None else p.values**2)
    of_x, of_out, share = joint_with(g.law, x)
    squares = sums_of(share[:, None] * squares[of_out], of_x, len(x.values))
    places = float(np.prod([a.size for axis in x.axes for a in axis if a.group != FEATURE]))
    squares *= np.maximum(1 - (1 + _normalized(x, axes) ** 2) / places, 0.0)
    means = grid.expectation(squares)
    if not np.all(means > 0):
        return part
    values = np.sqrt(squares / means[:, None])
    coefficients = grid.hermite_coefficients(values)
    both = {s: float(x.level_weight @ mehler(coefficients, 1.0, x.correlation(s))) for s in part.ratio}
    ratio = {s: float(np.clip(r / max(both[s], 1e-9), -1, 1)) for s, r in part.ratio.items()}
    return replace(part, values=values, ratio=ratio)


def straight(x: Law) -> float:
    """Share of the variance that is linear in the latent."""
    whole = float(x.level_weight @ x.variances)
    return float(x.level_weight @ x.coefficients[:, 1] ** 2) / whole if whole > 0 else 1.0


def _normalized(x: Law, axes: tuple[int, ...]) -> np.ndarray:
    """``(x - mean) / deviation`` of every level's own kind of channel."""
    told = channels.kinds(x, axes)
    if told is None:
        mean, variance = np.array(x.mean), np.array(x.second - x.mean**2)
    else:
        kind = np.zeros(len(x.values), int)
        shape = np.broadcast_shapes(told.which.shape, x.level.shape)
        kind[np.broadcast_to(x.level, shape).ravel()] = np.broadcast_to(told.which, shape).ravel()
        mean = np.array([law.mean for law in told.laws])[kind][:, None]
        variance = np.array([law.second - law.mean**2 for law in told.laws])[kind][:, None]
    return (x.values - mean) / np.sqrt(np.maximum(variance, 1e-300))
