"""What is known of elements given a latent that they share with others: conditional moments.

``h_t = a_t h_{t-1} + b_t x_t`` with a forget rate ``a_t = exp(-dt_t)`` and an input ``b_t = dt_t B_t`` is linear in
fresh signs, but its *size* goes with dt: where dt is small, the state forgets little, and all later rates are near one,
too. Factors are then not independent, though their means are: ``E[x^2 y^2] != E[x^2] E[y^2]``.

A law therefore remembers of the latents c that its factors were functions of

    psi(c) = E[x^2 | c] / E[x^2],    phi(c) = E[x | c] / sqrt(E[x^2]),

and as all else is independent given c, products and sums of such laws follow exactly for one latent:

    E[(x y)^2] = E[x^2] E[y^2] E[psi_x psi_y],    E[x y] = rms_x rms_y E[phi_x phi_y],
    psi_xy = psi_x psi_y / E[psi_x psi_y],        psi_(x+y) ~ E[x^2] psi_x + E[y^2] psi_y + 2 rms_x rms_y phi_x phi_y.

Several latents count as independent of each other. A factor that is read at one place of a sequence (a step of a scan)
is tied to those at other places by what their latents have in common, ``z_t = sqrt(r) c + sqrt(1 - r) e_t`` with r
the mean correlation of two places: it is a function of c after ``E[f(z_t) | c]``, a Gaussian average (Mehler's kernel).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
from scipy.special import ndtr

from fanin.theory import grid
from fanin.theory.latent import ALONG
from fanin.theory.moments import Moments
from fanin.theory.records import cached_property, replace

if TYPE_CHECKING:
    from fanin.theory.law import Law

Key = tuple[int, tuple, bool]
"""A latent by its id and its view along features, and whether it is what all its places have in common."""
Table = Mapping[Key, "Given"]

LEAST = 0.01  # variance of psi, or of phi, from which on it counts
MOST = 6  # latents that a law remembers
MANY = 64  # levels beyond which it remembers none
_FOLD = grid.POINTS // grid.COARSE


@dataclass(frozen=True, eq=False)
class Given:
    """Conditional moments of elements given one latent.

    Attributes:
        second: psi at each level, (levels, COARSE), of mean one.
        first: phi at each level, (levels, COARSE).
        alike: correlation of that latent at two places of a sequence.
        met: whether two factors or summands knew of it before: it will be met again.
    """

    second: np.ndarray
    first: np.ndarray
    alike: float
    met: bool = False

    def at(self, levels: np.ndarray) -> Given:
        """For other levels, each one of these."""
        return replace(self, second=self.second[levels], first=self.first[levels])

    def mixed(self, shares: np.ndarray) -> Given:
        """For levels that are mixtures of these, by shares (levels, these)."""
        return replace(self, second=shares @ self.second, first=shares @ self.first)

    @property
    def smoothed(self) -> Given:
        """Given what all places have in common, of what was given the latent at one place."""
        kernel = _kernel(round(float(np.sqrt(self.alike)), 3)).T
        return replace(self, second=self.second @ kernel, first=self.first @ kernel)

    @property
    def strength(self) -> float:
        """How far from constant: the largest variance of psi or of phi."""
        second, first = self.second, self.first
        variance = [mean(f**2) - mean(f) ** 2 for f in (second, first)]
        return float(np.max(variance)) if second.size else 0.0


@dataclass(frozen=True, eq=False)
class Operands:
    """Two laws on latents of their own, with their values at every joint level.

    Attributes:
        levels_x, levels_y: of every joint level; where joint levels were merged, shares of levels (joint, levels).
    """

    fx: np.ndarray
    fy: np.ndarray
    x: Law
    y: Law
    levels_x: np.ndarray
    levels_y: np.ndarray

    def tables(self, *, own: bool) -> tuple[Table, Table]:
        """What is known of each given the latents of its factors; and given its own, too."""
        sides = ((self.x, self.levels_x), (self.y, self.levels_y))
        x, y = ({k: _laid(g, at) for k, g in (known(law) if own else stored(law)).items()} for law, at in sides)
        return x, y

    def merged(self, fx: np.ndarray, fy: np.ndarray, group: np.ndarray, weight: np.ndarray) -> Operands:
        """With joint levels merged into groups, by how frequent they are."""
        shares = np.zeros((len(fx), len(group)))
        shares[group, np.arange(len(group))] = weight
        shares /= np.maximum(shares.sum(1, keepdims=True), 1e-300)
        x, y = (shares @ np.eye(len(of.values))[at] for of, at in ((self.x, self.levels_x), (self.y, self.levels_y)))
        return replace(self, fx=fx, fy=fy, levels_x=x, levels_y=y)

    @cached_property
    def means(self) -> tuple[np.ndarray, np.ndarray]:
        """E[x], E[y] at every joint level; those of the laws, but where joint levels were merged."""
        return self._read(lambda law: law.means, grid.expectation)

    @cached_property
    def sizes(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean squares."""
        return self._read(lambda law: law.seconds, lambda f: grid.expectation(f**2))

    @cached_property
    def slopes(self) -> tuple[np.ndarray, np.ndarray]:
        """E[x z], E[y z], each of its own latent."""
        return self._read(lambda law: law.slopes, lambda f: f @ (grid.WEIGHT * grid.Z_UNIT))

    def _read(self, of_law: Callable[[Law], np.ndarray], of_values: Callable[[np.ndarray], np.ndarray]):
        sides = (self.x, self.levels_x, self.fx), (self.y, self.levels_y, self.fy)
        x, y = (of_law(law)[at] if at.ndim == 1 else of_values(f) for law, at, f in sides)
        return x, y

    @cached_property
    def straight(self) -> tuple[np.ndarray, np.ndarray]:
        """E[x] / rms."""
        x, y = (m / np.sqrt(np.maximum(s, 1e-300)) for m, s in zip(self.means, self.sizes, strict=True))
        return x, y


