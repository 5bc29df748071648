"""What an operand that is the same at many places (a gate) hears of a function of the result, place by place.

With ``g = B d(w)`` behind ``w = f(x, y)`` a gate x gets ``sum_p B_p d(w_p) df/dx(x, y_p)`` over the places of y. Given
x this is a function ``h`` of y's latent, so that two places of correlation r have ``E[B B'] sum_k h_k^2 r^k`` in common
(Mehler), averaged over x: where a maximum behind the gate sends to the largest, ``E[h]^2`` is a ninth of ``E[h^2]`` for
windows of nine; where an activation shuts half of the places, less than the half.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fanin.theory import grid
from fanin.theory.adjoint.cotangent import Part, translated
from fanin.theory.adjoint.slopes import Function, partial
from fanin.theory.latent import Groups
from fanin.theory.law import Law, mehler, subsets

Place = Callable[[tuple[int, int, int]], tuple[np.ndarray, np.ndarray]]
"""The node before the result's latent at points of both operands, and how far it is to the next."""


def is_repeated(part: Part, out: Law, x: Law, y: Law) -> bool:
    """Whether places of one x see a function of the result at places of y that differ."""
    return part.values is not None and bool((out.groups - x.groups) & y.groups)


def ratios(
    fn: Function, part: Part, out: Law, x: Law, y: Law, levels: np.ndarray, share: np.ndarray, place: Place
) -> dict[Groups, float]:
    """Correlations of the base times those of what a place of y makes of it.

    Args:
        levels: of x, of y and of the result, by joint level; share: of each.
    """
    assert part.values is not None
    names = {s: translated(s, out.axes, y.axes) for s in subsets(out.groups)}
    both, own = dict.fromkeys(names, 0.0), 0.0
    for (i, j, k), weight in zip(levels.tolist(), share.tolist(), strict=True):
        a, b = grid.at(x.values[i], grid.Z_COARSE)[:, None], grid.at(y.values[j], grid.Z_COARSE)[None, :]
        left, t = place((i, j, k))
        function = part.values[k]
        heard = (function[left] + t * np.diff(function)[left]) * partial(fn, *np.broadcast_arrays(a, b))
        heard = grid.from_coarse(heard)
        coefficients, squares = grid.hermite_coefficients(heard), grid.expectation(heard**2)
        own += weight * float(grid.WEIGHT_COARSE @ squares)
        for s, name in names.items():
            both[s] += weight * float(grid.WEIGHT_COARSE @ mehler(coefficients, squares, y.correlation(name)))
    return {s: part.ratio.get(s, 0.0) * (v / own if own > 0 else 0.0) for s, v in both.items()}


__all__ = ["is_repeated", "ratios"]
