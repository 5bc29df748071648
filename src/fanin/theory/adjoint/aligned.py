"""Gradients that follow the signal: what a loss such as a mean square error sends back.

Behind ``y = W x`` the gradient of ``|y - t|^2`` is ``y - t``, and ``W`` meets itself: ``W^T W x`` has a part along
``x``. With ``g_c = h(z_c)`` and ``z_c`` the latent of ``y_c``, Gaussian integration by parts gives

    E[sum_c W_ci g_c] = n_out Var(W) E[h'(z)] x_i / sigma,

a function of the latent of ``x`` without a random base. It is small beside the random part where the layer has far
fewer outputs than inputs, and as large where it has as many.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fanin.theory import grid
from fanin.theory.adjoint.cotangent import ALIGNED, Cotangent, Part, fresh
from fanin.theory.law import Law, subsets
from fanin.theory.records import replace


def returned(g: Cotangent, x: Law, gain: float, transport: Callable[[np.ndarray], np.ndarray]) -> list[Part]:
    """What the weights that made a tensor send back along their input.

    Args:
        gain: outputs times the variance of a weight.
        transport: lays an amplitude at the places of the output out over those of the input.
    """
    parts = []
    for part in g.parts:
        if part.base != ALIGNED or part.values is None or not g.law.gaussian:
            continue
        slope = part.values @ (grid.WEIGHT * grid.Z_UNIT) / np.where(g.law.slopes > 0, g.law.slopes, np.inf)
        amplitude = gain * transport(np.sqrt(part.second) * slope[g.law.level])
        if np.any(amplitude):
            parts.append(along(x, amplitude))
    return parts


def along(x: Law, amplitude: np.ndarray) -> Part:
    """A multiple of the signal itself."""
    root = float(np.sqrt(np.mean(amplitude**2)))
    sign = -1.0 if float(np.mean(amplitude)) < 0 else 1.0
    second = np.ones((1,) * amplitude.ndim) if np.ptp(amplitude) < 1e-9 * root else (amplitude / root) ** 2
    return Part(ALIGNED, second, dict.fromkeys(subsets(x.groups), 1.0), sign * root * x.values)


def across_features(g: Cotangent, centred: bool) -> Cotangent:
    """The cotangent without what a norm over features takes away: the mean, and what is along the signal."""
    parts = []
    for part in g.parts:
        if part.base == ALIGNED and part.values is not None:
            left = _beside(part.values, g.law.values, centred)
            if np.mean(left**2 @ grid.WEIGHT) < 1e-6 * np.mean(part.values**2 @ grid.WEIGHT):
                continue
            part = replace(part, values=left)
        parts.append(part)
    return Cotangent(g.law, tuple(parts))


def _beside(values: np.ndarray, signal: np.ndarray, centred: bool) -> np.ndarray:
    if centred:
        values, signal = (v - grid.expectation(v)[:, None] for v in (values, signal))
    square = np.maximum(grid.expectation(signal**2), 1e-300)
    return values - (grid.expectation(values * signal) / square)[:, None] * signal


def to_summand(part: Part, total: Law, x: Law) -> list[Part]:
    """Of ``h(w)``, w the sum of x and something independent, what x knows of it, and the rest.

    For Gaussians E[h(w) | z] = sum a_k rho^k h_k(z), with rho the correlation of w and x.
    """
    assert part.values is not None
    coefficients = grid.hermite_coefficients(part.values)
    spread = np.where(total.slopes > 0, total.slopes, np.inf)
    if len(x.values) != len(total.values):
        rho = np.full(len(total.values), float(np.mean(x.slopes)) / float(np.mean(spread)))
    else:
        rho = x.slopes / spread
    known = coefficients * np.clip(rho, -1, 1)[:, None] ** np.arange(coefficients.shape[1])
    values = known @ grid.HERMITE
    left = np.maximum(grid.expectation(part.values**2) - grid.expectation(values**2), 0)
    rest = fresh(part.second * left[total.level], part.ratio, balanced=part.balanced)
    if len(values) != len(x.values):
        values = np.repeat(total.level_weight @ values, len(x.values), 0).reshape(len(x.values), -1)
    return [Part(ALIGNED, part.second, part.ratio, values, balanced=part.balanced), rest]
