"""Pair moments of a cotangent between every two positions, where one number for all pairs is not enough.

Behind causal attention the first tokens hear from all later ones and the last from few, so their gradients agree to
different degrees. A part may then carry a matrix over positions (or runs of them, as in ``theory.places``).
"""

from __future__ import annotations

import numpy as np

from fanin.theory import grid, places
from fanin.theory.adjoint.cotangent import Cotangent, Part
from fanin.theory.adjoint.orthogonal import taken
from fanin.theory.law import Axis, Law
from fanin.theory.moments import mean_of
from fanin.theory.records import replace
from fanin.theory.runs import at_all

POSITION = places.POSITION
UNEVEN = 1.0
"""Mean squares of positions that differ by more than their mean are not told by one number."""


def by_position(profile: np.ndarray, axes: tuple[Axis, ...], size: int) -> np.ndarray:
    """A profile's mean over every run of positions and all other places: shape (runs,)."""
    run = places.runs(size)
    of_runs = lambda along: np.add.reduceat(along, run.start) / run.width  # noqa: E731
    if profile.size == 1:
        return np.full(len(run.index), profile.item())
    for i, axis in enumerate(axes):
        atoms = [a for a in axis if a.size > 1]
        where = next((k for k, a in enumerate(atoms) if a.group == POSITION and a.size == size), None)
        if where is None or profile.shape[i] == 1:
            continue
        if len(atoms) == 1 and profile.size == size:
            return of_runs(profile.reshape(size))
        laid = np.moveaxis(profile, i, 0).reshape(*[a.size for a in atoms], -1)
        return of_runs(np.moveaxis(laid, where, 0).reshape(size, -1).mean(1))
    return np.full(len(run.index), mean_of(profile))


def laid_out(values: np.ndarray, law: Law, size: int) -> np.ndarray:
    """Numbers by run as a profile of a tensor whose axis of positions stands alone; their mean where it does not."""
    for i, axis in enumerate(law.axes):
        atoms = [a for a in axis if a.size > 1]
        if len(atoms) == 1 and atoms[0].group == POSITION and atoms[0].size == size:
            shape = [1] * len(law.shape)
            shape[i] = size
            return at_all(values, size).reshape(shape)
    return np.full((1,) * len(law.shape), float(values @ places.runs(size).width / size))


def pair_matrix(g: Cotangent, size: int) -> np.ndarray:
    """E[g_i g_j] of the same feature at two positions of a sample, (runs, runs); the diagonal is the mean square."""
    total = np.zeros((len(places.runs(size).index),) * 2)
    for part in g.parts:
        total += _part_pairs(part, g.law, size)
    return total


def _part_pairs(part: Part, law: Law, size: int) -> np.ndarray:
    root = np.sqrt(by_position(part.second, law.axes, size))
    n = len(root)
    r = part.matrix
    out = np.multiply.outer(root, root)
    if r is None or len(r) != n:
        r = _one_for_all(part, out, size)
    out *= r
    if part.values is not None:
        out *= _function_pairs(part, law, size)
        out -= taken(part, law)
    np.fill_diagonal(out, by_position(part.profile(law), law.axes, size))
    return out


def _one_for_all(part: Part, roots: np.ndarray, size: int) -> np.ndarray:
    """The correlation of all pairs: a ratio is to the mean square, more than the mean product of unlike sizes."""
    alike, mean = part.ratio.get(frozenset((POSITION,)), 0.0), mean_pair(roots, size)
    if 0 < mean < part.mean_second:
        alike = float(np.clip(alike * part.mean_second / mean, -1, 1))
    return alike + (1 - alike) * np.eye(len(roots))


def _function_pairs(part: Part, law: Law, size: int) -> np.ndarray:
    """E[d(z_i) d(z_j)] by Mehler's formula at the correlations of the law's latent."""
    assert part.values is not None
    coefficients = places.weights(law, size) @ grid.hermite_coefficients(part.values)
    return places.mehler_sum(coefficients, places.correlations(law, size))


