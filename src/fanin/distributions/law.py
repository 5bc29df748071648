"""What every law has in common: a frozen record with its moments, support, quantiles, and a JSON round trip."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fanin.errors import ArgumentError


@dataclass(frozen=True)
class Distribution:
    """The law of a weight. Use one of the subclasses, or ``distribution(kind, std)`` to build one by name.

    ``kind`` is the name under which the law is stored, ``iid`` says whether elements are independent and identically
    distributed; only then do ``std``, ``mean``, ``kurtosis`` and ``quantile`` need no shape.

    Example:
        >>> from fanin.distributions import Normal
        >>> Distribution.from_dict(Normal(0.5).to_dict()) == Normal(0.5)
        True
    """

    kind: ClassVar[str] = ""
    iid: ClassVar[bool] = True
    _positive: ClassVar[tuple[str, ...]] = ()
    _finite: ClassVar[tuple[str, ...]] = ()
    _scales: ClassVar[tuple[str, ...]] = ()

    if TYPE_CHECKING:  # a real property here would become the default of a subclass's field of that name

        @property
        def std(self) -> float:
            """Exact standard deviation of an element as drawn."""
            ...

        @property
        def mean(self) -> float:
            """Mean of an element as drawn."""
            ...

    def __post_init__(self) -> None:
        for name in self._positive + self._finite:
            value = number(self.kind, name, getattr(self, name))
            if name in self._positive and value <= 0:
                raise ArgumentError(
                    f"{self.kind}: {name} is {value:g}",
                    cause=f"{name} must be greater than 0",
                    remedy="give a positive number, or use Constant(0) for weights that are all zero",
                )
            object.__setattr__(self, name, value)

    @property
    def kurtosis(self) -> float:
        """Fourth central moment over the squared variance: 3 for a normal law, NaN where the variance is 0."""
        raise NotImplementedError

    @property
    def support(self) -> tuple[float, float]:
        """The smallest and the largest value an element can take; infinite where there is no limit."""
        raise NotImplementedError

    @property
    def bounds(self) -> tuple[float, float] | None:
        """``support`` where it is finite, else None."""
        low, high = self.support
        return (low, high) if math.isfinite(low) and math.isfinite(high) else None

    def quantile(self, u: ArrayLike) -> NDArray[np.float64]:
        """The value below which an element falls with probability ``u``, element by element, in float64."""
        raise self._needs_shape("quantile")

    def moments(self, shape: Sequence[int] | None = None) -> tuple[float, float]:
        """(mean, std) of an element of a weight of this shape; ``shape`` may be None for an i.i.d. law.

        Errors: ArgumentError where the law needs a shape and gets none, or one it cannot fill.
        """
        return self.mean, self.std

    def scaled(self, factor: float) -> Distribution:
        """The same law with every drawn value multiplied by ``factor`` > 0."""
        factor = number(self.kind, "factor", factor)
        if factor <= 0:
            raise ArgumentError(
                f"{self.kind}.scaled: factor is {factor:g}",
                cause="a law is scaled by a positive number",
                remedy="use Constant(0) for weights that are all zero",
            )
        return self._scaled(factor)

    def _scaled(self, factor: float) -> Distribution:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return type(self)(**{k: v * factor if k in self._scales else v for k, v in values.items()})

    def to_dict(self) -> dict[str, Any]:
        """The law as plain JSON values; ``from_dict`` gives back an equal one, bit for bit."""
        return {"kind": self.kind, **{f.name: getattr(self, f.name) for f in fields(self)}}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Distribution:
        """The law that ``to_dict`` wrote. Errors: ArgumentError for an unknown kind or an unknown or missing field."""
        if not isinstance(data, Mapping) or "kind" not in data:
            raise ArgumentError(f"{data!r} is not a stored distribution", remedy="give a mapping with a 'kind'")
        from fanin.distributions.by_name import build, look_up

        options = {key: value for key, value in data.items() if key != "kind"}
        return build(look_up(data["kind"]), options)

    def __str__(self) -> str:
        shown = [f for f in fields(self) if f.name in self._scales[:1] or getattr(self, f.name) != f.default]
        return f"{self.kind}({', '.join(f'{f.name}={getattr(self, f.name):.4g}' for f in shown)})"

    def _needs_shape(self, what: str) -> ArgumentError:
        return ArgumentError(
            f"{self}: {what} asked without a shape",
            cause="the elements of this law are not independent and their scale follows from the shape",
            remedy="ask moments(shape) for the mean and the standard deviation of an element",
        )


def number(kind: str, name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ArgumentError(f"{kind}: {name} is {value!r}, a {type(value).__name__}", remedy="give a plain number")
    value = float(value)
    if not math.isfinite(value):
        raise ArgumentError(
            f"{kind}: {name} is {value}", cause="it must be finite", remedy="check the fans or gain it came from"
        )
    return value


def probability(u: ArrayLike) -> NDArray[np.float64]:
    p = np.asarray(u, dtype=np.float64)
    if not np.all((p >= 0) & (p <= 1)):
        raise ArgumentError("quantile asked outside [0, 1]", cause="u is a probability", remedy="give 0 <= u <= 1")
    return p
