"""Fans of torch's layers, known by the names of their classes; torch itself is not imported."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from fanin.axes.layout import TORCH, TORCH_TRANSPOSED
from fanin.errors import ArgumentError

if TYPE_CHECKING:
    from fanin.axes.counts import Fans

RECURRENT = ("LSTM", "LSTMCell", "GRU", "GRUCell", "RNN", "RNNCell")


def is_module(thing: Any) -> bool:
    return hasattr(thing, "named_parameters") and hasattr(thing, "named_modules")


def of_module(module: Any, parameter: str | None) -> Fans:
    """Fans of a torch module, known by the names of its classes; torch itself is not imported."""
    names = [c.__name__ for c in type(module).__mro__ if c.__module__.split(".")[0] in ("torch", "transformers")]
    kind = next((name for name in names if name in _MODULES or name in RECURRENT), None)
    if kind is None:
        raise ArgumentError(
            f"fans of {type(module).__name__}",
            cause="it is no module whose weight layout is known",
            remedy="give the shape of its weight and the layout",
        )
    rule = _recurrent if kind in RECURRENT else _MODULES[kind]
    try:
        return rule(module, parameter)
    except AttributeError as error:
        raise ArgumentError(
            f"{type(module).__name__} has no weight {parameter or ''}".rstrip(),
            cause=str(error),
            remedy="name one it has",
        ) from None


def _fans(shape: tuple[int, ...], **options: Any) -> Fans:
    from fanin.axes.counts import fans  # which asks this file for the fans of a module

    return fans(shape, **options)


def _weight(module: Any, parameter: str | None, default: str = "weight") -> tuple[int, ...]:
    weight = operator.attrgetter(parameter or default)(module)
    try:
        return tuple(weight.shape)
    except (AttributeError, RuntimeError):  # a lazy module has not seen an input; a parameter may be None
        raise ArgumentError(
            f"{type(module).__name__} has no {parameter or default} yet",
            cause="it is a lazy module that has not seen an input, or was built without it",
            remedy="run the module once, or name another parameter",
        ) from None


def _convolution(module: Any, parameter: str | None) -> Fans:
    return _fans(
        _weight(module, parameter),
        layout=(TORCH_TRANSPOSED if module.transposed else TORCH)[len(module.weight.shape)],
        groups=module.groups,
        transposed=module.transposed,
        stride=module.stride,
        dilation=module.dilation,
        padding=module.padding,
        output_padding=module.output_padding,
        padding_mode=module.padding_mode,
    )


def _bilinear(module: Any, parameter: str | None) -> Fans:
    """The products of both inputs are what a bilinear weight takes in."""
    return _fans(_weight(module, parameter), in_axes=(1, 2), out_axes=0)


def _attention(module: Any, parameter: str | None) -> Fans:
    packed = getattr(module, "in_proj_weight", None) is not None
    name = parameter or ("in_proj_weight" if packed else "q_proj_weight")
    return _fans(_weight(module, name), layout="OI", blocks=3 if name == "in_proj_weight" else 1)


def _recurrent(module: Any, parameter: str | None) -> Fans:
    name = parameter or ("weight_ih" if hasattr(module, "weight_ih") else "weight_ih_l0")
    shape = _weight(module, name)
    return _fans(shape, layout="OI", blocks=1 if name.startswith("weight_hr") else shape[0] // module.hidden_size)


_MODULES = {
    "Linear": lambda m, p: _fans(_weight(m, p), layout="OI"),
    "Conv1D": lambda m, p: _fans(_weight(m, p), layout="IO"),
    "Embedding": lambda m, p: _fans(_weight(m, p), layout="embedding"),
    "EmbeddingBag": lambda m, p: _fans(_weight(m, p), layout="embedding"),
    "Bilinear": _bilinear,
    "MultiheadAttention": _attention,
    **{f"Conv{transposed}{d}d": _convolution for transposed in ("", "Transpose") for d in (1, 2, 3)},
}
