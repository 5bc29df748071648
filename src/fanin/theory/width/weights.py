"""Fluctuations behind weights: a layer's own draw, the shape of its law, what it inherits from its input.

Given its input, a layer's n outputs are n independent draws of a Gaussian field over places, so the mean of h_k(z)
fluctuates by E[r^k]/n. Weights of kurtosis other than 3 add their fourth cumulant: for f fan inputs
``(kurtosis - 3) E[x^4] / (f q^2)``, by the second term of Edgeworth's series. Rows of an orthogonal matrix leave a
projection of the input instead, of which a square matrix keeps all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fanin.distributions import Distribution, Orthogonal
from fanin.graph import Graph, Kind, Node
from fanin.graph.questions import parameter_at
from fanin.theory import grid
from fanin.theory.law import Groups, Law, subsets
from fanin.theory.records import replace
from fanin.theory.rules.convolution import unfold
from fanin.theory.state import Known, Value
from fanin.theory.width import pairs
from fanin.theory.width.state import DEGREES, NOTHING, Sources, Spread, of_square, of_variance, variance

SAMPLE = 4096  # places of a known input that are looked at


@dataclass(frozen=True)
class Matrix:
    """The weight of a contraction: fan, outputs, excess kurtosis of its law, and whether it is orthogonal."""

    fan: float
    outputs: float
    excess: float = 0.0
    orthogonal: bool = False


def matrix(graph: Graph, laws: Mapping[str, Distribution], node: Node, position: int, fan: float, outputs: float):
    """What the width theory asks of a weight; of one that is computed from others, nothing but its size."""
    found, _ = parameter_at(graph, node.inputs[position])
    law = None if found is None else laws.get(found.name, found.law)
    if law is None:
        return Matrix(fan, outputs)
    if isinstance(law, Orthogonal):
        return Matrix(fan, outputs, orthogonal=True)
    try:
        excess = float(law.kurtosis) - 3.0
    except Exception:  # laws of matrices without a kurtosis of their own
        excess = 0.0
    return Matrix(fan, outputs, excess if np.isfinite(excess) else 0.0)


def _edgeworth() -> np.ndarray:
    """E[h_j h_k He_4] / 24 for degrees 1 to 5: what a unit of fourth cumulant adds to E[h_j h_k].

    Beyond them the series asks for a small cumulant: variances would turn negative (`_reshaped`).
    """
    h = grid.HERMITE[1:6]
    fourth = grid.HERMITE[4] * np.sqrt(24.0)
    table = np.zeros((DEGREES, DEGREES))
    table[:5, :5] = (h * (grid.WEIGHT * fourth)) @ h.T / 24
    return table


def _reshaped(own: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Variances with what the law's shape adds, to the highest degree at which they stay variances."""
    for top in (5, 4, 3, 2):
        covariance = np.diag(own)
        covariance[:top, :top] += table[:top, :top]
        if np.linalg.eigvalsh(covariance[:top, :top])[0] >= -1e-9 * own.max(initial=0.0):
            return covariance
    return np.diag(own)


ONE_PLACE = _edgeworth()
TWO_PLACES = np.zeros((DEGREES, DEGREES))
TWO_PLACES[1, 1] = 0.5


def drawn(
    sources: Sources,
    out: Law,
    wander: Mapping[Groups, float],
    drift: np.ndarray,
    *,
    weight: Matrix | None = None,
    fourth: tuple[float, float] = (0.0, 0.0),
    whole: float | None = None,
) -> Spread:
    """The spread of a fresh latent.

    Args:
        out: the law made.
        wander: of its correlations.
        drift: what its variance inherits.
        weight: the matrix that drew it, if one did.
        fourth: E[x^4]/q^2 and E[x^2 x'^2]/q^2 of what it summed.
        whole: E[r^2] over pairs of places, where it is known.
    """
    n = pairs.features(out)
    own = pairs.powers(out, wander)
    if whole is not None:
        own[1] = whole
    rigid, kurtosis = 1.0, 0.0
    if weight is not None and weight.orthogonal:
        kurtosis = -6 / (max(weight.fan, weight.outputs) + 2)  # of a coordinate of a point on the sphere
        large, small = max(weight.fan, weight.outputs), min(weight.fan, weight.outputs)
        rigid = 0.0 if weight.outputs >= weight.fan else 1 - small / large
        own[1] = max(own[1] - 1 / large, 0.0) * rigid
    own = own / n
    covariance = own
    if weight is not None and weight.excess:
        one = pairs.alone(out)
        kurtosis = weight.excess / weight.fan * fourth[0]
        cumulants = weight.excess / weight.fan * np.array(fourth)
        covariance = _reshaped(own, (cumulants[0] * one * ONE_PLACE + cumulants[1] * (1 - one) * TWO_PLACES) / n)
    moments = sources.rows(covariance)
    moments[1] += drift / np.sqrt(2)
    moments[1, -1] += variance(drift) / 2 / np.sqrt(2)
    moments[3, -1] += (kurtosis + 3 * variance(drift)) / np.sqrt(24)
    return Spread(moments, NOTHING, drift, own, wander, rigid, kurtosis)


