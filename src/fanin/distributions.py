"""What a weight is drawn from: exact standard deviation, kurtosis, support, quantiles, and a JSON round trip.

A distribution is a small frozen record; it draws nothing (``fanin.fill`` does). Scale is always said by ``std``,
the exact standard deviation of one element as drawn, after any truncation or zeroing, so that two laws with
the same ``std`` give the same variance. Laws whose elements depend on each other (orthogonal, identity) carry
a ``gain`` instead, and have a standard deviation only for a given shape: ask ``moments(shape)``.
"""

from __future__ import annotations

import difflib
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fanin.errors import ArgumentError

SQRT3 = math.sqrt(3.0)


@dataclass(frozen=True)
class Distribution:
    """The law of a weight. Use one of the subclasses, or ``distribution(kind, std)`` to build one by name.

    ``kind`` is the name under which the law is stored, ``iid`` says whether elements are independent and identically
    distributed; only then do ``std``, ``mean``, ``kurtosis`` and ``quantile`` need no shape.

    Example:
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
            value = _number(self.kind, name, getattr(self, name))
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
        factor = _number(self.kind, "factor", factor)
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
        options = {key: value for key, value in data.items() if key != "kind"}
        return _build(_lookup(data["kind"]), options)

    def __str__(self) -> str:
        shown = [f for f in fields(self) if f.name in self._scales[:1] or getattr(self, f.name) != f.default]
        return f"{self.kind}({', '.join(f'{f.name}={getattr(self, f.name):.4g}' for f in shown)})"

    def _needs_shape(self, what: str) -> ArgumentError:
        return ArgumentError(
            f"{self}: {what} asked without a shape",
            cause="the elements of this law are not independent and their scale follows from the shape",
            remedy="ask moments(shape) for the mean and the standard deviation of an element",
        )


@dataclass(frozen=True)
class Normal(Distribution):
    """Normal law N(mean, std^2).

    Example:
        >>> print(Normal(0.0205), Normal(1.0).kurtosis)
        normal(std=0.0205) 3.0
    """

    std: float
    mean: float = 0.0
    kind, _positive, _finite, _scales = "normal", ("std",), ("mean",), ("std", "mean")

    @property
    def kurtosis(self) -> float:
        return 3.0

    @property
    def support(self) -> tuple[float, float]:
        return -math.inf, math.inf

    def quantile(self, u: ArrayLike) -> NDArray[np.float64]:
        from scipy.special import ndtri  # scipy costs more than all of `import fanin` may take

        return self.mean + self.std * ndtri(_probability(u))


@dataclass(frozen=True)
class TruncatedNormal(Distribution):
    """Normal law N(mean, sigma^2) conditioned on |x - mean| < bound * sigma.

    ``std`` is the exact standard deviation after truncation; the parent's ``sigma`` is std divided by
    sqrt(1 - 2 b phi(b) / (2 Phi(b) - 1)), which is .8796256610342398 at ``bound`` b = 2.

    Example:
        >>> round(TruncatedNormal(1.0).sigma, 6), round(TruncatedNormal(1.0).kurtosis, 6)
        (1.136847, 2.365537)
    """

    std: float
    bound: float = 2.0
    mean: float = 0.0
    kind, _positive, _finite, _scales = "truncated_normal", ("std", "bound"), ("mean",), ("std", "mean")

    @property
    def sigma(self) -> float:
        """Standard deviation of the normal law before truncation."""
        return self.std / truncation_factor(self.bound)

    @property
    def kurtosis(self) -> float:
        m2, m4 = _truncated_moments(self.bound)
        return m4 / m2**2

    @property
    def support(self) -> tuple[float, float]:
        half = self.bound * self.sigma
        return self.mean - half, self.mean + half

    def quantile(self, u: ArrayLike) -> NDArray[np.float64]:
        from scipy.special import ndtr, ndtri

        p = _probability(u)
        tail = np.minimum(p, 1.0 - p)  # work in the lower tail, where ndtr keeps its relative precision
        below = ndtr(-self.bound)
        z = np.copysign(np.minimum(-ndtri(below + tail * (1.0 - 2.0 * below)), self.bound), p - 0.5)
        return self.mean + self.sigma * np.where(p == 0.5, 0.0, z)


@dataclass(frozen=True)
class Uniform(Distribution):
    """Uniform law on mean +- sqrt(3) std.

    Example:
        >>> Uniform(1.0).bounds == (-3**0.5, 3**0.5), Uniform(1.0).kurtosis
        (True, 1.8)
    """

    std: float
    mean: float = 0.0
    kind, _positive, _finite, _scales = "uniform", ("std",), ("mean",), ("std", "mean")

    @property
    def kurtosis(self) -> float:
        return 1.8

    @property
    def support(self) -> tuple[float, float]:
        return self.mean - SQRT3 * self.std, self.mean + SQRT3 * self.std

    def quantile(self, u: ArrayLike) -> NDArray[np.float64]:
        return self.mean + SQRT3 * self.std * (2.0 * _probability(u) - 1.0)


@dataclass(frozen=True)
class Rademacher(Distribution):
    """-std or +std, each with probability one half.

    Example:
        >>> Rademacher(0.5).quantile([0.2, 0.8]).tolist()
        [-0.5, 0.5]
    """

    std: float
    kind, _positive, _scales = "rademacher", ("std",), ("std",)

    @property
    def mean(self) -> float:
        return 0.0

    @property
    def kurtosis(self) -> float:
        return 1.0

    @property
    def support(self) -> tuple[float, float]:
        return -self.std, self.std

    def quantile(self, u: ArrayLike) -> NDArray[np.float64]:
        return np.where(_probability(u) <= 0.5, -self.std, self.std)


@dataclass(frozen=True)
class Sparse(Distribution):
    """Mostly zeros: a share ``sparsity`` of each column is 0, the rest is normal (torch.nn.init.sparse_).

    ``std`` is the standard deviation of an element, zeros included, as for every other law; the values that are not
    zero are drawn with ``nonzero_std`` = std / sqrt(1 - sparsity), which is what torch calls ``std``. A weight of
    shape (rows, cols) has exactly ceil(sparsity * rows) zeros in each column, so ``moments(shape)`` differs from
    ``std`` by that rounding.

    Source: Martens 2010, Deep learning via Hessian-free optimization.

    Example:
        >>> round(Sparse(0.01, sparsity=0.75).nonzero_std, 12), round(Sparse(0.01).kurtosis, 9)
        (0.02, 30.0)
    """

    std: float
    sparsity: float = 0.9
    kind, _positive, _scales = "sparse", ("std", "sparsity"), ("std",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sparsity >= 1:
            raise ArgumentError(
                f"sparse: sparsity is {self.sparsity:g}",
                cause="sparsity is the share of zeros, between 0 and 1",
                remedy="give 0.9 for 90 % zeros, or use Constant(0) for weights that are all zero",
            )

    @property
    def mean(self) -> float:
        return 0.0

    @property
    def nonzero_std(self) -> float:
        """Standard deviation of the elements that are not zeroed."""
        return self.std / math.sqrt(1.0 - self.sparsity)

    @property
    def kurtosis(self) -> float:
        return 3.0 / (1.0 - self.sparsity)

    @property
    def support(self) -> tuple[float, float]:
        return -math.inf, math.inf

    def zeros(self, rows: int) -> int:
        """How many zeros a column of ``rows`` elements has."""
        return math.ceil(self.sparsity * rows)

    def moments(self, shape: Sequence[int] | None = None) -> tuple[float, float]:
        if shape is None:
            return 0.0, self.std
        rows = _matrix(self, shape)[0]
        return 0.0, self.nonzero_std * math.sqrt(1.0 - self.zeros(rows) / rows)

    def quantile(self, u: ArrayLike) -> NDArray[np.float64]:
        from scipy.special import ndtri

        p, dense = _probability(u), 1.0 - self.sparsity
        tail = np.minimum(p, 1.0 - p) / dense  # below 1/2: in the normal part; from there on: a zero
        return np.where(tail < 0.5, np.copysign(self.nonzero_std * ndtri(np.minimum(tail, 0.5)), p - 0.5), 0.0)


@dataclass(frozen=True)
class Constant(Distribution):
    """Every element is ``value``. ``Zeros()`` is Constant(0).

    Example:
        >>> print(Constant(1.0), Zeros())
        constant(value=1) zeros
    """

    value: float
    kind, _finite, _scales = "constant", ("value",), ("value",)

    @property
    def std(self) -> float:
        return 0.0

    @property
    def mean(self) -> float:
        return self.value

    @property
    def kurtosis(self) -> float:
        return math.nan

    @property
    def support(self) -> tuple[float, float]:
        return self.value, self.value

    def quantile(self, u: ArrayLike) -> NDArray[np.float64]:
        return np.full_like(_probability(u), self.value)

    def __str__(self) -> str:
        return super().__str__() if self.value else "zeros"


def Zeros() -> Constant:
    """All weights zero: Constant(0).

    Example:
        >>> Zeros() == Constant(0.0)
        True
    """
    return Constant(0.0)


@dataclass(frozen=True)
class _Structured(Distribution):
    """A law whose elements depend on each other; its scale is a gain, its std follows from the shape."""

    gain: float = 1.0
    kind, iid, _positive, _scales = "", False, ("gain",), ("gain",)

    @property
    def std(self) -> float:
        raise self._needs_shape("std")

    @property
    def mean(self) -> float:
        raise self._needs_shape("mean")

    @property
    def support(self) -> tuple[float, float]:
        return -self.gain, self.gain

    def moments(self, shape: Sequence[int] | None = None) -> tuple[float, float]:
        raise NotImplementedError


@dataclass(frozen=True)
class Orthogonal(_Structured):
    """gain times a uniformly random matrix with orthonormal rows or columns, whichever are fewer.

    A weight of shape (rows, ...) is taken as a matrix of shape[0] rows and prod(shape[1:]) columns (torch's layout).
    An element has mean 0 and std gain / sqrt(max(rows, columns)); its kurtosis is 3 n / (n + 2), n the larger side
    (``kurtosis`` gives the limit 3 for large n).

    Source: Saxe, McClelland & Ganguli 2013, Exact solutions to the nonlinear dynamics of learning in deep linear
    neural networks, arXiv:1312.6120.

    Example:
        >>> Orthogonal().moments((100, 25))
        (0.0, 0.1)
    """

    kind = "orthogonal"

    @property
    def kurtosis(self) -> float:
        return 3.0

    def moments(self, shape: Sequence[int] | None = None) -> tuple[float, float]:
        rows, columns = _matrix(self, shape)
        return 0.0, self.gain / math.sqrt(max(rows, columns))


@dataclass(frozen=True)
class DeltaOrthogonal(_Structured):
    """A convolution that is an orthogonal matrix at its central tap and zero elsewhere.

    For shape (out, in, *kernel) an element, taken over the whole weight, has mean 0 and
    std gain / sqrt(max(out, in) prod(kernel)). ``kurtosis`` is that of the central tap, for many channels.

    Source: Xiao et al. 2018, Dynamical isometry and a mean field theory of CNNs, arXiv:1806.05393.

    Example:
        >>> DeltaOrthogonal().moments((100, 50, 1, 1))
        (0.0, 0.1)
    """

    kind = "delta_orthogonal"

    @property
    def kurtosis(self) -> float:
        return 3.0

    def moments(self, shape: Sequence[int] | None = None) -> tuple[float, float]:
        rows, columns = _matrix(self, shape)
        assert shape is not None  # _matrix has seen to it
        taps = columns // int(shape[1])
        return 0.0, self.gain / math.sqrt(max(rows, int(shape[1])) * taps)


@dataclass(frozen=True)
class Identity(_Structured):
    """gain on the diagonal, 0 elsewhere; for a convolution the diagonal of the central tap (a Dirac kernel).

    For shape (out, in, *kernel), m = min(out, in) of the N = out in prod(kernel) elements are gain: mean
    gain m / N, std gain sqrt(m / N (1 - m / N)).

    Source: Le, Jaitly & Hinton 2015, A simple way to initialize recurrent networks of rectified linear units,
    arXiv:1504.00941.

    Example:
        >>> Identity().moments((2, 2))
        (0.5, 0.5)
    """

    kind = "identity"

    @property
    def kurtosis(self) -> float:
        raise self._needs_shape("kurtosis")

    @property
    def support(self) -> tuple[float, float]:
        return 0.0, self.gain

    def moments(self, shape: Sequence[int] | None = None) -> tuple[float, float]:
        rows, columns = _matrix(self, shape)
        assert shape is not None
        share = min(rows, int(shape[1])) / (rows * columns)
        return self.gain * share, self.gain * math.sqrt(share * (1.0 - share))


BY_KIND: dict[str, type[Distribution]] = {
    law.kind: law
    for law in (Normal, TruncatedNormal, Uniform, Rademacher, Sparse, Constant, Orthogonal, DeltaOrthogonal, Identity)
}


def distribution(kind: str, std: float, **options: Any) -> Distribution:
    """The law of this name at scale ``std``: its std, or the gain of orthogonal laws, or the value of a constant.

    Args:
        kind: "normal", "uniform", "truncated_normal", "rademacher", "sparse", "orthogonal", ...: the keys of BY_KIND.
        std: standard deviation of an element; for "orthogonal", "delta_orthogonal" and "identity" the gain.
        options: further fields of the law, such as ``bound`` of "truncated_normal".

    Errors: ArgumentError for an unknown name, an unknown option, or a scale that is not positive.

    Example:
        >>> print(distribution("truncated_normal", 0.02, bound=3))
        truncated_normal(std=0.02, bound=3)
    """
    law = _lookup(kind)
    return _build(law, {law._scales[0]: std, **options})


@functools.cache
def truncation_factor(bound: float) -> float:
    """What truncation at +-``bound`` sigma leaves of the standard deviation.

    Example:
        >>> truncation_factor(2.0)
        0.8796256610342398
    """
    return math.sqrt(_truncated_moments(bound)[0])


@functools.cache
def _truncated_moments(bound: float) -> tuple[float, float]:
    """Second and fourth moment of a standard normal law truncated at +-bound."""
    if bound > 10:  # the series below would need hundreds of terms; here plain formulas lose nothing
        density = 2.0 * math.exp(-0.5 * bound * bound) / math.sqrt(2.0 * math.pi)
        return 1.0 - bound * density, 3.0 - (bound**3 + 3.0 * bound) * density
    s0, s1, s2 = (_half_moment(k, bound) for k in range(3))
    return s1 / s0, s2 / s0


def _half_moment(k: int, bound: float) -> float:
    """exp(bound^2 / 2) times the integral of x^2k exp(-x^2 / 2) over (0, bound); all terms positive, so exact."""
    term = bound ** (2 * k + 1) / (2 * k + 1)
    terms, j = [term], 2 * k + 1
    while term > 1e-18 * terms[0] or j < bound * bound:
        j += 2
        term *= bound * bound / j
        terms.append(term)
    return math.fsum(terms)


def _number(kind: str, name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ArgumentError(f"{kind}: {name} is {value!r}, a {type(value).__name__}", remedy="give a plain number")
    value = float(value)
    if not math.isfinite(value):
        raise ArgumentError(
            f"{kind}: {name} is {value}", cause="it must be finite", remedy="check the fans or gain it came from"
        )
    return value


def _probability(u: ArrayLike) -> NDArray[np.float64]:
    p = np.asarray(u, dtype=np.float64)
    if not np.all((p >= 0) & (p <= 1)):
        raise ArgumentError("quantile asked outside [0, 1]", cause="u is a probability", remedy="give 0 <= u <= 1")
    return p


def _matrix(law: Distribution, shape: Sequence[int] | None) -> tuple[int, int]:
    """(rows, columns) of a weight in torch's layout."""
    if shape is None:
        raise law._needs_shape("moments")
    sizes = tuple(int(n) for n in shape)
    if len(sizes) < 2 or min(sizes) < 1:
        raise ArgumentError(
            f"{law} cannot fill a weight of shape {sizes}",
            cause="it needs at least two axes, each of length 1 or more",
            remedy="use Constant for biases and scales",
        )
    return sizes[0], math.prod(sizes[1:])


def _lookup(kind: Any) -> type[Distribution]:
    if isinstance(kind, str) and kind in BY_KIND:
        return BY_KIND[kind]
    near = difflib.get_close_matches(str(kind).lower(), BY_KIND, n=1)
    raise ArgumentError(
        f"{kind!r} is no distribution",
        cause=f"did you mean {near[0]!r}?" if near else None,
        remedy=f"known: {', '.join(BY_KIND)}",
    )


def _build(law: type[Distribution], options: Mapping[str, Any]) -> Distribution:
    known = [f.name for f in fields(law)]
    try:
        return law(**options)
    except TypeError:
        raise ArgumentError(
            f"{law.kind} given {', '.join(options) or 'nothing'}", remedy=f"its fields are {', '.join(known)}"
        ) from None
