"""Rows of the table that act on each element: functions, sums, products, dropout."""

from __future__ import annotations

from fanin.frameworks.torch.arguments import Arguments, Built, Row, numpy_function
from fanin.graph import Kind


def pointwise(a: Arguments) -> Built:
    return Kind.POINTWISE, {"fn": numpy_function(a.step, a.booleans)}


def _sum(sign: float) -> Row:
    def build(a: Arguments) -> Built:
        if len(a.refs) < 2 or a.at("other") is None or a.at("self") is None:
            return pointwise(a)
        return Kind.SUM, {"alpha": sign * float(a.get("alpha", 1) or 1)}

    return build


def _product(a: Arguments) -> Built:
    both = len(a.refs) == 2
    return (Kind.PRODUCT, {}) if both else pointwise(a)


def _dropout(feature: bool = False, alpha: bool = False) -> Row:
    return lambda a: (
        Kind.DROP,
        {"p": float(a["p"]), "active": bool(a.get("train", True)), "feature": feature, "alpha": alpha},
    )


# fmt: off
_POINTWISE = [
    "abs", "neg", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "rsqrt", "reciprocal", "square",
    "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "sigmoid",
    "erf", "erfc", "relu", "relu6", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus", "hardswish",
    "hardsigmoid", "hardtanh", "leaky_relu", "threshold", "log_sigmoid", "softshrink", "hardshrink", "tanhshrink",
    "softsign", "sign", "clamp", "clamp_min", "clamp_max", "pow", "rsub", "floor", "ceil", "round", "trunc", "frac",
    "nan_to_num", "sinc", "logit", "logaddexp", "maximum", "minimum", "rrelu", "heaviside", "xlogy", "atan2",
    "remainder", "fmod", "addcmul", "addcdiv", "lerp", "hypot", "polar", "div",
    "float_power", "positive", "true_divide", "divide", "floor_divide", "erfinv", "special_expit", "special_erf",
    "lgamma", "digamma", "deg2rad", "sgn", "clip", "fmax", "fmin",
    "where", "gt", "ge", "lt", "le", "eq", "ne", "greater", "greater_equal", "less", "less_equal",
    "not_equal", "isfinite", "isinf", "isnan", "signbit", "logical_and", "logical_or", "logical_not", "logical_xor",
    "bitwise_and", "bitwise_or", "bitwise_not", "bitwise_xor", "__and__", "__or__", "__xor__",
]
# fmt: on
"""Operations that act on each element alone, whatever they are: their own kernel says what they do."""

ELEMENTWISE: dict[str, Row] = {
    **dict.fromkeys(_POINTWISE, pointwise),
    "add": _sum(1.0),
    "sub": _sum(-1.0),
    "subtract": _sum(-1.0),
    "mul": _product,
    "multiply": _product,
    "dropout": _dropout(),
    "feature_dropout": _dropout(feature=True),
    "alpha_dropout": _dropout(alpha=True),
    "feature_alpha_dropout": _dropout(feature=True, alpha=True),
}
"""Sums and products of one tensor and a number are functions like any other."""
