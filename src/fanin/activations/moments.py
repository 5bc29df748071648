"""Moments of a pointwise function under a Gaussian pre-activation, and the gains that follow from them."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from fanin.activations.functions import Activation, activation
from fanin.activations.quadrature import Samples, sample
from fanin.errors import ArgumentError


@dataclass(frozen=True)
class Moments:
    """Moments of f(x) for x ~ N(pre_mean, std^2).

    ``derivative_*`` are those of f' where it exists, which is what backpropagation sees; for a torch function they are
    those of its own backward pass, straight-through estimators included. Where f jumps (``jumps`` lists the x) f'
    misses the jump: the step function has derivative_second_moment 0. It is infinite where f' is not square
    integrable, as for sqrt(|x|).
    """

    activation: str
    std: float
    pre_mean: float
    mean: float
    second_moment: float
    derivative_mean: float
    derivative_second_moment: float
    jumps: tuple[float, ...] = field(default=(), repr=False)
    kinks: tuple[float, ...] = field(default=(), repr=False)

    @property
    def variance(self) -> float:
        """Var f(x)."""
        return max(0.0, self.second_moment - self.mean**2)

    @property
    def forward_gain(self) -> float:
        """std / sqrt(E f^2): weights of variance gain^2 / fan_in keep the pre-activation's std."""
        if self.second_moment == 0:
            raise ArgumentError(
                f"{self.activation} is zero at pre-activation std {self.std:g}",
                cause="no weight can restore a signal that is gone",
                remedy="use another activation, or a larger std",
            )
        return self.std / math.sqrt(self.second_moment)

    @property
    def backward_gain(self) -> float:
        """1 / sqrt(E f'^2): weights of variance gain^2 / fan_out keep the mean square of the gradient."""
        if self.derivative_second_moment == 0:
            where = f" and jumps at {', '.join(f'{x:.4g}' for x in self.jumps[:3])}" if self.jumps else ""
            raise ArgumentError(
                f"{self.activation} has no backward gain at pre-activation std {self.std:g}",
                cause=f"its derivative is 0 wherever it exists{where}, so that backpropagation stops there",
                remedy="use the forward gain, or give the function whose derivative stands in for it in training",
            )
        if math.isinf(self.derivative_second_moment):
            raise ArgumentError(
                f"{self.activation} has no backward gain", cause="E[f'^2] is infinite", remedy="use the forward gain"
            )
        return 1.0 / math.sqrt(self.derivative_second_moment)


def moments(spec: Any, std: float = 1.0, *, mean: float = 0.0, **parameters: float) -> Moments:
    """E[f], E[f^2], E[f'] and E[f'^2] of an activation at x ~ N(mean, std^2), by quadrature that splits at kinks.

    Args:
        spec: a name, a torch module, or any elementwise callable; see ``activation``.
        std: standard deviation of the pre-activation.
        mean: its mean.
        parameters: of a named activation, such as ``slope=0.1``.

    Errors: ArgumentError for an unknown name, a callable that is not pointwise, or an infinite second moment.

    Example:
        >>> m = moments("relu")
        >>> round(m.mean, 6), round(m.second_moment, 9), round(m.derivative_second_moment, 9)
        (0.398942, 0.5, 0.5)
    """
    f = activation(spec, **parameters)
    at = samples(f, std, mean)
    second = at.expect(np.square(at.value))
    unit = second / std**2
    if not math.isfinite(second) or at.diverges(np.square(at.value), 0.0):
        raise ArgumentError(
            f"{f.name} has no finite second moment at pre-activation std {std:g}",
            cause="it has a pole or grows too fast",
            remedy="use a smaller std, or a bounded activation",
        )
    slope_mean, slope = _slope(f, at, std, mean, unit)
    return Moments(
        activation=f.name,
        std=std,
        pre_mean=mean,
        mean=at.expect(at.value),
        second_moment=second,
        derivative_mean=slope_mean,
        derivative_second_moment=slope,
        jumps=at.jumps,
        kinks=at.kinks,
    )


def _slope(f: Activation, at: Samples, std: float, mean: float, unit: float) -> tuple[float, float]:
    """E[f'] and E[f'^2]; ``unit`` is the size below which the latter is rounding noise."""
    values = at.derivative
    if f.slope is not None:
        at = sample(f.slope, mean=mean, std=std, breaks=at.kinks + at.jumps, level=2 if f.single else 0)
        values = at.value
    square = at.expect(np.square(values))
    if at.diverges(np.square(values), unit):
        return at.expect(values), math.inf
    if square < 1e-11 * unit:
        return 0.0, 0.0  # a function that is constant between jumps
    return at.expect(values), square


def gain(
    activation: Any, *, mode: Literal["forward", "backward"] = "forward", std: float = 1.0, **parameters: float
) -> float:
    """The gain of an activation: weights of variance gain^2 / fan keep a pre-activation std of ``std``.

    forward: std / sqrt(E[f(std z)^2]), with fan = fan_in; backward: 1 / sqrt(E[f'(std z)^2]), with fan = fan_out;
    z ~ N(0, 1).

    Args:
        activation: a name ("relu", "leaky_relu(0.1)", "gelu(tanh)"), a torch module, or any elementwise callable.
        mode: keep the signal ("forward") or the gradient ("backward").
        std: pre-activation standard deviation to keep.
        parameters: of a named activation, such as ``slope=0.1``.

    Errors: ArgumentError for an unknown name or mode, a callable that is not pointwise, a zero function, or a
    backward gain where the derivative is zero or not square integrable.

    Source: He et al. 2015, Delving deep into rectifiers, arXiv:1502.01852, for ReLU; here for any function.

    Example:
        >>> round(gain("relu"), 6), round(gain(np.tanh), 6), round(gain("tanh", mode="backward"), 6)
        (1.414214, 1.592537, 1.467414)
    """
    if mode not in ("forward", "backward"):
        raise ArgumentError(f"gain: mode is {mode!r}", remedy='give "forward" or "backward"')
    found = moments(activation, std, **parameters)
    return found.forward_gain if mode == "forward" else found.backward_gain


def samples(f: Activation, std: float, mean: float = 0.0) -> Samples:
    """The function at quadrature nodes; kept for named ones."""
    if not (isinstance(std, int | float | np.number) and math.isfinite(std) and std > 0):
        raise ArgumentError(
            f"pre-activation std is {std!r}", cause="it must be a positive finite number", remedy="give std > 0"
        )
    if not (isinstance(mean, int | float | np.number) and math.isfinite(mean)):
        raise ArgumentError(f"pre-activation mean is {mean!r}", remedy="give a finite number")
    if f.named:
        return _kept(f, float(std), float(mean))
    return sample(f, mean=float(mean), std=float(std), breaks=f.breaks, level=2 if f.single else 0)


@functools.lru_cache(maxsize=64)
def _kept(f: Activation, std: float, mean: float) -> Samples:
    return sample(f, mean=mean, std=std, breaks=f.breaks)
