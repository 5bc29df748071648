"""Functions of a product with a gate that many places share: ``f(x t)`` over a map, t one number a sample and channel.

Places of one sample have t in common whatever x does: ``E[f(x t) f(x' t)]`` is ``E_t[(E_x f)^2]`` for independent x,
more than the ``(E f)^2`` that the product's own latent says, which knows of covariances alone. A mean over the map
keeps just that, and a norm over samples divides by it. With the coefficients ``A_kl`` of ``f(x t)`` in the Hermite
polynomials of both latents two places that correlate by r in x and by s in t have ``sum A_kl^2 r^k s^l`` in common
(Mehler, twice).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fanin.theory import grid
from fanin.theory.border import Border
from fanin.theory.law import Groups, Law, latent_for
from fanin.theory.mehler import mehler, solve_correlation
from fanin.theory.records import replace

SLIGHT = 1e-3
"""Relative variance of a gate below which it is one number."""


def remembered(law: Law, x: Law, y: Law) -> Law:
    """A product that knows its factors where one of them is a gate of whole maps."""
    wide, gate = (x, y) if y.groups < x.groups else (y, x)
    known = gate.groups < wide.groups and wide.groups == law.groups and wide.shape == law.shape
    if not known or gate.second - gate.mean**2 <= SLIGHT * gate.second:
        return law
    return replace(law, factors=(law.values, wide, gate))


def through(fn: Callable[..., np.ndarray], law: Law, made: Law) -> Law:
    """What a function of such a product has in common between places."""
    if law.factors is None or law.factors[0] is not law.values or made.latent.matrix is not None:
        return made
    wide, gate = law.factors[1:]
    if law.shape != wide.shape:  # moved since
        return made
    pairs = _Pairs(fn, wide, gate)
    share = made.second / pairs.own if pairs.own > 0 else 0.0

    def pair(differ: Groups) -> float:
        return share * pairs(wide.correlation(differ), gate.correlation(differ))

    latent, edge = replace(made.latent, corr=latent_for(made, pair, made.groups).corr), made.latent.border
    if edge is not None:
        solved = lambda r, s: solve_correlation(*made.crossed, share * pairs(r, s))  # noqa: E731
        latent = replace(latent, border=_bordered(edge, law, gate, pairs, solved))
    return replace(made, latent=latent)


def _bordered(edge: Border, law: Law, gate: Law, pairs: _Pairs, solved: Callable[[float, float], float]) -> Border:
    """The same of every two kinds of place: by which correlation of x the product's latent has what it has."""
    along = np.linspace(-0.2, 1.0, 9)
    found = {}
    for s, table in edge.corr.items():
        t = gate.correlation(s)
        product = [solve_correlation(*law.crossed, law.second * pairs.plain(r, t)) for r in along]
        new = np.array([solved(float(r), t) for r in along])
        found[s] = np.interp(table, product, new)
    return Border(edge.sizes, found)


class _Pairs:
    """Pair moments of ``f(x t)`` at correlations of both latents."""

    def __init__(self, fn: Callable[..., np.ndarray], x: Law, gate: Law):
        row, t = (v.level_weight @ v.values for v in (x, gate))
        self.of_x, self.of_gate = (_series(v) for v in (x, gate))
        with np.errstate(all="ignore"):
            value = np.asarray(fn(np.multiply.outer(grid.at(t, grid.Z_COARSE), row)), float)
        self.each, self.squares = grid.hermite_coefficients(value), grid.expectation(value**2)
        self.both = grid.hermite_coefficients(grid.from_coarse(self.each.T))
        self.own = float(grid.WEIGHT_COARSE @ self.squares)

    def __call__(self, r: float, s: float) -> float:
        if s >= 1 - 1e-9:
            return float(grid.WEIGHT_COARSE @ mehler(self.each, self.squares, r))
        powers = [v ** np.arange(n) for v, n in zip((r, s), self.both.shape, strict=True)]
        return float(powers[0] @ self.both**2 @ powers[1])

    def plain(self, r: float, s: float) -> float:
        """Of the product itself, over its mean square."""
        return float(self.of_x(r) * self.of_gate(s))


def _series(law: Law) -> Callable[[float], float]:
    """The pair moment of a law over its mean square, by the correlation of its latent."""
    coefficients, second = law.crossed
    return lambda r: float(mehler(coefficients, second, r)) / max(second, 1e-300)


__all__ = ["remembered", "through"]
