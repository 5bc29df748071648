"""Slopes of pointwise functions, and whether a function is a sum or a product."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import lru_cache, wraps
from typing import Any

import numpy as np

from fanin.graph import Kind, Node
from fanin.theory.moments import mean_of

Function = Callable[..., np.ndarray]

REMEMBERED = 256
NARROW = 1e-8
"""A step that still shows beside a number of order one, where a step relative to a tiny operand does not."""


def function_of(node: Node) -> Function:
    """What the node computes from its operands."""
    if node.kind is Kind.SUM:
        return _sum(float(node.attrs.get("alpha", 1.0)))
    return _product if node.kind is Kind.PRODUCT else node.attrs["fn"]


@lru_cache(maxsize=256)
def _sum(alpha: float) -> Function:
    return lambda x, y: x + alpha * y


def _product(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return x * y


@lru_cache(maxsize=256)
def flipped(fn: Function) -> Function:
    """A function of two, of its operands the other way round."""
    turned: Any = lambda y, x: fn(x, y)  # noqa: E731
    own = getattr(fn, "derivative", None)
    if own is not None:
        turned.derivative = lambda which, y, x: own(1 - which, x, y)
    return turned


def asked_once(question: Callable[[Function], bool]) -> Callable[[Function], bool]:
    """What a function is, found out once; functions to which a front end gave the same key are one."""
    found: OrderedDict[Hashable, bool] = OrderedDict()

    @wraps(question)
    def answer(fn: Function) -> bool:
        key = getattr(fn, "key", fn)
        if key not in found:
            found[key] = question(fn)
            if len(found) > REMEMBERED:
                found.popitem(last=False)
        return found[key]

    return answer


_last: tuple[Function, np.ndarray, np.ndarray] | None = None


def slope(fn: Function, values: np.ndarray) -> np.ndarray:
    """The derivative of a function of one; a rule and what goes along the signal ask for the same one in turn."""
    global _last
    if _last is None or _last[0] is not fn or _last[1] is not values:
        _last = fn, values, derivative(fn, values)
    return _last[2]


def derivative(fn: Function, values: np.ndarray, *others: np.ndarray) -> np.ndarray:
    """Derivative of a function in its first argument, on the grid's values: the front end's, or a central difference.

    They differ at kinks where many values lie: behind a residual branch that starts at zero the second ReLU of a block
    passes nothing back where the first was zero, not a half.
    """
    if not others and is_straight(fn):
        return np.broadcast_to(fn(np.ones(1)) - fn(np.zeros(1)), values.shape)
    own = getattr(fn, "derivative", None)
    try:
        found = _difference(fn, values, *others) if own is None else own(0, values, *others)
    except RuntimeError:  # the framework has none of its own (heaviside)
        found = _difference(fn, values, *others)
    finite = np.isfinite(found)
    return found if finite.all() else np.where(finite, found, 0.0)


def _difference(fn: Function, values: np.ndarray, *others: np.ndarray) -> np.ndarray:
    """Central difference of a function in its first argument."""
    step = np.maximum(np.abs(values), 1e-3 * (np.sqrt(mean_of(np.minimum(values**2, 1e60))) + 1e-30)) * 1e-5
    change, up = _change(fn, values, others, step)
    found = change / (2 * step)
    narrow = step < NARROW
    if narrow.any():  # 1 + w at w = 0: the function changes by no more than rounding
        lost = narrow & (np.abs(change) <= 1e-9 * np.abs(up))
        if lost.any():
            step = np.maximum(step, NARROW)
            found = np.where(lost, _change(fn, values, others, step)[0] / (2 * step), found)
    return found


def _change(fn: Function, values: np.ndarray, others, step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """By how much a function differs between a step up and a step down, and what it is up there."""
    with np.errstate(all="ignore"):
        up, down = np.asarray(fn(values + step, *others)), np.asarray(fn(values - step, *others))
        return up - down, up


def partial(fn: Function, values: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Derivative of a function of two in its first operand; of sums exactly, whose step is lost beside a larger one."""
    if is_sum(fn):
        return np.full(values.shape, float(fn(1.0, 0.0) - fn(0.0, 0.0)))
    if is_product(fn):
        return np.broadcast_to(other, np.broadcast_shapes(values.shape, other.shape))
    return derivative(fn, values, other)


@asked_once
def is_straight(fn: Function) -> bool:
    """Whether a function of one is a x + b, as far out as signals are."""
    probe = np.array([-1e30, -7e4, -40.0, -1.7, -1e-3, -1e-20, 1e-20, 1e-3, 0.3, 2.0, 100.0, 1e5, 1e30])
    try:
        line = (fn(np.ones(1)) - fn(np.zeros(1))) * probe
        return bool(np.allclose(fn(probe) - fn(np.zeros(1)), line, rtol=1e-9, atol=1e-12))
    except Exception:
        return False


@asked_once
def is_sum(fn: Function) -> bool:
    probe = np.array([0.3, -1.7])
    try:
        return bool(
            np.allclose(fn(probe, 2.0) - fn(0 * probe, 2.0), fn(probe, -5.0) - fn(0 * probe, -5.0))
            and np.allclose(fn(2 * probe, 0.0) - fn(0.0, 0.0), 2 * (fn(probe, 0.0) - fn(0.0, 0.0)))
        )
    except Exception:
        return False


@asked_once
def is_product(fn: Function) -> bool:
    probe = np.array([0.3, -1.7])
    try:
        return bool(np.allclose(fn(probe, 2.0), 2 * probe) and np.allclose(fn(probe, -0.7), -0.7 * probe))
    except Exception:
        return False
