"""Activation functions by name: one row each, a NumPy function, where it has kinks or jumps, and its parameters.

Names and parameters are those of torch.nn.functional, in the order in which it takes them; JAX, Keras and
``transformers`` spellings are aliases. Functions are exact in float64 over the whole line and never overflow where
their value is finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805


@dataclass(frozen=True)
class Row:
    """A named activation: ``function(x, **parameters)``; ``breaks(**parameters)`` are the x of its kinks and jumps."""

    function: Callable[..., Array]
    breaks: Callable[..., tuple[float, ...]] = lambda **_: ()
    parameters: dict[str, float] | None = None


def _special(name: str) -> Callable[[Array], Array]:
    import scipy.special  # not at import: it costs more than all of `import fanin` may take

    return getattr(scipy.special, name)


def _erf(x: Array) -> Array:
    return _special("erf")(x)


def _sigmoid(x: Array) -> Array:
    return _special("expit")(x)


def _gelu(x: Array) -> Array:
    return x * _special("ndtr")(x)


def _gelu_tanh(x: Array) -> Array:
    return x * _sigmoid(2.0 * math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3))  # (1 + tanh u)/2 = sigmoid(2u)


def _softplus(x: Array, beta: float) -> Array:
    return np.logaddexp(0.0, beta * x) / beta


def _elu(x: Array, alpha: float) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0.0)))


def _leaky(x: Array, negative_slope: float) -> Array:
    return np.where(x > 0, x, negative_slope * x)


def _clip01(x: Array) -> Array:
    return np.clip(x / 6.0 + 0.5, 0.0, 1.0)


def at(*points: float) -> Callable[..., tuple[float, ...]]:
    return lambda **_: points


ROWS: dict[str, Row] = {
    "linear": Row(lambda x: x),
    "relu": Row(lambda x: np.maximum(x, 0.0), at(0.0)),
    "leaky_relu": Row(_leaky, at(0.0), {"negative_slope": 0.01}),
    "prelu": Row(_leaky, at(0.0), {"negative_slope": 0.25}),
    "relu6": Row(lambda x: np.clip(x, 0.0, 6.0), at(0.0, 6.0)),
    "relu_squared": Row(lambda x: np.maximum(x, 0.0) ** 2, at(0.0)),
    "threshold": Row(
        lambda x, threshold, value: np.where(x > threshold, x, value),
        lambda threshold, value: (threshold,),
        {"threshold": 0.0, "value": 0.0},
    ),
    "elu": Row(_elu, at(0.0), {"alpha": 1.0}),
    "celu": Row(lambda x, alpha: alpha * _elu(x / alpha, 1.0), at(0.0), {"alpha": 1.0}),
    "selu": Row(lambda x: SELU_SCALE * _elu(x, SELU_ALPHA), at(0.0)),
    "gelu": Row(_gelu),
    "gelu_tanh": Row(_gelu_tanh),
    "quick_gelu": Row(lambda x: x * _sigmoid(1.702 * x)),
    "silu": Row(lambda x: x * _sigmoid(x)),
    "mish": Row(lambda x: x * np.tanh(_softplus(x, 1.0))),
    "softplus": Row(_softplus, parameters={"beta": 1.0}),
    "hardswish": Row(lambda x: x * _clip01(x), at(-3.0, 3.0)),
    "hardsigmoid": Row(_clip01, at(-3.0, 3.0)),
    "hardtanh": Row(
        lambda x, min_val, max_val: np.clip(x, min_val, max_val),
        lambda min_val, max_val: (min_val, max_val),
        {"min_val": -1.0, "max_val": 1.0},
    ),
    "tanh": Row(np.tanh),
    "sigmoid": Row(_sigmoid),
    "logsigmoid": Row(lambda x: -_softplus(-x, 1.0)),
    "softsign": Row(lambda x: x / (1.0 + np.abs(x)), at(0.0)),
    "erf": Row(_erf),
    "arctan": Row(np.arctan),
    "sin": Row(lambda x, omega: np.sin(omega * x), parameters={"omega": 1.0}),
    "cos": Row(lambda x, omega: np.cos(omega * x), parameters={"omega": 1.0}),
    "tanhshrink": Row(lambda x: x - np.tanh(x)),
    "softshrink": Row(
        lambda x, lambd: np.sign(x) * np.maximum(np.abs(x) - lambd, 0.0), lambda lambd: (-lambd, lambd), {"lambd": 0.5}
    ),
    "hardshrink": Row(
        lambda x, lambd: np.where(np.abs(x) > lambd, x, 0.0), lambda lambd: (-lambd, lambd), {"lambd": 0.5}
    ),
    "exp": Row(np.exp),
    "abs": Row(np.abs, at(0.0)),
    "square": Row(np.square),
    "step": Row(lambda x: np.where(x > 0, 1.0, 0.0), at(0.0)),
    "sign": Row(np.sign, at(0.0)),
}

ALIASES: dict[str, tuple[str, dict[str, Any]]] = {
    "identity": ("linear", {}),
    "leakyrelu": ("leaky_relu", {}),
    "gelu_new": ("gelu_tanh", {}),
    "gelu_fast": ("gelu_tanh", {}),
    "gelu_pytorch_tanh": ("gelu_tanh", {}),
    "gelu_approx": ("gelu_tanh", {}),
    "gelu_python": ("gelu", {}),
    "gelu_erf": ("gelu", {}),
    "swish": ("silu", {}),
    "hard_swish": ("hardswish", {}),
    "hard_silu": ("hardswish", {}),
    "hard_sigmoid": ("hardsigmoid", {}),
    "hard_tanh": ("hardtanh", {}),
    "log_sigmoid": ("logsigmoid", {}),
    "soft_sign": ("softsign", {}),
    "sine": ("sin", {}),
    "atan": ("arctan", {}),
    "heaviside": ("step", {}),
    "relu2": ("relu_squared", {}),
    "squared_relu": ("relu_squared", {}),
    "absolute": ("abs", {}),
}
SLOPED = {"slope": "negative_slope", "a": "negative_slope"}  # what the field calls the parameter of leaky_relu, prelu