def _laid(known: Given, levels: np.ndarray) -> Given:
    return known.at(levels) if levels.ndim == 1 else known.mixed(levels)


@dataclass(frozen=True, eq=False)
class Tied:
    """Of a product of two laws that share latents: what its mean square has more, and its mean, and what it remembers.

    Attributes:
        gain: factor of the product of mean squares, by joint level.
        mean: what is added to the product of means.
        known: what is known of it.
    """

    gain: np.ndarray
    mean: np.ndarray
    known: Mapping[Key, Given]


NOTHING: Table = {}
UNTIED = Tied(np.ones(1), np.zeros(1), NOTHING)


def of_product(both: Operands) -> Tied:
    """Of independent ones, as far as known, the gain is one."""
    count = len(both.fx)
    if count > MANY:
        return UNTIED
    gain, cov, found = product(*both.tables(own=True), both.straight)
    u, v = both.sizes
    return Tied(gain, cov * np.sqrt(u * v), found)


def of_sum(both: Operands, factor: float, rho: float) -> dict[Key, Given]:
    """What x + factor y remembers of what x and y do, which correlate by rho."""
    if not (both.x.given or both.y.given) or len(both.fx) > MANY:
        return {}
    x, y = both.tables(own=False)
    every, other = (set(t) | {(i, v, not c) for i, v, c in t} for t in (x, y))
    full = both.tables(own=True)
    x = {k: g for k, g in full[0].items() if k in x or k in other}
    y = {k: replace(g, first=np.sign(factor) * g.first) for k, g in full[1].items() if k in y or k in every}
    (u, v), (a, b) = both.sizes, both.straight
    return total(x, y, (u, factor**2 * v), (a, np.sign(factor) * b), rho * np.sign(factor))


def mean(table: np.ndarray) -> np.ndarray:
    """E of functions of the latent, (levels, COARSE) -> (levels,)."""
    return table @ grid.WEIGHT_COARSE


def folded(values: np.ndarray) -> np.ndarray:
    """Means over the cells of the coarse grid, (levels, POINTS) -> (levels, COARSE)."""
    parts = (values * grid.WEIGHT).reshape(len(values), grid.COARSE, _FOLD)
    return parts.sum(-1) / grid.WEIGHT_COARSE


