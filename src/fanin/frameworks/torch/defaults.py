"""How the framework, or the model's class, would draw each parameter: found by listening, not by a list of classes.

The model's own initialization is run on a meta copy under a dispatch mode. On meta tensors nothing is computed, but
every ``normal_``, ``uniform_``, ``zero_`` passes by and says what the values would be; truncated normals are recognised
from their inverse-CDF recipe, orthogonal matrices from their QR.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fanin.distributions import Constant, Distribution, Normal, Orthogonal, TruncatedNormal, Uniform
from fanin.frameworks.torch.shadow import shadow


@dataclass(frozen=True, slots=True)
class _Draw:
    """What is known of a storage's values: a law up to shift and scale, or an array."""

    kind: str
    mean: float = 0.0
    std: float = 0.0
    bound: float = math.inf
    array: Any = None

    def moved(self, scale: float = 1.0, shift: float = 0.0) -> _Draw:
        array = None if self.array is None else self.array * scale + shift
        return _Draw(self.kind, self.mean * scale + shift, abs(scale) * self.std, self.bound, array)

    def distribution(self) -> Distribution | None:
        if self.kind == "constant" or (self.std == 0 and self.kind != "array"):
            return Constant(self.mean)
        if self.kind == "normal":
            return Normal(self.std, mean=self.mean)
        if self.kind == "uniform":
            return Uniform(self.std, mean=self.mean)
        if self.kind == "truncated":
            return (
                TruncatedNormal(self.std, bound=self.bound, mean=self.mean)
                if self.bound < 8
                else Normal(self.std, mean=self.mean)
            )
        if self.kind == "orthogonal":
            return Orthogonal(self.std)
        if self.kind == "array" and self.array is not None and self.array.size:
            return _fitted(self.array)
        return None


def _fitted(array: np.ndarray) -> Distribution:
    mean, std = float(array.mean()), float(array.std())
    return Constant(mean) if std <= 1e-12 * max(abs(mean), 1e-30) else Normal(std, mean=mean)


class Listener(TorchDispatchMode):
    """Writes down what in-place operations would leave in each storage."""

    def __init__(self) -> None:
        super().__init__()
        self.draws: dict[int, _Draw] = {}
        self._kept: list[torch.Tensor] = []  # storages must outlive the listening: their addresses are the keys

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = func._schema.name.split("::")[-1]
        handler = _HANDLERS.get(name)
        target = args[0] if args and isinstance(args[0], torch.Tensor) else None
        if handler is not None and target is not None:
            self._note(target, handler(self.of(target), func, args, kwargs, self))
        elif name == "linalg_qr":
            for tensor in out:
                self._note(tensor, _Draw("orthogonal", 0.0, 1.0))
        elif (
            name in ("mul", "t", "transpose", "view", "clone", "sign", "diag", "abs")
            and target is not None
            and isinstance(out, torch.Tensor)
        ):
            draw = self.of(target)
            if draw is not None and _key(out) != _key(target) and name in ("mul", "clone"):
                self._note(out, draw if not _is_number(args, 1) else draw.moved(float(args[1])))
        elif name in ("randn", "rand", "normal") and isinstance(out, torch.Tensor):
            self._note(out, _Draw("normal", 0.0, 1.0) if name != "rand" else _uniform(0.0, 1.0))
        return out

    def truncated(self, tensor: torch.Tensor, mean: float, std: float, low: float, high: float) -> None:
        """A truncated normal with bounds as given; unequal ones are taken at the nearer."""
        bound = min(high - mean, mean - low) / std if std > 0 else math.inf
        from fanin.distributions import truncation_factor

        factor = truncation_factor(bound) if 0 < bound < 8 else 1.0
        self._note(tensor, _Draw("truncated", float(mean), std * factor, bound))

    def of(self, tensor: torch.Tensor) -> _Draw | None:
        """What is known of a tensor's storage, or of a real tensor's values."""
        if tensor.device.type != "meta":
            return _Draw("array", array=tensor.detach().float().numpy()) if tensor.numel() <= 1 << 20 else None
        return self.draws.get(_key(tensor))

    def _note(self, tensor: torch.Tensor, draw: _Draw | None) -> None:
        if draw is None or tensor.device.type != "meta":
            return
        whole = tensor.untyped_storage().nbytes() // max(tensor.element_size(), 1)
        if tensor.numel() < whole and _key(tensor) in self.draws:
            return  # a part was overwritten, such as the row of a padding index: the law of the rest stands
        self.draws[_key(tensor)] = draw
        self._kept.append(tensor)


