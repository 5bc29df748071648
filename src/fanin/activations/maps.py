"""How an activation carries correlations, and the mean-field quantities that follow.

Two pre-activations x1, x2 ~ N(mean, std^2) at correlation r; latents are rotated to u, v so that kinks of the
integrand in v can be split exactly however close r is to 1.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fanin.activations.functions import Activation, activation
from fanin.activations.moments import moments, samples
from fanin.activations.quadrature import NODES, WEIGHTS, Samples, panel_width, sample
from fanin.errors import ArgumentError

Array = NDArray[np.float64]
SMALL_STD, LARGE_STD = 1e-4, 1e6


def pair_moment(spec: Any, r: ArrayLike, std: float = 1.0, *, mean: float = 0.0, **parameters: float) -> Any:
    """E[f(x1) f(x2)], uncentred, for x1, x2 ~ N(mean, std^2) at correlation ``r``.

    For ReLU at std s it is s^2 (pi r + sqrt(1 - r^2) - r acos r) / (2 pi).

    Args:
        spec: a name, a torch module, or any elementwise callable.
        r: correlation in [-1, 1]; a number or an array, and so is the result.

    Errors: ArgumentError for |r| > 1 and as ``moments`` has them.

    Source: Cho & Saul 2009, Kernel methods for deep learning, for ReLU; here for any function.

    Example:
        >>> round(pair_moment("relu", 0.0), 6), round(pair_moment("relu", 1.0), 6)
        (0.159155, 0.5)
    """
    rs = np.asarray(r, dtype=np.float64)
    if not np.all(np.abs(rs) <= 1):
        raise ArgumentError(f"correlation is {r!r}", cause="it lies in [-1, 1]", remedy="give -1 <= r <= 1")
    f = activation(spec, **parameters)
    second = moments(f, std, mean=mean).second_moment
    at = samples(f, std, mean)
    width = panel_width(f, at, mean=mean, std=std) if np.any(np.abs(rs) < 1) else 1.0
    values = [second if c == 1 else _pair(f, float(c), std, mean, at, width) for c in rs.ravel()]
    return values[0] if rs.ndim == 0 else np.array(values).reshape(rs.shape)


def correlation_map(spec: Any, c: ArrayLike, std: float = 1.0, *, mean: float = 0.0, **parameters: float) -> Any:
    """The cosine E[f(x1) f(x2)] / E[f^2] after the activation, as a function of the correlation ``c`` before it.

    Iterated, it is the map of Poole et al. 2016, Exponential expressivity in deep neural networks through transient
    chaos, arXiv:1606.05340, without biases.

    Example:
        >>> round(correlation_map("relu", 0.0), 6)
        0.31831
    """
    f = activation(spec, **parameters)
    return pair_moment(f, c, std, mean=mean) / moments(f, std, mean=mean).second_moment


def chi(spec: Any, sigma_w: float, std: float = 1.0, **parameters: float) -> float:
    """sigma_w^2 E[f'(std z)^2]: by how much a layer multiplies the squared gradient; 1 on the critical line.

    Source: Schoenholz et al. 2016, Deep information propagation, arXiv:1611.01232.

    Example:
        >>> round(chi("relu", 2**0.5), 9)
        1.0
    """
    return sigma_w**2 * moments(spec, std, **parameters).derivative_second_moment


def reach(spec: Any, second_moment: float, **parameters: float) -> float:
    """The pre-activation std at which E[f(std z)^2] is ``second_moment``; the smallest one found.

    Errors: ArgumentError, with the least and the greatest second moment there are, where no std gives it.

    Example:
        >>> round(reach("relu", 0.5), 6)
        1.0
    """
    if not (math.isfinite(second_moment) and second_moment > 0):
        raise ArgumentError(f"second_moment is {second_moment}", remedy="give a positive finite number")
    f = activation(spec, **parameters)

    def excess(log_std: float) -> float:
        return moments(f, math.exp(log_std)).second_moment - second_moment

    grid, found = np.log(np.geomspace(SMALL_STD, LARGE_STD, 61)), []
    for i, log_std in enumerate(grid):
        try:
            found.append(excess(log_std))
        except ArgumentError:
            if not found:
                raise
            break  # grows past the largest float: what is wanted lies below
        if i and found[-2] * found[-1] <= 0:
            return math.exp(_root(excess, grid[i - 1], log_std))
    low, high = min(found) + second_moment, max(found) + second_moment
    raise ArgumentError(
        f"{f.name} cannot reach a second moment of {second_moment:g}",
        cause=f"its second moment lies between {low:.6g} and {high:.6g} (the supremum) at any pre-activation std",
        remedy="ask for one in between, or scale the activation",
    )


def fixed_point(spec: Any, sigma_w: float, sigma_b: float = 0.0, **parameters: float) -> float:
    """The pre-activation variance q that a deep net settles at: q = sigma_w^2 E[f(sqrt(q) z)^2] + sigma_b^2.

    The largest solution is given: the stable one where there are several. It is 0 where the signal dies.

    Errors: ArgumentError where the variance grows without limit, or every q is a fixed point.

    Source: Poole et al. 2016, arXiv:1606.05340.

    Example:
        >>> round(fixed_point("tanh", 5 / 3) ** 0.5 / (5 / 3), 6)
        0.651347
    """
    f = activation(spec, **parameters)

    def log_growth(log_q: float) -> float:
        q = math.exp(log_q)
        return math.log((sigma_w**2 * moments(f, math.sqrt(q)).second_moment + sigma_b**2) / q)

    grid = np.log(np.geomspace(SMALL_STD**2, LARGE_STD, 65))[::-1]
    values = [log_growth(x) for x in grid]
    if abs(values[0]) < 1e-9 or values[0] > 0:
        raise ArgumentError(
            f"{f.name} has no fixed point at sigma_w {sigma_w:g}, sigma_b {sigma_b:g}",
            cause="every variance is kept as it is" if abs(values[0]) < 1e-9 else "the variance grows without limit",
            remedy="use a smaller sigma_w, or a bounded activation",
        )
    for i in range(1, len(grid)):
        if values[i] >= 0:
            return math.exp(_root(log_growth, grid[i], grid[i - 1]))
    return 0.0


@dataclass(frozen=True)
class CriticalPoint:
    """Where order meets chaos: the weight std times sqrt(fan_in), the bias std, and the pre-activation variance."""

    sigma_w: float
    sigma_b: float
    q: float


def critical_line(spec: Any, sigma_b: float, **parameters: float) -> CriticalPoint:
    """sigma_w, and the variance q it settles at, for which the squared gradient neither grows nor shrinks.

    Solves q = sigma_w^2 E[f(sqrt(q) z)^2] + sigma_b^2 together with sigma_w^2 E[f'(sqrt(q) z)^2] = 1. At sigma_b = 0 an
    activation with f(0) = 0 is critical at q = 0; ReLU and its kin keep every q, and q is given as 1.

    Errors: ArgumentError for a negative sigma_b, and where there is no such point, as for ReLU with a bias.

    Source: Schoenholz et al. 2016, arXiv:1611.01232; Poole et al. 2016, arXiv:1606.05340.

    Example:
        >>> round(critical_line("tanh", 0.05).sigma_w, 4)
        1.1225
    """
    if not (math.isfinite(sigma_b) and sigma_b >= 0):
        raise ArgumentError(f"sigma_b is {sigma_b}", remedy="give a finite number, 0 or more")
    f = activation(spec, **parameters)

    def ratio(q: float) -> float:
        """sigma_w^2 E[f^2] / q at the sigma_w that chi = 1 asks for."""
        m = moments(f, math.sqrt(q))
        return math.inf if m.derivative_second_moment == 0 else m.second_moment / m.derivative_second_moment / q

    def at(q: float) -> CriticalPoint:
        return CriticalPoint(1.0 / math.sqrt(moments(f, math.sqrt(q)).derivative_second_moment), sigma_b, q)

    grid = np.log(np.geomspace(SMALL_STD**2, 1e4, 49))
    misses = [1.0 - ratio(math.exp(x)) for x in grid]  # wanted: sigma_b^2 / q
    if sigma_b == 0:
        if all(abs(miss) < 1e-9 for miss in misses):
            return at(1.0)
        if abs(misses[0]) < 1e-6:
            return CriticalPoint(at(SMALL_STD**2).sigma_w, 0.0, 0.0)

    def miss(log_q: float) -> float:
        return 1.0 - ratio(math.exp(log_q)) - sigma_b**2 / math.exp(log_q)

    for low, high in itertools.pairwise(grid):
        if miss(low) < 0 <= miss(high):
            return at(math.exp(_root(miss, low, high)))
    raise ArgumentError(
        f"{f.name} has no critical point at sigma_b {sigma_b:g}",
        cause="no variance is kept together with its gradient",
        remedy="use sigma_b = 0" if sigma_b else "give a positive sigma_b, or use another activation",
    )


def _root(function: Any, low: float, high: float) -> float:
    from scipy.optimize import brentq  # not at import: scipy is slow to load

    return cast(float, brentq(function, low, high, xtol=1e-13))


def _pair(f: Activation, r: float, std: float, mean: float, at: Samples, width: float) -> float:
    """E[f f] by z1 = a u + b v, z2 = a u - b v with independent u, v: the integrand is even in v."""
    a, b = math.sqrt((1.0 + r) / 2.0), math.sqrt((1.0 - r) / 2.0)
    breaks = (np.array(at.jumps + at.kinks) - mean) / std
    even = np.linspace(0.0, at.radius, max(2, math.ceil(at.radius / min(3.0, width / b))) + 1)

    def inner(u: Array) -> Array:
        out = np.empty_like(u)
        step = max(1, 400_000 // (len(NODES) * (len(even) + len(breaks))))
        for i in range(0, len(u), step):
            out[i : i + step] = over_v(a * u[i : i + step])
        return out

    def over_v(centre: Array) -> Array:
        edges = np.broadcast_to(even, (len(centre), len(even)))
        if len(breaks):
            cuts = np.minimum(np.abs(breaks - centre[:, None]) / b, at.radius)
            edges = np.sort(np.concatenate([edges, cuts], axis=1), axis=1)
        half = 0.5 * np.diff(edges, axis=1)[..., None]
        v = 0.5 * (edges[:, 1:] + edges[:, :-1])[..., None] + half * NODES  # (u, panel, node)
        weight = half * WEIGHTS * np.exp(-0.5 * v * v) * math.sqrt(2.0 / math.pi)
        x1, x2 = (mean + std * (centre[:, None, None] + sign * b * v) for sign in (1.0, -1.0))
        return np.sum(weight * (f(x1.ravel()) * f(x2.ravel())).reshape(v.shape), axis=(1, 2))

    near = (0.0, 1.0, 9.0, -1.0, -9.0)  # the inner integral changes over a length b / a around each break
    outer = [(k + b * c) / a for k in breaks for c in near] if a > 0 else []
    over_u = sample(inner, breaks=outer, level=2 if f.single else 1)
    return over_u.expect(over_u.value)
