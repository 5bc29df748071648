"""How a figure changes from block to block: by a factor, by a power of the depth, or not at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Form = Literal["steady", "exponential", "power", "irregular"]

LEAST = 2e-3  # change a block, in the logarithm, that counts as none
TOLERANCES = ((LEAST, 0.05), (0.03, 0.25))  # about a line, in the logarithm and of its slope: laws; then drawn weights


@dataclass(frozen=True, slots=True)
class Trend:
    """A positive figure along the blocks, in the direction in which it travels.

    Attributes:
        first, last: its values at the two ends.
        growth: factor a block: of the part behind ``start`` where it is exponential, else the geometric mean.
        form: "exponential" (a factor a block), "power" (a power of the depth), "steady", or "irregular".
        exponent: of the depth, counted from the start of the net, where the form is "power".
        start: index of the first block of the net from which on one growth holds.
    """

    first: float
    last: float
    growth: float
    form: Form
    exponent: float | None = None
    start: int = 0

    @property
    def half_life(self) -> float:
        """Blocks in which it halves, or doubles: ln 2 / |ln growth|; infinite where it is steady or follows a power."""
        if self.form in ("steady", "power") or self.growth == 1:
            return math.inf
        return math.log(2) / abs(math.log(self.growth))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return {name: getattr(self, name) for name in self.__slots__} | {"half_life": self.half_life}


def trend(values: Sequence[float | None], *, backward: bool = False) -> Trend | None:
    """The trend of three values or more; None where one is missing, zero or not finite.

    What is not settled yet is at the start of the net, whichever way the figure travels: blocks are left out there
    until the rest grows evenly.

    Args:
        values: from the start of the net to its end.
        backward: they travel from the end to the start.

    Example:
        >>> found = trend([1.0, 0.9, 0.81, 0.729])
        >>> found.form, round(found.growth, 3), round(found.half_life, 1)
        ('exponential', 0.9, 6.6)
        >>> trend([2.0**0.5, 3.0**0.5, 4.0**0.5, 5.0**0.5, 6.0**0.5]).form
        'power'
    """
    known = [v for v in values if v is not None and math.isfinite(v) and v > 0]
    if len(known) != len(values) or len(known) < 3:
        return None
    logs, sign = np.log(known), -1 if backward else 1
    ends = (float(known[::sign][0]), float(known[::sign][-1]))
    mean = math.exp(sign * float(np.diff(logs).mean()))
    if np.abs(np.diff(logs)).max() < LEAST:
        return Trend(*ends, mean, "steady")
    exponent = _power(logs)
    if exponent is not None:
        return Trend(*ends, mean, "power", exponent)
    for noise, bend in TOLERANCES:
        for start in range(len(logs) // 2 + 1):
            slope, error, miss = _line(logs[start:])
            if miss <= max(noise, bend * abs(slope)):
                form: Form = "steady" if abs(slope) < max(LEAST, 2 * error) else "exponential"
                return Trend(*ends, math.exp(sign * slope), form, start=start)
    return Trend(*ends, mean, "irregular")


def _line(logs: np.ndarray) -> tuple[float, float, float]:
    """Slope of the least-squares line, its standard error, and the root mean square of what it misses."""
    depth = np.arange(len(logs)) - (len(logs) - 1) / 2
    slope = float(depth @ logs / (depth @ depth))
    missed = logs - logs.mean() - slope * depth
    free = max(len(logs) - 2, 1)
    return slope, float(np.sqrt(missed @ missed / free / (depth @ depth))), float(np.sqrt(np.mean(missed**2)))


def _power(logs: np.ndarray) -> float | None:
    """The b of y = a (l + l0)^b, where it fits better than any factor a block does."""
    depth = np.arange(len(logs))

    def miss(x: np.ndarray) -> tuple[float, float]:
        slope, at = np.polyfit(x, logs, 1)
        return float(np.sqrt(np.mean((logs - at - slope * x) ** 2))), float(slope)

    exponential = miss(depth)[0]
    shifts = np.geomspace(0.05, 4.0 * len(logs), 60)
    found, exponent = min(miss(np.log(depth + shift)) for shift in shifts)
    return exponent if found < 0.2 * exponential and found < 0.05 * np.ptp(logs) else None
