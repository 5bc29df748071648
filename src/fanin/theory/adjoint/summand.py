"""A function of a sum of independent operands, as one operand knows it.

Behind ``w = x + y`` a gradient ``B d(w)`` is, given x, ``B m(x)`` with ``m = E[d | x]`` and a rest of mean zero,
``B (d - m)``, of the size ``sqrt(E[d^2 | x] - m^2)``. Each place has a y of its own, so that over two places whose y
are independent only m is left: of a ReLU behind the sum ``Phi(x / s)`` of each, which has a slope, and hence
``E[B B'] E[m x]^2`` in a sum of ``g x`` over places (the gradient of a gate of x, or of the gain of the norm that x is
from), where ``sqrt(E[d^2 | x])``, of the same mean square, has a quarter of it. The rest keeps the other pairs.
"""

from __future__ import annotations

import numpy as np

from fanin.theory import grid
from fanin.theory.adjoint import radial
from fanin.theory.adjoint.cotangent import ALIGNED, Part, fresh
from fanin.theory.law import Law, subsets
from fanin.theory.records import replace

SLIGHT = 1e-2
"""Of the mean square: what need not be told apart."""
ALIKE = 0.998
"""Correlation from which on two functions of a latent count as one, times a number."""


def of_sum(part: Part, out: Law, x: Law, means: np.ndarray, squares: np.ndarray) -> list[Part]:
    """What a summand gets of a part that follows the sum's latent.

    Args:
        means, squares: (levels, POINTS) E of the function and of its square given x.
    """
    rest = np.maximum(squares - means**2, 0.0)
    own, left = (float(x.level_weight @ grid.expectation(f)) for f in (means**2, rest))
    bent = own - float(x.level_weight @ grid.expectation(means)) ** 2
    if not _of_several_places(part) or min(bent, left) <= SLIGHT * (own + left):
        return [_whole(part, out, x, np.sqrt(squares))]
    profile, inner = part.profile(out), grid.expectation(means**2 + rest)[x.level]
    second = profile / np.where(inner > 0, inner, np.inf)
    known = replace(fresh(second, part.ratio, means, balanced=part.balanced), white=part.white)
    beside = fresh(second, dict.fromkeys(subsets(out.groups), 1.0), np.sqrt(rest), balanced=part.balanced)
    ratio = {}
    for s in subsets(out.groups):
        over = beside.pair(x, s)
        ratio[s] = float(np.clip((part.pair(out, s) - known.pair(x, s)) / over, -1, 1)) if over > 0 else 0.0
    return [known, replace(beside, ratio=ratio)]


def _whole(part: Part, out: Law, x: Law, form: np.ndarray) -> Part:
    """As one function, of the same mean square at every place, since it is the same tensor.

    Merged levels and a coarse grid lose some of it, and the root of a mean does not keep pair moments.
    """
    whole, inner = part.profile(out), grid.expectation(form**2)[x.level]
    second = whole / np.where(inner > 0, inner, np.inf)
    plain = Part(part.base, second, dict.fromkeys(subsets(out.groups), 1.0), form)
    ratio = {}
    for s in subsets(out.groups):
        over = plain.pair(x, s)
        ratio[s] = float(np.clip(part.pair(out, s) / over, -1, 1)) if over > 0 else 0.0
    kept = part.white and part.white * part.straight(out) / max(plain.straight(x), 1e-300)
    return replace(fresh(second, ratio, form, part.matrix, part.balanced), white=kept)


def _of_several_places(part: Part) -> bool:
    """Whether places have numbers in common that are told by groups alone: not by position, nor over features."""
    if part.matrix is not None or not any(r for s, r in part.ratio.items() if s):
        return False
    return part.radial is None or bool(np.all(np.abs(radial.power(part.radial) - 1) < SLIGHT))


FEW = 2
"""Parts that are left as they are."""


def joined(parts: list[Part], x: Law) -> list[Part]:
    """Parts of independent bases whose functions are alike as one: else there were twice as many behind every sum."""
    if len(parts) <= FEW:
        return parts
    found: list[list[Part]] = []
    for part in sorted(parts, key=lambda p: -p.mean_profile(x)):
        like = next((one for one in found if _alike(one[0], part, x)), None)
        if like is None:
            found.append([part])
        else:
            like.append(part)
    return [one[0] if len(one) == 1 else _joined(one, x) for one in found]


def _alike(one: Part, other: Part, x: Law) -> bool:
    """Whether two functions are proportional, and nothing else is known of either part."""
    f, g = one.values, other.values
    if f is None or g is None or f.shape != g.shape or one.balanced != other.balanced or not _plain(one, other):
        return False
    mean = lambda v: float(x.level_weight @ grid.expectation(v))  # noqa: E731
    return abs(mean(f * g)) >= ALIKE * np.sqrt(mean(f**2) * mean(g**2))


def _plain(*parts: Part) -> bool:
    return all(
        p.base != ALIGNED
        and p.matrix is p.divided is p.orthogonal is p.radial is p.chosen is p.crossed is None
        and not (p.awaited or p.same or p.given or p.met or p.heard or p.alike or p.along or p.copied or p.mirrored)
        for p in parts
    )


def _joined(parts: list[Part], x: Law) -> Part:
    """On a base of its own: mean squares add at every place and point of the latent, correlations by share."""
    means = [p.mean_profile(x) for p in parts]
    total = max(sum(means), 1e-300)
    shares = [m / total for m in means]
    squares = np.zeros_like(parts[0].values)  # pyright: ignore
    for share, p in zip(shares, parts, strict=True):
        squares += share * p.values**2 / max(float(x.level_weight @ p.function_squares(x)), 1e-300)  # pyright: ignore
    values = np.sqrt(squares) * np.where(parts[0].values < 0, -1.0, 1.0)  # pyright: ignore
    inner = grid.expectation(squares)[x.level]
    second = sum((p.profile(x) for p in parts), np.zeros(())) / np.where(inner > 0, inner, np.inf)
    ratio = {g: sum(s * p.ratio.get(g, 0.0) for s, p in zip(shares, parts, strict=True)) for g in parts[0].ratio}
    white = sum(s * p.white for s, p in zip(shares, parts, strict=True))
    return replace(fresh(second, ratio, values, balanced=parts[0].balanced), white=white)


__all__ = ["joined", "of_sum"]