def unfolded(table: np.ndarray) -> np.ndarray:
    """The same on the fine grid, (levels, COARSE) -> (levels, POINTS)."""
    left = np.clip(np.searchsorted(grid.Z_COARSE, grid.Z_UNIT) - 1, 0, grid.COARSE - 2)
    t = (grid.Z_UNIT - grid.Z_COARSE[left]) / (grid.Z_COARSE[left + 1] - grid.Z_COARSE[left])
    t = np.clip(t, 0, 1)
    return table[:, left] * (1 - t) + table[:, left + 1] * t


@lru_cache(maxsize=64)
def _kernel(rho: float) -> np.ndarray:
    """Probability of the cell of one latent given the cell of another that correlates with it by rho."""
    if rho > 0.999:
        return np.eye(grid.COARSE)
    edges = np.concatenate([[-np.inf], (grid.Z_COARSE[1:] + grid.Z_COARSE[:-1]) / 2, [np.inf]])
    return np.diff(ndtr((edges - rho * grid.Z_COARSE[:, None]) / np.sqrt(1 - rho**2)), axis=1)


_KNOWN: WeakKeyDictionary[Moments, tuple[np.ndarray, np.ndarray]] = WeakKeyDictionary()


def _by_itself(law: Law) -> tuple[np.ndarray, np.ndarray]:
    """Squares and values on the coarse grid over their mean square and rms; once for an array of values."""
    found = _KNOWN.get(law.moments)
    if found is None:
        rms = np.sqrt(law.seconds)[:, None]
        found = _KNOWN[law.moments] = folded(law.values**2) / rms**2, folded(law.values) / rms
    return found


def own(law: Law) -> dict[Key, Given]:
    """An element given its own latent."""
    latent = law.latent
    if law.deterministic or law.loose is not None or len(law.values) > MANY or not np.all(law.seconds > 0):
        return {}
    alike = float(min(max(latent.corr.get(ALONG, 1.0), 0.0), 1.0))
    made = Given(*_by_itself(law), alike)
    moved = bool(latent.place_view)
    return {(latent.id, latent.feature_view, moved): made.smoothed if moved else made}


def stored(law: Law) -> Table:
    """What a law remembers, where it is of the law's own levels."""
    return law.given if all(len(g.second) == len(law.values) for g in law.given.values()) else {}


def known(law: Law) -> dict[Key, Given]:
    """What is known of a law given the latents that it remembers; given its own, where it is made of no others."""
    return dict(stored(law)) or own(law)


def elsewhere(table: Table) -> dict[Key, Given]:
    """Read at some place of a sequence: tied to other places by what all have in common."""
    return {(id_, view, True): g if common else g.smoothed for (id_, view, common), g in table.items()}


def paired(x: Table, y: Table) -> dict[Key, tuple[Given | None, Given | None]]:
    """Both tables latent by latent, those at one place beside those in common as in common."""
    found: dict[Key, tuple[Given | None, Given | None]] = {}
    for key in dict.fromkeys((*x, *y)):
        id_, view, common = key
        other = (id_, view, not common)
        if common and ((key in x and other in y) or (key in y and other in x)):
            a, b = (t[key] if key in t else t[other].smoothed if other in t else None for t in (x, y))
            found[key] = a, b
        elif other not in x and other not in y:
            found[key] = (x.get(key), y.get(key))
    return found


def kept(found: dict[Key, Given]) -> dict[Key, Given]:
    """Those that count most; of latents that were met twice before others."""
    strength = {key: g.strength for key, g in found.items()}
    order = sorted((key for key in found if strength[key] > LEAST), key=lambda k: (not found[k].met, -strength[k]))
    return {key: found[key] for key in order[:MOST]}


