"""Backward through padding with copies of the signal (reflected, repeated, from the other end): copies add up.

A place of N that has k copies, itself included, gets the sum of their gradients; over all places nothing is lost,
``(M / N) E g^2`` of M padded ones, and of two places each hears of as many more.
"""

from __future__ import annotations

import numpy as np

from fanin.theory.adjoint.cotangent import Part, fresh
from fanin.theory.contraction import axis_groups
from fanin.theory.law import FEATURE, Law

MODES = {"reflect": "reflect", "circular": "wrap"}
"""Names of numpy's ways to pad, by the framework's; others repeat the edge."""


def by(mode: str) -> str:
    """The way to pad."""
    return MODES.get(mode, "edge")


def returned(part: Part, out: Law, x: Law, widths: tuple[tuple[int, int], ...], mode: str) -> Part:
    """The part in front of a padding by ``widths`` of each axis, all of them copies."""
    second, more = part.profile(out), 1.0
    mean = float(np.mean(second))
    for i, width in enumerate(widths):
        if not any(width):
            continue
        n = x.shape[i]
        index = np.pad(np.arange(n), width, mode=by(mode))  # type: ignore[call-overload]
        if second.shape[i] == 1:
            second = np.repeat(second, len(index), axis=i)
        along = axis_groups(x.axes[i]) - {FEATURE}
        alike = max(part.pair(out, along) / mean, 0.0) if along and mean > 0 else 0.0
        taken = np.bincount(index, minlength=n).reshape([-1] + [1] * (second.ndim - 1))
        total = np.zeros((n, *(np.delete(second.shape, i))))
        np.add.at(total, index, np.moveaxis(second, i, 0))
        second = np.moveaxis(total * (1 + (taken - 1) * alike), 0, i)
        more *= len(index) / n
    places = frozenset(t for axis, w in zip(x.axes, widths, strict=True) if any(w) for t in axis_groups(axis))
    grown = mean * more / max(float(np.mean(second)), 1e-300)  # of pairs that do not differ along the padded axes
    ratio = {
        s: float(np.clip(part.pair(out, s) / mean * grown * (more if s & places else 1.0), -1, 1)) if mean > 0 else 0.0
        for s in part.ratio
    }
    return fresh(second, ratio)
