"""Integrals of an unknown function against a Gaussian law, right also at kinks and jumps.

The line is cut into panels; on each the function is a polynomial through 16 Gauss-Legendre nodes. Panels on which the
highest Legendre coefficients are not negligible are halved, so that kinks and jumps end up in panels too narrow to
matter; one that hides between the last node of a panel and its edge betrays itself by the two polynomials
disagreeing there, is located by bisection, and becomes an edge. No node ever lies on an edge, so a jump is
seen from both sides with exactly its share (a Gauss-Hermite rule gave P(relu' = 1) = .45). The derivative is that of
the polynomial.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import NDArray

from fanin.errors import ArgumentError

Array = NDArray[np.float64]

ORDER = 16
NODES, WEIGHTS = legendre.leggauss(ORDER)
_VALUES = legendre.legvander(NODES, ORDER - 1)
TO_LEGENDRE = (np.arange(ORDER) + 0.5)[:, None] * _VALUES.T * WEIGHTS  # node values -> Legendre coefficients
DIFFERENTIATE = np.stack([legendre.legval(NODES, legendre.legder(row)) for row in np.eye(ORDER)], axis=1) @ TO_LEGENDRE
_AT_ENDS = np.stack([(-1.0) ** np.arange(ORDER), np.ones(ORDER)]) @ TO_LEGENDRE  # node values -> values at both ends

CORE, PANELS = 9.0, 64  # beyond 9 standard deviations lie 2e-19 of the mass
TAILS = (14.0, 20.0, 28.0, 37.0)  # looked at only where the function grows fast enough to matter
CLOSER = 0.1 * 0.03 ** np.arange(6)
NARROW = 1e-6  # panels below this width only fence in a kink
TOLERANCES, MOST_PANELS = (1e-12, 1e-9, 2e-6), 20_000  # relaxed for functions that are themselves rough


@dataclass(frozen=True)
class Samples:
    """A function at quadrature nodes: E[g(f)] is (weight * g(value)).sum().

    All arrays are flat over nodes in rising order of z, the standard Gaussian; x = mean + std z.
    """

    z: Array
    x: Array
    value: Array
    derivative: Array
    weight: Array
    width: Array  # of the node's panel, in units of z
    radius: float  # |z| <= radius was looked at
    jumps: tuple[float, ...]  # x where the value jumps
    kinks: tuple[float, ...]  # x where only the derivative jumps

    def expect(self, values: Array) -> float:
        """E[values] over the Gaussian law."""
        return float(np.dot(self.weight, values))

    def diverges(self, values: Array, unit: float) -> bool:
        """Whether E[values] is infinite by a pole: panels near it contribute as much as those further away.

        ``unit`` is the size below which values are rounding noise.
        """
        mass = self.weight * np.abs(values)
        near, far = mass[self.width < 1e-8].sum(), mass[(self.width >= 1e-8) & (self.width < 1e-4)].sum()
        return bool(near > 1e-6 * max(mass.sum(), unit) and near > 0.5 * far)


@dataclass
class _Panels:
    low: Array
    high: Array
    value: Array  # (panels, ORDER)

    @property
    def width(self) -> Array:
        return self.high - self.low

    @property
    def z(self) -> Array:
        return 0.5 * (self.low + self.high)[:, None] + 0.5 * self.width[:, None] * NODES

    @property
    def weight(self) -> Array:
        return 0.5 * self.width[:, None] * WEIGHTS * _density(self.z)


class TooRough(Exception):
    """The function is not a polynomial on any panel at this tolerance."""


def sample(
    fn: Callable[[Array], Array], *, mean: float = 0.0, std: float = 1.0, breaks: Sequence[float] = (), level: int = 0
) -> Samples:
    """Sample ``fn`` at x = mean + std z, z a standard Gaussian, finely enough for its square and its derivative's.

    Args:
        fn: elementwise function of a flat float64 array.
        breaks: x where ``fn`` is known to have a kink or a jump.
        level: index of the first tolerance to try; 2 for a function computed in single precision.

    Errors: ArgumentError where ``fn`` is not finite or too rough to integrate.
    """
    for tolerance in TOLERANCES[level:]:
        try:
            return _sample(fn, mean, std, [(b - mean) / std for b in breaks], tolerance)
        except TooRough:
            continue
    raise ArgumentError(
        f"the function cannot be resolved at pre-activation std {std:g}",
        cause="it is random, noisy, or oscillates faster than any grid can follow",
        remedy="give a deterministic function, or a smaller std",
    )


def _sample(fn: Callable[[Array], Array], mean: float, std: float, known: list[float], tolerance: float) -> Samples:
    def at(z: Array) -> Array:
        return fn(mean + std * z)

    floor = max(1e-13, 16 * np.finfo(float).eps * abs(mean) / std)
    edges = sorted({*np.linspace(-CORE, CORE, PANELS + 1), *(z for z in [-mean / std, *known] if abs(z) < CORE)})
    sure = list(known)
    for _ in range(6):
        panels, scale = _resolve(at, np.array(edges), tolerance, floor, 0.0, std, mean)
        jumps, kinks, at_edge = _breaks(at, panels, scale, tolerance)
        new = [b for b in at_edge if not any(abs(b - s) < 1e-9 for s in sure)]
        if not new:
            break
        sure += new
        closer = (b + side * step for b in new for side in (1, -1) for step in CLOSER)  # is it steep, or a jump?
        edges = sorted({*edges, *new, *closer})
    radius = CORE
    for outer in TAILS:
        ring = np.concatenate([np.linspace(-outer, -radius, 9), np.linspace(radius, outer, 9)])
        with np.errstate(all="ignore"):
            density = np.square(at(ring)) * _density(ring)
        ends = np.array([panels.value[0, 0], panels.value[-1, -1]])
        fading = np.max(np.square(ends)) * _density(np.array(radius)) <= 1e-10 * scale**2
        if scale > 0 and (np.max(density) * outer <= 1e-16 * scale**2 or (fading and not np.isfinite(density).all())):
            break
        tail = np.unique([*np.linspace(radius, outer, 17), *(abs(z) for z in known if radius < abs(z) < outer)])
        right, scale = _resolve(at, tail, tolerance, floor, scale, std, mean)
        left, scale = _resolve(at, -tail[::-1], tolerance, floor, scale, std, mean)
        panels, radius = _joined(left, panels, right), outer
    return _flat(panels, mean, std, radius, jumps, kinks)


def _resolve(at, edges: Array, tolerance, floor, scale, std, mean) -> tuple[_Panels, float]:
    """Halve panels until each is a polynomial, or too narrow to matter. ``scale`` is the rms of the function."""
    todo = np.stack([edges[:-1], edges[1:]])
    todo = todo[:, todo[1] - todo[0] > 4 * floor]
    done: list[_Panels] = []
    mass, count = scale**2, 0
    for _ in range(80):
        panels = _Panels(todo[0], todo[1], np.empty(0))
        z = panels.z
        panels.value = at(z.ravel()).reshape(z.shape)
        _finite(panels.value, mean + std * z)
        count += len(z)
        if count > MOST_PANELS:
            raise TooRough
        scale = math.sqrt(mass + float(np.sum(panels.weight * np.square(panels.value))))
        tail = np.abs(panels.value @ TO_LEGENDRE[-4:].T).max(1)
        nearest = np.maximum(0.0, np.maximum(panels.low, -panels.high))
        noise = 4e-15 * np.abs(panels.value).max(1)
        good = tail * np.sqrt(_density(nearest)) <= np.maximum(tolerance * scale, noise * np.sqrt(_density(nearest)))
        keep = good | (panels.width <= floor * np.maximum(1.0, np.abs(panels.low)))
        done.append(_Panels(panels.low[keep], panels.high[keep], panels.value[keep]))
        mass += float(np.sum((panels.weight * np.square(panels.value))[keep]))
        if keep.all():
            break
        low, high = panels.low[~keep], panels.high[~keep]
        middle = 0.5 * (low + high)
        todo = np.stack([np.concatenate([low, middle]), np.concatenate([middle, high])])
    return _joined(*done), math.sqrt(mass)


def _breaks(at, panels: _Panels, scale: float, tolerance: float) -> tuple[list[float], list[float], list[float]]:
    """z of jumps, of kinks, and of those among them that lie at an edge or hide beside it."""
    jumps, kinks, at_edge = [], [], []
    wide = np.flatnonzero(panels.width > NARROW)
    slope = panels.value @ DIFFERENTIATE.T * (2.0 / panels.width)[:, None]
    ends, slopes = panels.value @ _AT_ENDS.T, slope @ _AT_ENDS.T
    for i, j in itertools.pairwise(wide):
        step, turn = ends[j, 0] - ends[i, 1], slopes[j, 0] - slopes[i, 1]
        width, weight = min(panels.width[i], panels.width[j]), math.sqrt(_density(panels.low[j]))
        jumped = abs(step) * weight > max(1e-7, 100 * tolerance) * scale
        turned = abs(turn) * width * weight > max(1e-6, 1000 * tolerance) * scale
        if j > i + 1:  # next to narrow panels a turn is small against the width
            turned = abs(turn) * weight > max(1e-3, 1e8 * tolerance) * scale
        if not (jumped or turned):
            continue
        if j > i + 1:  # fenced in by narrow panels
            inside = np.arange(i + 1, j)
            inside = inside[panels.width[inside] <= max(1e-10, panels.width[inside].min())]
            where = 0.5 * (panels.low[inside[0]] + panels.high[inside[-1]])
            jumped = np.ptp(panels.value[inside]) > 1e-3 * scale  # a kink moves by about 1e-10 across these
        else:
            where = _locate(at, panels, int(i), int(j))
            if abs(where - panels.low[j]) <= 1e-9 * width:
                where = float(panels.low[j])
            at_edge.append(where)
        (jumps if jumped else kinks).append(float(where))
    return jumps, kinks, at_edge


def _locate(at, panels: _Panels, i: int, j: int) -> float:
    """Where, between the last node of panel i and the first of panel j, the function leaves i's polynomial for j's."""

    def gap(k: int, z: float) -> float:
        t = (2.0 * z - panels.low[k] - panels.high[k]) / panels.width[k]
        return abs(at(np.array([z]))[0] - legendre.legval(t, TO_LEGENDRE @ panels.value[k]))

    edge = float(panels.low[j])
    low, high = float(panels.z[i, -1]), float(panels.z[j, 0])
    for side in (np.nextafter(edge, low), np.nextafter(edge, high)):  # the edge itself is the likeliest place
        if gap(i, side) < gap(j, side):
            low = max(low, float(side))
        else:
            high = min(high, float(side))
    while high - low > 4e-16 * max(1.0, abs(low)):
        middle = 0.5 * (low + high)
        if not low < middle < high:
            break
        if gap(i, middle) < gap(j, middle):
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def _joined(*parts: _Panels) -> _Panels:
    low = np.concatenate([p.low for p in parts])
    order = np.argsort(low)
    return _Panels(
        low[order],
        np.concatenate([p.high for p in parts])[order],
        np.concatenate([p.value for p in parts])[order],
    )


def _flat(panels: _Panels, mean: float, std: float, radius: float, jumps: list[float], kinks: list[float]) -> Samples:
    z = panels.z
    derivative = panels.value @ DIFFERENTIATE.T * (2.0 / (panels.width * std))[:, None]
    derivative[panels.width < 1e-12] = 0.0  # a jump or a kink, not a slope
    return Samples(
        z=z.ravel(),
        x=(mean + std * z).ravel(),
        value=panels.value.ravel(),
        derivative=derivative.ravel(),
        weight=panels.weight.ravel(),
        width=np.repeat(panels.width, ORDER),
        radius=radius,
        jumps=tuple(mean + std * b for b in jumps),
        kinks=tuple(mean + std * b for b in kinks),
    )


def panel_width(fn: Callable[[Array], Array], samples: Samples, *, mean: float, std: float) -> float:
    """The widest of a few panels, in units of z, on which ``fn`` is a polynomial once its breaks are edges."""
    known = [(b - mean) / std for b in samples.jumps + samples.kinks]
    scale = math.sqrt(samples.expect(np.square(samples.value)))
    for width in 3.0 * 0.5 ** np.arange(10):
        edges = np.unique([*np.arange(-CORE, CORE + width / 2, width), *(z for z in known if abs(z) < CORE)])
        panels = _Panels(edges[:-1], edges[1:], np.empty(0))
        values = fn((mean + std * panels.z).ravel()).reshape(-1, ORDER)
        tail = np.abs(values @ TO_LEGENDRE[-4:].T).max(1)
        nearest = np.maximum(0.0, np.maximum(panels.low, -panels.high))
        if np.all(tail * np.sqrt(_density(nearest)) <= 1e-9 * scale):
            break
    return float(width)


def _density(z):
    return np.exp(-0.5 * np.square(z)) / math.sqrt(2.0 * math.pi)


def _finite(values: Array, x: Array) -> None:
    usable = np.abs(values) < 1e150  # its square must be finite, too; NaN is not usable either
    if not usable.all():
        first = np.flatnonzero(~usable.ravel())[0]
        raise ArgumentError(
            f"the activation gives {values.ravel()[first]:.4g} at x = {x.ravel()[first]:.6g}",
            cause="it is not defined or overflows there",
            remedy="give a function that is finite wherever a pre-activation can fall, or a smaller std",
        )
