"""Initialization schemes by name: one primitive, and specialisations of a few lines that cite their paper.

A scheme turns the fans of a weight into a Distribution. Every ``fans`` argument is a ``Fans``, a torch module, or the
shape of a weight in torch's layout (for any other layout: ``he_normal(fans(shape, layout="HWIO"))``). Two numbers
that are already fan_in and fan_out are said by ``Fans(fan_in, fan_out)``; a bare pair is a shape, (out, in).

Truncated laws are divided by what the truncation takes, so that the drawn weights have the promised variance.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from typing import Any

from fanin import axes
from fanin.axes import Fans
from fanin.distributions import (
    DeltaOrthogonal,
    Distribution,
    Normal,
    Orthogonal,
    TruncatedNormal,
    Uniform,
    truncation_factor,
)
from fanin.distributions import distribution as law
from fanin.errors import ArgumentError

MODES: dict[str, Callable[[Fans], float]] = {
    "fan_in": lambda f: f.fan_in,
    "fan_out": lambda f: f.fan_out,
    "fan_avg": lambda f: f.avg,
    "fan_geo": lambda f: f.geo,
}


def variance_scaling(
    fans: Any, *, scale: float = 1.0, mode: str = "fan_in", distribution: str = "normal"
) -> Distribution:
    """Var[w] = scale / fan, from which every scheme below follows.

    Args:
        fans: a Fans, a torch module, or a shape in torch's layout.
        scale: what the variance times the fan is to be; the square of a gain.
        mode: "fan_in", "fan_out", "fan_avg" (arithmetic mean of both) or "fan_geo" (geometric mean).
        distribution: "normal", "uniform", "truncated_normal" or "rademacher".

    Errors: ArgumentError for an unknown mode or distribution, a scale that is not positive, or a shape without fans.

    Example:
        >>> print(variance_scaling(Fans(200, 100), scale=2.0))
        normal(std=0.1)
    """
    if mode not in MODES:
        raise _unknown("mode", mode, MODES)
    if not (isinstance(scale, int | float) and math.isfinite(scale) and scale > 0):
        raise ArgumentError(f"scale is {scale!r}", cause="a variance is positive", remedy="give a positive number")
    if distribution not in ("normal", "uniform", "truncated_normal", "rademacher"):
        raise _unknown("distribution", distribution, ("normal", "uniform", "truncated_normal", "rademacher"))
    return law(distribution, math.sqrt(scale / MODES[mode](axes.fans(fans))))


def glorot_normal(fans: Any) -> Distribution:
    """Normal, Var = 2 / (fan_in + fan_out).

    Source: Glorot & Bengio 2010, Understanding the difficulty of training deep feedforward neural networks,
    PMLR 9:249-256, eq. 12.

    Example:
        >>> print(glorot_normal((100, 100)))
        normal(std=0.1)
    """
    return variance_scaling(fans, mode="fan_avg")


def glorot_uniform(fans: Any) -> Distribution:
    """Uniform on +-sqrt(6 / (fan_in + fan_out)): Var = 2 / (fan_in + fan_out), the "normalized initialization".

    Source: Glorot & Bengio 2010, PMLR 9:249-256, eq. 16.

    Example:
        >>> round(glorot_uniform((300, 300)).bounds[1], 12)
        0.1
    """
    return variance_scaling(fans, mode="fan_avg", distribution="uniform")


def glorot_truncated_normal(fans: Any) -> Distribution:
    """Normal truncated at two sigma, Var = 2 / (fan_in + fan_out) after truncation.

    Source: Glorot & Bengio 2010, PMLR 9:249-256, for the variance.

    Example:
        >>> print(glorot_truncated_normal((100, 100)))
        truncated_normal(std=0.1)
    """
    return variance_scaling(fans, mode="fan_avg", distribution="truncated_normal")


def glorot_in(fans: Any, *, distribution: str = "uniform") -> Distribution:
    """Var = 1 / fan_in: the simpler form of Glorot's rule that Caffe calls "xavier".

    Source: Jia et al. 2014, Caffe: Convolutional architecture for fast feature embedding, arXiv:1408.5093.

    Example:
        >>> round(glorot_in(Fans(300, 10)).bounds[1], 12)
        0.1
    """
    return variance_scaling(fans, distribution=distribution)


def he_normal(fans: Any, *, mode: str = "fan_in", slope: float = 0.0) -> Distribution:
    """Normal, Var = 2 / ((1 + slope^2) fan), for ReLU, and for leaky ReLU and PReLU of this negative slope.

    Source: He et al. 2015, Delving deep into rectifiers, arXiv:1502.01852, eq. 10, 14, 15.

    Example:
        >>> print(he_normal((64, 64, 3, 3), mode="fan_out"))
        normal(std=0.05893)
    """
    return _he(fans, mode, slope, "normal")


def he_uniform(fans: Any, *, mode: str = "fan_in", slope: float = 0.0) -> Distribution:
    """Uniform with Var = 2 / ((1 + slope^2) fan).

    Source: He et al. 2015, arXiv:1502.01852, for the variance.

    Example:
        >>> round(he_uniform(Fans(600, 1)).bounds[1], 12)
        0.1
    """
    return _he(fans, mode, slope, "uniform")


def he_truncated_normal(fans: Any, *, mode: str = "fan_in", slope: float = 0.0) -> Distribution:
    """Normal truncated at two sigma, Var = 2 / ((1 + slope^2) fan) after truncation.

    Source: He et al. 2015, arXiv:1502.01852, for the variance.

    Example:
        >>> print(he_truncated_normal(Fans(200, 1)))
        truncated_normal(std=0.1)
    """
    return _he(fans, mode, slope, "truncated_normal")


def lecun_normal(fans: Any) -> Distribution:
    """Normal, Var = 1 / fan_in.

    Source: LeCun et al. 1998, Efficient BackProp, doi:10.1007/3-540-49430-8_2; for SELU: Klambauer et al. 2017,
    Self-normalizing neural networks, arXiv:1706.02515.

    Example:
        >>> print(lecun_normal(Fans(100, 1)))
        normal(std=0.1)
    """
    return variance_scaling(fans)


def lecun_uniform(fans: Any) -> Distribution:
    """Uniform with Var = 1 / fan_in.

    Source: LeCun et al. 1998, Efficient BackProp, doi:10.1007/3-540-49430-8_2.

    Example:
        >>> round(lecun_uniform(Fans(300, 1)).bounds[1], 12)
        0.1
    """
    return variance_scaling(fans, distribution="uniform")


def lecun_truncated_normal(fans: Any) -> Distribution:
    """Normal truncated at two sigma, Var = 1 / fan_in after truncation.

    Source: LeCun et al. 1998, Efficient BackProp, doi:10.1007/3-540-49430-8_2, for the variance.

    Example:
        >>> print(lecun_truncated_normal(Fans(100, 1)))
        truncated_normal(std=0.1)
    """
    return variance_scaling(fans, distribution="truncated_normal")


def standard_uniform(fans: Any) -> Distribution:
    """Uniform on +-1 / sqrt(fan_in): Var = 1 / (3 fan_in). What Glorot & Bengio argue against, and torch's default.

    Source: Glorot & Bengio 2010, PMLR 9:249-256, eq. 1.

    Example:
        >>> round(standard_uniform(Fans(100, 1)).bounds[1], 12)
        0.1
    """
    return variance_scaling(fans, scale=1 / 3, distribution="uniform")


def sum_uniform(fans: Any, c: float) -> Distribution:
    """Uniform on +-c / (fan_in + fan_out): Var = c^2 / (3 (fan_in + fan_out)^2).

    Glorot's bound has a square root here. Without it the variance falls with the square of the width, and a layer of n
    inputs and outputs multiplies the signal's variance by c^2 / (12 n): it keeps it at n = c^2 / 12 only.

    Errors: ArgumentError for a c that is not positive.

    Example:
        >>> round(sum_uniform(Fans(50, 50), 10.0).bounds[1], 12)
        0.1
    """
    found = axes.fans(fans)
    if not (isinstance(c, int | float) and math.isfinite(c) and c > 0):
        raise ArgumentError(f"c is {c!r}", cause="it is the width of an interval", remedy="give a positive number")
    return Uniform(c / (found.fan_in + found.fan_out) / math.sqrt(3))


def alexnet(fans: Any = None, *, std: float = 0.01) -> Distribution:
    """Normal with std 0.01, whatever the fans.

    Source: Krizhevsky, Sutskever & Hinton 2012, ImageNet classification with deep convolutional neural networks,
    doi:10.1145/3065386.

    Example:
        >>> print(alexnet())
        normal(std=0.01)
    """
    return Normal(std)


def gpt2(fans: Any = None, *, std: float = 0.02) -> Distribution:
    """Normal with std 0.02, whatever the fans; the depth scaling of residual projections is the recipe's.

    Source: Radford et al. 2019, Language models are unsupervised multitask learners, and its released code.

    Example:
        >>> print(gpt2())
        normal(std=0.02)
    """
    return Normal(std)


def dcgan(fans: Any = None, *, std: float = 0.02) -> Distribution:
    """Normal with std 0.02, whatever the fans.

    Source: Radford, Metz & Chintala 2015, Unsupervised representation learning with deep convolutional generative
    adversarial networks, arXiv:1511.06434.

    Example:
        >>> print(dcgan())
        normal(std=0.02)
    """
    return Normal(std)


def bert(fans: Any = None, *, sigma: float = 0.02) -> Distribution:
    """Normal of sigma 0.02 truncated at two sigma, whatever the fans: the std as drawn is 0.0176.

    As in the released code, 0.02 is the standard deviation before truncation. (The port in ``transformers`` draws a
    normal law of std 0.02: ``gpt2``.)

    Source: Devlin et al. 2018, BERT: Pre-training of deep bidirectional transformers, arXiv:1810.04805, and its code.

    Example:
        >>> print(bert())
        truncated_normal(std=0.01759)
    """
    return TruncatedNormal(sigma * truncation_factor(2.0))


def orthogonal(fans: Any = None, *, gain: float = 1.0) -> Distribution:
    """gain times a random matrix of orthonormal rows or columns.

    Source: Saxe, McClelland & Ganguli 2013, Exact solutions to the nonlinear dynamics of learning in deep linear neural
    networks, arXiv:1312.6120.

    Example:
        >>> print(orthogonal(gain=2**0.5))
        orthogonal(gain=1.414)
    """
    return Orthogonal(gain)


def delta_orthogonal(fans: Any = None, *, gain: float = 1.0) -> Distribution:
    """gain times a random orthonormal matrix at the central tap of a convolution, zero elsewhere.

    Source: Xiao et al. 2018, Dynamical isometry and a mean field theory of CNNs, arXiv:1806.05393.

    Example:
        >>> print(delta_orthogonal())
        delta_orthogonal(gain=1)
    """
    return DeltaOrthogonal(gain)


xavier_normal, xavier_uniform, xavier_truncated_normal = glorot_normal, glorot_uniform, glorot_truncated_normal
kaiming_normal, kaiming_uniform, kaiming_truncated_normal = he_normal, he_uniform, he_truncated_normal

SCHEMES: dict[str, Callable[..., Distribution]] = {
    "glorot_normal": glorot_normal,
    "glorot_uniform": glorot_uniform,
    "glorot_truncated_normal": glorot_truncated_normal,
    "glorot_in": glorot_in,
    "xavier_normal": glorot_normal,
    "xavier_uniform": glorot_uniform,
    "xavier_truncated_normal": glorot_truncated_normal,
    "he_normal": he_normal,
    "he_uniform": he_uniform,
    "he_truncated_normal": he_truncated_normal,
    "kaiming_normal": he_normal,
    "kaiming_uniform": he_uniform,
    "kaiming_truncated_normal": he_truncated_normal,
    "lecun_normal": lecun_normal,
    "lecun_uniform": lecun_uniform,
    "lecun_truncated_normal": lecun_truncated_normal,
    "standard_uniform": standard_uniform,
    "sum_uniform": sum_uniform,
    "variance_scaling": variance_scaling,
    "alexnet": alexnet,
    "gpt2": gpt2,
    "dcgan": dcgan,
    "bert": bert,
    "orthogonal": orthogonal,
    "delta_orthogonal": delta_orthogonal,
}


def scheme(name: str) -> Callable[..., Distribution]:
    """The scheme of this name. Errors: ArgumentError with the nearest name there is.

    Example:
        >>> print(scheme("xavier_normal")((100, 100)))
        normal(std=0.1)
    """
    if name not in SCHEMES:
        raise _unknown("scheme", name, SCHEMES)
    return SCHEMES[name]


def _he(fans: Any, mode: str, slope: float, distribution: str) -> Distribution:
    if not (isinstance(slope, int | float) and math.isfinite(slope)):
        raise ArgumentError(f"slope is {slope!r}", cause="a leaky ReLU's slope below 0", remedy="give a number")
    return variance_scaling(fans, scale=2.0 / (1.0 + slope**2), mode=mode, distribution=distribution)


def _unknown(what: str, name: Any, known: Any) -> ArgumentError:
    near = difflib.get_close_matches(str(name).lower(), known, n=1)
    return ArgumentError(
        f"{name!r} is no {what}",
        cause=f"did you mean {near[0]!r}?" if near else None,
        remedy=f"known: {', '.join(known)}",
    )