def _key(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _is_number(args: tuple, i: int) -> bool:
    return len(args) > i and isinstance(args[i], int | float)


def _uniform(low: float, high: float) -> _Draw:
    return _Draw("uniform", (low + high) / 2, (high - low) / math.sqrt(12))


def _number(args, kwargs, i: int, name: str, default: float) -> float:
    value = args[i] if len(args) > i else kwargs.get(name, default)
    return float(value) if isinstance(value, int | float) else default


def _scaled(draw, func, args, kwargs, listener):
    if draw is None:
        return None
    if _is_number(args, 1):
        factor = float(args[1])
        return draw.moved(1 / factor if func._schema.name.endswith("div_") else factor)
    return draw  # a sign or mask on the other side keeps the scale of a symmetric law


def _shifted(draw, func, args, kwargs, listener):
    sign = -1.0 if "sub" in func._schema.name else 1.0
    return draw.moved(1.0, sign * float(args[1])) if draw is not None and _is_number(args, 1) else draw


def _inverse_cdf(draw, func, args, kwargs, listener):
    """uniform(-a, a) -> erfinv: a truncated normal of scale 1/sqrt(2), bound sqrt(2) erfinv(a)."""
    if draw is None or draw.kind != "uniform":
        return None
    from scipy.special import erfinv

    half = abs(draw.mean) + draw.std * math.sqrt(3)
    bound = float(math.sqrt(2) * erfinv(min(half, 1 - 1e-16)))
    from fanin.distributions import truncation_factor

    factor = truncation_factor(bound) if bound < 8 else 1.0
    return _Draw("truncated", 0.0, factor / math.sqrt(2), bound)


def _copied(draw, func, args, kwargs, listener):
    return listener.of(args[1]) if isinstance(args[1], torch.Tensor) else None


_HANDLERS = {
    "normal_": lambda d, f, a, k, s: _Draw("normal", _number(a, k, 1, "mean", 0.0), _number(a, k, 2, "std", 1.0)),
    "uniform_": lambda d, f, a, k, s: _uniform(_number(a, k, 1, "from", 0.0), _number(a, k, 2, "to", 1.0)),
    "zero_": lambda d, f, a, k, s: _Draw("constant"),
    "fill_": lambda d, f, a, k, s: _Draw("constant", _number(a, k, 1, "value", 0.0)),
    "mul_": _scaled,
    "div_": _scaled,
    "add_": _shifted,
    "sub_": _shifted,
    "clamp_": lambda d, f, a, k, s: d,
    "erfinv_": _inverse_cdf,
    "copy_": _copied,
    "set_": _copied,
}


@contextmanager
def _heard(listener: Listener) -> Iterator[None]:
    """Let the listener hear truncated normals, which torch draws by rejection or, on meta tensors, not at all."""
    real = torch.nn.init._no_grad_trunc_normal_

    def truncated(tensor, mean, std, a, b, generator=None):
        listener.truncated(tensor, mean, std, a, b)
        return tensor

    torch.nn.init._no_grad_trunc_normal_ = truncated  # type: ignore[assignment]
    try:
        with listener:
            yield
    finally:
        torch.nn.init._no_grad_trunc_normal_ = real


def default_draws(model: torch.nn.Module) -> tuple[dict[str, Distribution], dict[str, np.ndarray]]:
    """Laws of parameters, and arrays of buffers, as the model's own initialization would leave them.

    Returns:
        laws by parameter name, and the values of those buffers that are computed rather than drawn.
    """
    listener = Listener()
    copied = shadow(model, lambda t: torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="meta"))
    with _heard(listener), torch.no_grad(), torch.random.fork_rng(devices=[]):
        _initialize(copied)
    laws, arrays = {}, {}
    for name, tensor in copied.named_parameters(remove_duplicate=False):
        draw = listener.draws.get(_key(tensor))
        law = draw.distribution() if draw is not None else None
        if law is not None:
            laws[name] = law
    for name, tensor in copied.named_buffers(remove_duplicate=False):
        draw = listener.draws.get(_key(tensor))
        if draw is not None and draw.array is not None and draw.array.shape == tuple(tensor.shape):
            arrays[name] = draw.array
        elif draw is not None and draw.kind == "constant":
            arrays[name] = np.full(tuple(tensor.shape), draw.mean)
    return laws, arrays


def _initialize(model: torch.nn.Module) -> None:
    for module in reversed(list(model.modules())):  # parts first, as they are built: the whole may draw anew
        for method in ("reset_parameters", "_reset_parameters"):
            if callable(getattr(module, method, None)):
                try:
                    getattr(module, method)()
                except Exception:
                    continue  # one that cannot run on meta tensors leaves its parameters unknown, which is said later
                break
    for tensor in [*model.parameters(), *model.buffers()]:
        if getattr(tensor, "_is_hf_initialized", False):
            tensor._is_hf_initialized = False
    for module in model.modules():
        if getattr(module, "_is_hf_initialized", False):
            cast(Any, module)._is_hf_initialized = False  # a plain flag; torch types attributes as tensors or modules
    initialize = getattr(model, "initialize_weights", None)
    if callable(initialize):
        initialize()
