"""Numbers that tell a tensor's places apart: one for all, or one for every run of positions (``theory.places``).

They are kept by position whatever the axes, so that moves need not turn them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fanin.theory import places
from fanin.theory.adjoint import sequence
from fanin.theory.law import Law
from fanin.theory.moments import mean_of

Amount = float | np.ndarray
"""One number, or one for every run of positions."""
APART = 1e-2
"""Spread of positions, over their mean, below which one number stands for all."""


def by_place(law: Law, profile: np.ndarray) -> Amount:
    """The mean of a profile of the tensor, or that of every run of positions where these differ."""
    size = places.length(law)
    if size is None or profile.size == 1:
        return mean_of(profile)
    found = sequence.by_position(profile, law.axes, size)
    return found if np.ptp(found) > APART * np.mean(found) else mean_of(profile)


def as_profile(amount: Amount, law: Law) -> Amount:
    """To multiply a profile of the tensor by."""
    size = places.length(law)
    if np.ndim(amount) == 0 or size is None:
        return float(np.mean(amount))
    return sequence.laid_out(np.asarray(amount), law, size)


def fitting(amounts: Mapping[Any, Amount], law: Law) -> Mapping[Any, Amount]:
    """Of positions that the tensor does not have one number."""
    shapes = {getattr(v, "shape", ()) for v in amounts.values()}
    if shapes <= {()}:
        return amounts
    size = places.length(law)
    runs = 0 if size is None else len(places.runs(size).index)
    if shapes <= {(), (runs,)}:
        return amounts
    return {n: v if np.ndim(v) == 0 or np.size(v) == runs else one_number(v) for n, v in amounts.items()}


def one_number(value: Amount) -> float:
    """For all positions, of the same mean square."""
    return float(np.copysign(np.sqrt(np.mean(np.square(value))), np.mean(value)))


def level_weights(x: Law) -> np.ndarray:
    """Shares of a law's levels, or those at every run of positions where positions are of different levels."""
    size = places.length(x)
    if size is None or len(x.values) == 1 or places.POSITION not in x.level_groups:
        return x.level_weight
    return places.weights(x, size)
