"""What a user means by an activation: a name, a framework's module, or any elementwise callable.

Nothing here imports a framework. A callable is tried on a NumPy array; where it will not have one and torch is
already loaded, it is given a torch tensor. What comes back must be elementwise, deterministic and finite.
"""

from __future__ import annotations

import copy
import difflib
import functools
import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fanin.activations.named import ALIASES, ROWS, SLOPED
from fanin.errors import ArgumentError

Array = NDArray[np.float64]
_TRIAL = np.random.default_rng(0).normal(size=64)


@dataclass(frozen=True, eq=False)
class Activation:
    """An elementwise function of float64 arrays, ready for quadrature.

    ``breaks`` are the x of kinks and jumps known beforehand; ``named`` says that it came from the table; ``single``
    that it computes in single precision; ``slope`` is the derivative that the framework's own backward pass takes,
    which for a straight-through estimator is not that of the function.
    """

    name: str
    function: Callable[[Array], Array]
    breaks: tuple[float, ...] = ()
    named: bool = False
    single: bool = False
    slope: Callable[[Array], Array] | None = None

    def __call__(self, x: Array) -> Array:
        return self.function(x)


def activation(spec: Any, **parameters: float) -> Activation:
    """The elementwise function that ``spec`` stands for.

    Args:
        spec: a name ("relu", "leaky_relu(0.1)", "gelu(tanh)"), a torch module or function, any NumPy callable, or
            an Activation.
        parameters: parameters of a named activation, such as ``negative_slope=0.1`` (or ``slope``) of "leaky_relu".

    Errors: ArgumentError for an unknown name or parameter, and for a callable that raises, mixes elements, changes the
    shape, gives something else each time, or gives NaN.

    Example:
        >>> activation("leaky_relu", slope=0.1)(np.array([-1.0, 2.0])).tolist()
        [-0.1, 2.0]
    """
    if isinstance(spec, str):
        name, given = _parse(spec)
        return _named(name, tuple(sorted({**given, **_plain(parameters)}.items())))
    if parameters:
        raise ArgumentError(
            f"parameters {', '.join(parameters)} given with {spec!r}",
            cause="only activations given by name take parameters",
            remedy="wrap them in the callable: lambda x: f(x, slope)",
        )
    if isinstance(spec, Activation):
        return spec
    if not callable(spec):
        raise ArgumentError(
            f"{spec!r} is no activation", remedy='give a name such as "relu", a module, or a callable of one array'
        )
    return _checked(spec() if inspect.isclass(spec) else spec)


def _parse(text: str) -> tuple[str, dict[str, float]]:
    """'leaky_relu(0.1)' -> ('leaky_relu', {'negative_slope': 0.1})."""
    match = re.fullmatch(r"\s*([\w\- ]+?)\s*(?:\(([^()]*)\))?\s*", text)
    name = re.sub(r"[\- ]", "_", match[1].lower()) if match else text
    inside = [part.strip() for part in match[2].split(",") if part.strip()] if match and match[2] else []
    if name == "gelu" and len(inside) == 1:
        kind = inside[0].split("=")[-1].strip("'\" ")
        if kind in ("tanh", "erf", "none"):
            return ("gelu_tanh" if kind == "tanh" else "gelu"), {}
    name, preset = ALIASES.get(name, (name, {}))
    if name not in ROWS:
        near = difflib.get_close_matches(name, [*ROWS, *ALIASES], n=1)
        raise ArgumentError(
            f"{text!r} is no activation",
            cause=f"did you mean {near[0]!r}?" if near else None,
            remedy=f"known: {', '.join(ROWS)}; or give a callable",
        )
    order = list(ROWS[name].parameters or ())
    given = dict(preset)
    for i, part in enumerate(inside):
        key, _, value = part.rpartition("=")
        try:
            given[key.strip() or order[i]] = float(value)
        except (ValueError, IndexError):
            raise ArgumentError(
                f"{text!r}: cannot read {part!r}", remedy=f"{name} takes {', '.join(order) or 'no parameters'}"
            ) from None
    return name, _plain(given)


def _plain(parameters: dict[str, float]) -> dict[str, float]:
    return {SLOPED.get(key, key): float(value) for key, value in parameters.items()}


@functools.lru_cache(maxsize=256)
def _named(name: str, given: tuple[tuple[str, float], ...]) -> Activation:
    row = ROWS[name]
    defaults = row.parameters or {}
    unknown = [key for key, _ in given if key not in defaults]
    if unknown or not all(np.isfinite(value) for _, value in given):
        raise ArgumentError(
            f"{name} given {', '.join(f'{key}={value:g}' for key, value in given)}",
            remedy=f"it takes {', '.join(defaults) or 'no parameters'}, finite numbers",
        )
    parameters = {**defaults, **dict(given)}
    label = name + (f"({', '.join(f'{v:g}' for v in parameters.values())})" if parameters else "")
    return Activation(label, functools.partial(row.function, **parameters), row.breaks(**parameters), named=True)


