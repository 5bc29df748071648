"""A weight in which equal blocks of rows have laws of their own: the gates of an LSTM, or queries, keys and values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from fanin.distributions.law import Distribution
from fanin.errors import ArgumentError


@dataclass(frozen=True)
class Stacked(Distribution):
    """The first axis cut into equal blocks, one law each, drawn independently.

    Blocks with i.i.d. laws are slices of the tensor's own stream: four blocks of Normal(1) are Normal(1).

    Example:
        >>> from fanin.distributions import Constant, Zeros
        >>> forget_one = Stacked((Zeros(), Constant(1.0), Zeros(), Zeros()))
        >>> print(forget_one, forget_one.moments((8,))[0])
        stacked(zeros, constant(value=1), 2 x zeros) 0.25
    """

    parts: tuple[Distribution, ...]
    kind, iid = "stacked", False

    def __post_init__(self) -> None:
        parts = tuple(Distribution.from_dict(p) if isinstance(p, Mapping) else p for p in self.parts)
        if not parts or not all(isinstance(p, Distribution) and not isinstance(p, Stacked) for p in parts):
            raise ArgumentError(
                f"stacked: parts are {self.parts!r}",
                remedy="give one law a block, such as (Zeros(), Constant(1.0), Zeros(), Zeros())",
            )
        object.__setattr__(self, "parts", parts)

    @property
    def kurtosis(self) -> float:
        """Of an element of a block picked at random, taken about the mean of all."""
        if not all(part.iid for part in self.parts):
            return 3.0
        mean = sum(p.mean for p in self.parts) / len(self.parts)
        apart = [(p.mean - mean, p.std**2, p.kurtosis if p.std else 0.0) for p in self.parts]
        fourth = sum(k * v**2 + 6 * d**2 * v + d**4 for d, v, k in apart)
        second = sum(v + d**2 for d, v, _ in apart)
        return len(self.parts) * fourth / second**2 if second else math.nan

    @property
    def support(self) -> tuple[float, float]:
        lows, highs = zip(*(part.support for part in self.parts), strict=True)
        return min(lows), max(highs)

    @property
    def std(self) -> float:
        raise self._needs_shape("std")

    @property
    def mean(self) -> float:
        raise self._needs_shape("mean")

    def block(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Shape of one block of a weight of this shape. Errors: ArgumentError where the rows cannot be cut."""
        if not len(shape) or int(shape[0]) % len(self.parts):
            raise ArgumentError(
                f"{self} cannot fill a weight of shape {tuple(shape)}",
                cause=f"its first axis must be a multiple of {len(self.parts)}",
                remedy="give as many laws as the weight has blocks",
            )
        return int(shape[0]) // len(self.parts), *(int(n) for n in shape[1:])

    def moments(self, shape: Sequence[int] | None = None) -> tuple[float, float]:
        if shape is None:
            raise self._needs_shape("moments")
        found = [part.moments(self.block(shape)) for part in self.parts]
        mean = sum(m for m, _ in found) / len(found)
        second = sum(m**2 + s**2 for m, s in found) / len(found)
        return mean, math.sqrt(max(second - mean**2, 0.0))

    def _scaled(self, factor: float) -> Stacked:
        return Stacked(tuple(part.scaled(factor) for part in self.parts))

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "parts": [part.to_dict() for part in self.parts]}

    def __str__(self) -> str:
        runs = [(str(part), len(list(same))) for part, same in groupby(self.parts)]
        return f"stacked({', '.join(text if n == 1 else f'{n} x {text}' for text, n in runs)})"
