"""Whether the scale of a weight fits the function that feeds it: the factor a layer puts on signal and gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fanin.activations import ROWS, moments
from fanin.checks.case import Case, std_of
from fanin.errors import FaninError
from fanin.graph.nonlinearity import Nonlinearity
from fanin.graph.questions import Contraction, is_homogeneous

# fmt: off
KNOWN = (
    "relu", "tanh", "sigmoid", "gelu", "gelu_tanh", "silu", "elu", "selu", "leaky_relu", "relu6", "softplus", "mish",
    "hardtanh", "quick_gelu", "hardswish", "softsign", "erf", "arctan", "hardsigmoid", "relu_squared",
)
# fmt: on
PROBE = np.linspace(-5, 5, 41)


@dataclass(frozen=True)
class Fit:
    """One hidden layer and what its scale does.

    Attributes:
        layer, function: the layer and the function that feeds it; ``name`` is the function's.
        gain: std * sqrt(fan_in) of the weight as it is; ``needed`` keeps signal (or gradient) as it is.
        factor: what the layer multiplies an rms by: of the signal where the function is homogeneous (``forward``),
            else of the gradient at the pre-activation's rms.
        settled: the rms is the one that depth leads to with this gain (for bounded functions), not that of this layer.
    """

    layer: Contraction
    function: Nonlinearity
    name: str
    std: float
    gain: float
    needed: float
    factor: float
    forward: bool
    settled: bool = False


def fits(case: Case) -> list[Fit]:
    """A Fit for every plain hidden layer whose weight and function are known."""
    found = (fit(case, layer, function) for layer, function in case.plain)
    return [f for f in found if f is not None]


def fit(case: Case, layer: Contraction, function: Nonlinearity) -> Fit | None:
    """What the layer's scale does to what the function feeds it."""
    std, name = std_of(layer.weight), called(function)
    if not std or not math.isfinite(std):
        return None
    gain = std * math.sqrt(layer.fans.fan_in)
    spec = name if name in ROWS else function.fn
    forward = is_homogeneous(function.fn)
    if not forward and bounded(function):
        factor = settled_factor(function, gain)
        return Fit(layer, function, name, std, gain, gain / factor, factor, False, True) if factor > 0 else None
    before = case.rms(case.graph.by_id[function.start])
    at = _moments(spec, 1.0 if forward or not before else min(max(before, 1e-3), 1e3))
    if at is None:
        return None
    needed = 1 / math.sqrt(at.second_moment if forward else at.derivative_second_moment)
    return Fit(layer, function, name, std, gain, needed, gain / needed, forward)


def bounded(function: Nonlinearity) -> bool:
    """Whether a function is flat on both sides, and not the same there."""
    try:
        ends = np.asarray(function.fn(np.array([-1e4, -1e3, 0.0, 1e3, 1e4])), float)
    except Exception:
        return False
    flat = abs(ends[0] - ends[1]) < 1e-2 and abs(ends[3] - ends[4]) < 1e-2
    return bool(flat and abs(ends[0] - ends[4]) > 1e-3 and np.isfinite(ends).all())


def settled_factor(function: Nonlinearity, gain: float) -> float:
    """gain * sqrt(E f'^2) at the rms that layers of this gain settle at: above 1 gradients grow with every layer.

    Source: Poole et al. 2016, Exponential expressivity in deep neural networks through transient chaos,
    arXiv:1606.05340.
    """
    z = np.linspace(-6, 6, 601)
    weight = np.exp(-(z**2) / 2)
    weight /= weight.sum()
    rms = 1.0
    for _ in range(60):
        rms = max(gain * math.sqrt(float(weight @ np.square(function.fn(rms * z)))), 1e-2)
    slope = (np.asarray(function.fn(rms * z + 1e-4)) - np.asarray(function.fn(rms * z - 1e-4))) / 2e-4
    return gain * math.sqrt(float(weight @ slope**2))


def _moments(spec: Any, std: float):
    try:
        found = moments(spec, std)
    except FaninError:
        return None
    kept = found.second_moment > 0 and 0 < found.derivative_second_moment < math.inf
    return found if kept else None


def called(function: Nonlinearity) -> str:
    """The name of the known activation that gives the same values, else what the graph calls it."""
    try:
        values = np.asarray(function.fn(PROBE), float)
    except Exception:
        return function.name
    for name in KNOWN:
        row = ROWS[name]
        if np.allclose(values, row.function(PROBE, **(row.parameters or {})), rtol=1e-5, atol=1e-7):
            return name
    return function.name


SCHEMES = {
    "He's (fan_in)": lambda i, o: math.sqrt(2 / i),
    "He's (fan_out)": lambda i, o: math.sqrt(2 / o),
    "Xavier's": lambda i, o: math.sqrt(2 / (i + o)),
    "LeCun's": lambda i, o: math.sqrt(1 / i),
    "torch's default": lambda i, o: math.sqrt(1 / (3 * i)),
    "Xavier's with the gain 5/3": lambda i, o: 5 / 3 * math.sqrt(2 / (i + o)),
    "a fixed 0.02": lambda i, o: 0.02,
    "a fixed 0.01": lambda i, o: 0.01,
    "a fixed 0.001": lambda i, o: 0.001,
    "a fixed 1": lambda i, o: 1.0,
}


def scheme_of(layer: Contraction, std: float) -> str | None:
    """The scheme whose std this is, within what sampling explains."""
    i, o = layer.fans.fan_in, layer.fans.fan_out
    tolerance = max(4 / math.sqrt(2 * layer.weight.size), 0.004)
    near = [name for name, rule in SCHEMES.items() if abs(std / rule(i, o) - 1) < tolerance]
    if near and i == o and near[0] != "a fixed 0.02":
        near = [n for n in near if "fan_out" not in n and n != "LeCun's"] or near
    return near[0] if near else None