def _checked(spec: Any) -> Activation:
    """Find out how to call ``spec``, and that it is an elementwise function."""
    name = getattr(spec, "__name__", None) or type(spec).__name__
    call, raw, slope = _caller(spec, name)
    value = _call(call, _TRIAL, name)
    if not np.isfinite(value).all():
        i = int(np.flatnonzero(~np.isfinite(value))[0])
        raise ArgumentError(
            f"{name} gives {value[i]} at x = {_TRIAL[i]:.4g}",
            cause="it is not defined there",
            remedy="give a function that is finite wherever a pre-activation can fall",
        )
    for x, wanted, cause in (
        (_TRIAL, value, "it gives another result each time (is it dropout, or a random slope in training mode?)"),
        (_TRIAL[::-1], value[::-1], "an element of its result depends on where the element stands"),
        (_TRIAL[:7], value[:7], "an element of its result depends on the other elements (is it a softmax or a norm?)"),
    ):
        if not np.allclose(_call(call, x, name), wanted, rtol=1e-5, atol=1e-6):
            raise ArgumentError(
                f"{name} is not a pointwise function", cause=cause, remedy="give a function of one element"
            )
    return Activation(name, lambda x: _call(call, x, name), single=raw.itemsize < 8, slope=slope)


def _caller(spec: Any, name: str) -> tuple[Callable[[Array], Any], np.dtype, Callable[[Array], Array] | None]:
    """A function from arrays to arrays, the dtype in which it computes, and its slope by torch's autograd."""
    torch = sys.modules.get("torch")
    failures: list[str] = []
    if torch is not None and isinstance(spec, torch.nn.Module):
        spec = _twin(spec, name)
    else:
        try:
            with np.errstate(all="ignore"):
                result = spec(_TRIAL.copy())
            if torch is None or not isinstance(result, torch.Tensor):
                return spec, np.asarray(result).dtype, None
        except Exception as error:
            failures.append(f"{type(error).__name__}: {error}")
    if torch is not None:
        call, slope = _through_torch(torch, spec)
        try:
            return call, call(_TRIAL.copy()).dtype, _usable(slope)
        except Exception as error:
            failures.append(f"{type(error).__name__}: {error}")
    raise ArgumentError(
        f"{name} cannot be called on an array of 64 numbers",
        cause=failures[-1],
        remedy="give a function of one NumPy array or one torch tensor",
    )


def _twin(module: Any, name: str) -> Any:
    """A copy in double precision and evaluation mode; the user's module keeps its dtype and its mode."""
    try:
        return copy.deepcopy(module).cpu().double().eval()
    except Exception as error:
        raise ArgumentError(
            f"{name} cannot be copied in double precision",
            cause=f"{type(error).__name__}: {error}",
            remedy="give a function of one tensor instead of the module",
        ) from error


def _through_torch(torch: Any, spec: Any) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    """A torch function, and its derivative by autograd, as functions of arrays."""

    def call(x: Array) -> Array:
        with torch.no_grad():
            return _to_numpy(spec(torch.from_numpy(x)))

    def slope(x: Array) -> Array:
        leaf = torch.from_numpy(np.array(x)).requires_grad_()
        with torch.enable_grad():
            value = spec(leaf.clone())  # a clone, since it may work in place
            return _to_numpy(torch.autograd.grad(value.sum(), leaf)[0]).astype(np.float64)

    return call, slope


def _usable(slope: Callable[[Array], Array]) -> Callable[[Array], Array] | None:
    """The slope, unless the framework has none or gives NaN."""
    try:
        return slope if np.isfinite(slope(_TRIAL)).all() else None
    except Exception:  # not differentiable in the framework: the function's own derivative is taken
        return None


def _to_numpy(tensor: Any) -> Array:
    return tensor.detach().cpu().numpy() if hasattr(tensor, "detach") else np.asarray(tensor)


def _call(call: Callable[[Array], Any], x: Array, name: str) -> Array:
    """The values as float64; the callable gets a copy, since it may work in place."""
    try:
        with np.errstate(all="ignore"):
            result = np.asarray(call(np.array(x)))
        value = np.real(result).astype(np.float64)
    except ArgumentError:
        raise
    except Exception as error:
        raise ArgumentError(
            f"{name} cannot be called on an array of {x.size} numbers",
            cause=f"{type(error).__name__}: {error}",
            remedy="give a function of one NumPy array or one torch tensor",
        ) from error
    if np.iscomplexobj(result) or value.shape != x.shape:
        raise ArgumentError(
            f"{name} turns an array of shape {x.shape} into {result.dtype} of shape {value.shape}",
            cause="a pointwise activation gives one real number for each",
            remedy="give a function of one element",
        )
    return value