def through_weights(
    sources: Sources, out: Law, x: Value, spread: Spread, weight: Matrix, taps: float = 1.0, share: float = 1.0
) -> Spread:
    """Behind a dense layer or a convolution of a modelled tensor; ``share`` is what is not its bias."""
    if not isinstance(x, Law):
        return drawn(sources, out, {}, NOTHING, weight=weight)
    wander = {s: v * share**2 for s, v in pairs.through(x, spread, taps).items()}
    wander = {s: wander.get(s, 0.0) for s in subsets(out.groups)}
    drift = share * of_square(x, spread)
    made = drawn(sources, out, wander, drift, weight=weight, fourth=pairs.fourth(x, spread))
    return replace(made, apart=of_variance(x, spread)) if x.mean else made


def behind_known(
    sources: Sources, node: Node, out: Law, x: Known, weight: Matrix, kernel: tuple[int, ...] = ()
) -> Spread:
    """Behind known inputs: their own products and fourth moments."""
    rows = _rows(node, x, kernel)
    q = float(np.mean(rows**2))
    if q <= 0:
        return drawn(sources, out, {}, NOTHING, weight=weight)
    size, fan = rows.shape
    small = rows @ rows.T if size <= fan else rows.T @ rows
    whole = float((small**2).sum()) / (size * fan * q) ** 2
    own = float(((rows**2).mean(1) ** 2).mean()) / q**2  # pairs of a place with itself
    apart = max((whole - own / size) / (1 - 1 / size), 0.0) if size > 1 else own
    many = pairs.places(out)
    whole = apart * (1 - 1 / many) + own / many
    wander = _excess(out, apart)
    by_input = (rows**2).mean(0)
    crossed = float((by_input**2).mean()) / q**2
    one = float(((rows**2) ** 2).mean()) / q**2
    apart4 = max((crossed - one / size) / (1 - 1 / size), 0.0) if size > 1 else one
    return drawn(sources, out, wander, NOTHING, weight=weight, fourth=(one, apart4), whole=whole)


def _excess(out: Law, apart: float) -> dict[Groups, float]:
    """The variance of correlations that brings their mean square over pairs of different places to ``apart``."""
    shares = [(s, p) for s, p in pairs.shares(out) if s]
    total = sum(p for _, p in shares)
    if total <= 0:
        return {}
    mean = sum(p * pairs.correlation(out, s) ** 2 for s, p in shares) / total
    return dict.fromkeys((s for s, _ in shares), max(apart - mean, 0.0))


def _rows(node: Node, x: Known, kernel: tuple[int, ...]) -> np.ndarray:
    """What each place's weights read, (places, fan), thinned to a sample of places."""
    array = x.array
    if node.kind is Kind.CONV and (node.attrs["transposed"] or node.attrs["groups"] != 1):
        rows = np.moveaxis(array, 1, -1)
    elif node.kind is Kind.CONV:
        outputs = int(np.prod(node.shape[2:]))
        array = array[: max(int(8e6 / (outputs * array.shape[1] * float(np.prod(kernel)))), 2)]
        count = len(array) * outputs
        return np.asarray(unfold(array, node, kernel, _thinned(count)), float)
    else:
        rows = array
    rows = rows.reshape(-1, rows.shape[-1])
    return np.asarray(rows[_thinned(len(rows))], float)


def _thinned(count: int) -> np.ndarray:
    """Which of so many places are looked at."""
    return np.linspace(0, count - 1, SAMPLE).astype(int) if count > SAMPLE else np.arange(count)
