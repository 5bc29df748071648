"""Slopes of pointwise functions, and whether a function is a sum or a product."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fanin.graph import Kind, Node

Function = Callable[..., np.ndarray]

NARROW = 1e-8
"""A step that still shows beside a number of order one, where a step relative to a tiny operand does not."""


def function_of(node: Node) -> Function:
    """What the node computes from its operands."""
    if node.kind is Kind.SUM:
        alpha = node.attrs.get("alpha", 1.0)
        return lambda x, y: x + alpha * y
    if node.kind is Kind.PRODUCT:
        return lambda x, y: x * y
    return node.attrs["fn"]


def derivative(fn: Function, values: np.ndarray, *others: np.ndarray) -> np.ndarray:
    """Central difference of a function in its first argument, on the grid's values."""
    step = 1e-5 * np.maximum(np.abs(values), 1e-3 * (np.sqrt(np.mean(np.minimum(values**2, 1e60))) + 1e-30))
    slope, lost = _quotient(fn, values, others, step)
    if np.any(lost & (step < NARROW)):  # 1 + w at w = 0
        slope = np.where(lost, _quotient(fn, values, others, np.maximum(step, NARROW))[0], slope)
    return np.where(np.isfinite(slope), slope, 0.0)


def _quotient(fn: Function, values: np.ndarray, others, step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Central difference over a step, and where the function changes by no more than rounding."""
    with np.errstate(all="ignore"):
        up, down = np.asarray(fn(values + step, *others)), np.asarray(fn(values - step, *others))
        return (up - down) / (2 * step), np.abs(up - down) <= 1e-9 * np.abs(up)


def partial(fn: Function, values: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Derivative of a function of two in its first operand; of a sum exactly: a step is lost beside a larger one."""
    return np.full(values.shape, float(fn(1.0, 0.0) - fn(0.0, 0.0))) if is_sum(fn) else derivative(fn, values, other)


def is_sum(fn: Function) -> bool:
    probe = np.array([0.3, -1.7])
    try:
        return bool(
            np.allclose(fn(probe, 2.0) - fn(0 * probe, 2.0), fn(probe, -5.0) - fn(0 * probe, -5.0))
            and np.allclose(fn(2 * probe, 0.0) - fn(0.0, 0.0), 2 * (fn(probe, 0.0) - fn(0.0, 0.0)))
        )
    except Exception:
        return False


def is_product(fn: Function) -> bool:
    probe = np.array([0.3, -1.7])
    try:
        return bool(np.allclose(fn(probe, 2.0), 2 * probe) and np.allclose(fn(probe, -0.7), -0.7 * probe))
    except Exception:
        return False