def product(
    x: Table, y: Table, straight: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, dict[Key, Given]]:
    """Of a product of laws at joint levels: E[psi psi'], Cov(phi, phi'), and what the product remembers.

    Args:
        straight: of each factor E[x] / rms, (joint levels,).
    """
    gain, cov = np.ones(len(straight[0])), np.zeros(len(straight[0]))
    pairs = paired(x, y)
    for a, b in pairs.values():
        if a is not None and b is not None:
            gain *= mean(a.second * b.second)
            cov += mean(a.first * b.first) - mean(a.first) * mean(b.first)
    found = {}
    for key, (a, b) in pairs.items():
        if a is not None and b is not None:
            second = a.second * b.second
            first = a.first * b.first
            found[key] = _scaled(second, first, replace(a, met=True))
        elif a is not None:
            found[key] = replace(a, first=a.first * straight[1][:, None])
        elif b is not None:
            found[key] = replace(b, first=b.first * straight[0][:, None])
    return gain, cov, kept(found)


def _scaled(second: np.ndarray, first: np.ndarray, of: Given) -> Given:
    total = np.maximum(mean(second), 1e-300)[:, None]
    return replace(of, second=second / total, first=first / np.sqrt(total))


def total(
    x: Table, y: Table, sizes: tuple[np.ndarray, np.ndarray], straight: tuple[np.ndarray, np.ndarray], rho: float
) -> dict[Key, Given]:
    """Of a sum of laws at joint levels: what it remembers.

    Args:
        sizes: mean square of each summand, (joint levels,).
        straight: of each E[x] / rms.
        rho: correlation of their latents; it counts in place of what their conditional means have in common.
    """
    found, (u, v) = {}, (s[:, None] for s in sizes)
    for key, (a, b) in paired(x, y).items():
        psi = [np.ones((1, grid.COARSE)) if g is None else g.second for g in (a, b)]
        phi = [m[:, None] if g is None else g.first for g, m in zip((a, b), straight, strict=True)]
        common = rho * np.sqrt(psi[0] * psi[1]) if rho else phi[0] * phi[1]
        second = u * psi[0] + v * psi[1] + 2 * np.sqrt(u * v) * common
        first = np.sqrt(u) * phi[0] + np.sqrt(v) * phi[1]
        one = next(g for g in (a, b) if g is not None)
        both = replace(one, met=one.met or (a is not None and b is not None and (a.met or b.met)))
        found[key] = _scaled(np.maximum(second, 0.0), first, both)
    return kept(found)


def affine(table: Table, before: np.ndarray, after: np.ndarray) -> dict[Key, Given]:
    """Behind a function of one law: what it remembers where the function is a straight line, else nothing.

    Args:
        before, after: values of the law and of the result, (levels, POINTS).
    """
    if not table or before.shape != after.shape or not np.isfinite(after).all():
        return {}
    run, rise = before[:, -1] - before[:, 0], after[:, -1] - after[:, 0]
    slope = np.divide(rise, run, out=np.zeros_like(run), where=run != 0)[:, None]
    shift = after[:, :1] - slope * before[:, :1]
    size = np.abs(after).max(1, keepdims=True)
    if np.any(np.abs(after - slope * before - shift) > 1e-6 * size):
        return {}
    rms = np.sqrt(np.maximum(grid.expectation(before**2), 1e-300))[:, None]
    found = {}
    for key, g in table.items():
        first = slope * rms * g.first + shift
        second = (slope * rms) ** 2 * g.second + 2 * shift * slope * rms * g.first + shift**2
        straight = replace(g, first=np.sign(slope) * g.first)
        found[key] = _scaled(np.maximum(second, 0.0), first, g) if np.any(shift) else straight
    return found


def regrouped(table: Table, old: np.ndarray, new: np.ndarray, count: int) -> dict[Key, Given]:
    """For places whose levels were numbered anew: the mean over the old levels of each.

    Args:
        old, new: level of every place, axes of one tensor, each full or one.
        count: of new levels.
    """
    if not table:
        return {}
    rows = len(next(iter(table.values())).second)
    if rows == 1:
        return dict(table) if count == 1 else {key: g.at(np.zeros(count, int)) for key, g in table.items()}
    a, b = np.broadcast_arrays(old, new)
    joint = np.bincount((b.astype(np.int64) * rows + a).ravel(), minlength=count * rows).reshape(count, rows)
    shares = joint / np.maximum(joint.sum(1, keepdims=True), 1)
    return {key: g.mixed(shares) for key, g in table.items()}