def carried(g: Cotangent) -> int | None:
    """Length of the sequence if a part carries a matrix over it."""
    size = places.length(g.law)
    if size is None:
        return None
    n = len(places.runs(size).index)
    return size if any(p.matrix is not None and len(p.matrix) == n for p in g.parts) else None


def uneven(g: Cotangent) -> bool:
    """Whether some positions of a sequence have much more gradient than others: a class token that alone was read."""
    size = places.length(g.law)
    if size is None:
        return False
    along = by_position(g.profile(), g.law.axes, size)
    return bool(np.ptp(along) > UNEVEN * np.mean(along))


def of_piece(g: Cotangent, piece: Law, start: int) -> tuple[np.ndarray, float] | None:
    """Of the positions of a piece of a sequence: the matrix, and the mean over pairs of them over the mean square."""
    size, count = carried(g), places.length(piece)
    if size is None or count is None or start + count > size:
        return None
    run = places.runs(size)
    owner = np.searchsorted(run.start, start + places.runs(count).index, side="right") - 1
    pairs = pair_matrix(g, size)
    near = places.neighbours(pairs, size)  # two positions of one run
    inner = pairs[np.ix_(owner, owner)]
    inner = np.where((owner[:, None] == owner[None, :]) & ~np.eye(len(owner), dtype=bool), near[owner][:, None], inner)
    second = float(places.runs(count).width @ np.diag(inner)) / count
    return normalized(inner), mean_pair(inner, count) / second if second > 0 else 0.0


def in_whole(moved: Part, part: Part, piece: Law, whole: Law, start: int) -> Part:
    """The part of a piece of a sequence among all of its positions, nothing at the others: with the piece's matrix.

    A sum with what other pieces get (a class token that alone is read has a hundred times the gradient) is then told
    pair by pair; one number for all would be that of the largest.
    """
    size, count = places.length(whole), places.length(piece)
    if size is None or count is None or count >= size:
        return moved
    inner = _part_pairs(part, piece, count)
    run, near = places.runs(size), places.neighbours(inner, count)
    at = run.index - start
    inside = (at >= 0) & (at < count)
    owner = np.searchsorted(places.runs(count).start, np.clip(at, 0, count - 1), side="right") - 1
    pairs = inner[np.ix_(owner, owner)]
    pairs = np.where((owner[:, None] == owner[None, :]) & ~np.eye(len(owner), dtype=bool), near[owner][:, None], pairs)
    pairs = pairs * np.outer(inside, inside)
    second = float(run.width @ np.diag(pairs)) / size
    alike = mean_pair(pairs, size) / second if second > 0 else 0.0
    if part.values is not None:
        return moved
    return replace(moved, matrix=normalized(pairs), ratio={**moved.ratio, frozenset((POSITION,)): alike})


def correlation(g: Cotangent, to: Law | None = None) -> np.ndarray | None:
    """The matrix that a fresh part at a tensor of the same sequence carries on; None where there is none."""
    size = carried(g)
    if size is None or (to is not None and places.length(to) != size):
        return None
    return normalized(pair_matrix(g, size))


def normalized(pairs: np.ndarray) -> np.ndarray:
    """Pair moments as correlations."""
    root = np.sqrt(np.maximum(pairs.diagonal(), 1e-300))
    r = np.multiply.outer(root, root)
    np.divide(pairs, r, out=r)
    r.clip(-1, 1, out=r)
    np.fill_diagonal(r, 1.0)
    return r


def mean_pair(pairs: np.ndarray, size: int) -> float:
    """Mean over ordered pairs of different positions."""
    width = places.runs(size).width
    near = places.neighbours(pairs, size)
    total = width @ pairs @ width - (width**2) @ np.diag(pairs) + (width * (width - 1)) @ near
    return float(total / (size * (size - 1))) if size > 1 else 0.0
