"""Correlation between every two positions of a sequence, where one number for all pairs is not enough.

Behind a causal mask early tokens see few others and late ones many, so tokens become alike at different rates. A latent
may then carry a matrix over positions: all of them, or one for each run of neighbours (``runs``). Everything that is
not attention passes the matrix on through Mehler's formula.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from fanin.theory import grid
from fanin.theory.law import Latent, Law
from fanin.theory.records import replace
from fanin.theory.runs import LIMIT, Runs, runs

POSITION = "position"


def length(law: Law) -> int | None:
    """Length of the law's sequence axis; None where it has none, or several."""
    atoms = [atom.size for axis in law.axes for atom in axis if atom.group == POSITION and atom.size > 1]
    return atoms[0] if len(atoms) == 1 else None


@lru_cache(maxsize=32)  # every consumer of a tensor asks again; nothing may be written to it
def weights(law: Law, size: int) -> np.ndarray:
    """Share of each level among the elements at each run's position, shape (runs, levels)."""
    at = runs(size).index
    count = len(law.values)
    if count == 1 or POSITION not in law.level_groups:
        return np.broadcast_to(law.level_weight, (len(at), count))
    if law.level.size == size:  # positions alone are told apart
        table = np.zeros((len(at), count))
        table[np.arange(len(at)), law.level.reshape(size)[at]] = 1.0
        return table
    dims, where = [], 0
    for axis, n in zip(law.axes, law.level.shape, strict=True):
        atoms = [a for a in axis if a.size > 1] if n > 1 else []
        for atom in atoms:
            if atom.group == POSITION:
                where = len(dims)
            dims.append(atom.size)
    rows = np.moveaxis(law.level.reshape(dims), where, 0).reshape(size, -1)[at]
    joint = rows + count * np.arange(len(rows))[:, None]
    table = np.bincount(joint.ravel(), minlength=count * len(rows)).reshape(len(rows), count)
    return table / table.sum(1, keepdims=True)


def correlations(law: Law, size: int) -> np.ndarray:
    """The latent's correlation between every two runs; within a run the diagonal is one position with itself."""
    if law.latent.matrix is not None and len(law.latent.matrix) == len(runs(size).index):
        return law.latent.matrix
    r = law.correlation((POSITION,)) if POSITION in law.groups else 1.0
    n = len(runs(size).index)
    return r + (1 - r) * np.eye(n)


@lru_cache(maxsize=32)  # every consumer of a tensor asks again; nothing may be written to it
def pair_matrix(law: Law, size: int) -> np.ndarray:
    """E[x_i x_j] of the same feature at two positions, shape (runs, runs); the diagonal is the mean square."""
    share, r = weights(law, size), correlations(law, size)
    second = share @ law.seconds
    coefficients = share @ law.coefficients
    mean = coefficients[:, 0]
    if law.gaussian:
        deviation = share @ np.sqrt(np.maximum(law.seconds - law.means**2, 0))
        out = np.multiply.outer(deviation, deviation)
        out *= r
        out += np.multiply.outer(mean, mean)
    else:
        out = mehler_sum(coefficients, r).copy()
    np.fill_diagonal(out, second)
    return out


def mehler_sum(coefficients: np.ndarray, r: np.ndarray) -> np.ndarray:
    """sum_n c_in c_jn r_ij^n for coefficients (places, degrees); degrees that do not count are left out."""
    key = coefficients.tobytes()
    for known, matrix, found in _sums:
        if matrix is r and known == key:
            return found
    found = _mehler_sum(coefficients, r)
    found.flags.writeable = False
    _sums.append((key, r, found))
    return found


_sums: deque[tuple[bytes, np.ndarray, np.ndarray]] = deque(maxlen=8)
"""Of late: forward, backward and for the width of a layer's few laws the same sums are asked for."""


def _mehler_sum(coefficients: np.ndarray, r: np.ndarray) -> np.ndarray:
    size = np.abs(coefficients).max(0)
    counting = size > 1e-9 * size.max()
    counts = np.flatnonzero(counting)
    out = np.zeros_like(r)
    if not len(counts):
        return out
    term, columns, last = np.empty_like(r), coefficients.T.copy(), int(counts[-1])
    alike = _alike(coefficients)
    for n in range(last, -1, -1):
        if n < last:
            out *= r
        if counting[n]:
            c = columns[n]
            out += c[0] * c[0] if alike else np.multiply.outer(c, c, out=term)
    return out


def _alike(coefficients: np.ndarray) -> bool:
    """Whether all places have one law, so that a degree has one coefficient."""
    return bool((coefficients == coefficients[:1]).all())


def carried(*laws: Law) -> int | None:
    """Length of the sequence if any of the laws carries a matrix over it."""
    for law in laws:
        if law.latent.matrix is not None:
            return length(law)
    return None


def with_matrix(law: Law, wanted: np.ndarray, size: int) -> Law:
    """The law with the latent matrix at which its pair moments are ``wanted``."""
    if length(law) != size:
        return law
    share = weights(law, size)
    coefficients = share @ law.coefficients
    if not np.isfinite(coefficients).all():  # a mask of minus infinity among the values: no moments to be solved for
        return law
    mean = coefficients[:, 0]
    variance = np.maximum(share @ law.seconds - mean**2, 0)
    if law.gaussian:
        deviation = share @ np.sqrt(np.maximum(law.seconds - law.means**2, 0))
        scale = np.multiply.outer(deviation, deviation)
        np.maximum(scale, 1e-300, out=scale)
        r = np.multiply.outer(mean, mean)
        np.subtract(wanted, r, out=r)
        r /= scale
    else:
        r = solved_pairs(coefficients, variance, wanted)
    r[~np.isfinite(r)] = 1.0
    r.clip(-1, 1, out=r)
    np.fill_diagonal(r, 1.0)
    return replace(law, latent=_holding(law, r, size))


def with_products(law: Law, rows: np.ndarray, factor: float) -> Law:
    """The law with the mean products of known rows (one a position) as pair moments."""
    flat = _runs_of(rows)
    return with_matrix(law, factor * (flat @ flat.T) / flat.shape[1], len(rows))


def structured(rows: np.ndarray) -> bool:
    """Whether products of rows differ by more than chance, which is one over the root of their length."""
    flat = _runs_of(rows)
    pairs = flat @ flat.T / flat.shape[1]
    beside = pairs[~np.eye(len(pairs), dtype=bool)]
    return len(flat) > 2 and beside.std() > 1.5 * np.diag(pairs).mean() / np.sqrt(flat.shape[1])


def _runs_of(rows: np.ndarray) -> np.ndarray:
    index = runs(len(rows)).index
    return np.asarray(rows, float)[index].reshape(len(index), -1)


def solved_pairs(coefficients: np.ndarray, variance: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Correlations of every two places at which Mehler's sums are the pair moments wanted, (places, places)."""
    n = len(coefficients)
    c = coefficients.T[: _degree(coefficients) + 1]
    i, j = _upper(n)  # every two places once, and again where rounding tells them from the same two the other way round
    again = np.flatnonzero(wanted[i, j] != wanted[j, i])
    rows, columns = np.concatenate([i, j[again]]), np.concatenate([j, i[again]])
    terms = c[:, :1] ** 2 if _alike(coefficients) else c[:, rows] * c[:, columns]
    found = solved(terms, np.sqrt(variance[rows] * variance[columns]), wanted[rows, columns])
    out = np.empty((n, n))
    out[j, i] = found[: len(i)]
    out[rows, columns] = found
    return out


def solved_alone(coefficients: np.ndarray, variance: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The same of each place and itself in another sample, (places,)."""
    squares = coefficients.T**2
    counts = squares > 1e-14 * np.maximum(squares.max(0), 1e-300)
    terms = np.where(np.logical_or.accumulate(counts[::-1])[::-1], squares, 0.0)
    return solved(terms[: _degree(coefficients) + 1], np.sqrt(variance * variance), wanted, apart=True)


@lru_cache(maxsize=64)
def _upper(n: int) -> tuple[np.ndarray, ...]:
    return np.triu_indices(n)


def _degree(coefficients: np.ndarray) -> int:
    """The highest that counts."""
    squares = (coefficients**2).max(0)
    return int(np.flatnonzero(squares > 1e-14 * max(squares.max(), 1e-300))[-1]) if squares.any() else 0


def solved(terms: np.ndarray, spread: np.ndarray, wanted: np.ndarray, *, apart: bool = False) -> np.ndarray:
    """Invert power series, given as (degrees, series or 1): Newton's steps, kept within a bracket by bisection.

    Args:
        spread: what each series has beyond its first term at one.
        wanted: the value of each.
        apart: whether each ends when it is there, rather than all together.
    """
    going: bool | np.ndarray = True
    up = wanted >= terms[0]
    end = _sum_of_series(terms, np.where(up, 1.0, -1.0))
    beyond = np.where(up, wanted >= end, wanted <= end)
    low = np.where(up, np.where(beyond, 1.0, 0.0), -1.0)
    high = np.where(up, 1.0, np.where(beyond, -1.0, 0.0))
    with np.errstate(all="ignore"):
        r = np.clip(np.nan_to_num((wanted - terms[0]) / spread), low, high)
        for _ in range(40):
            value, slope = _series(terms, r)
            below = value < wanted
            low, high = np.where(below, r, low), np.where(below, high, r)
            step = r + (wanted - value) / slope
            inside = (step >= low) & (step <= high)
            new = np.where(inside, step, (low + high) / 2)  # also where both ends are one
            moved = np.abs(new - r)
            r = np.where(going, new, r)
            going = going & ~((moved if apart else moved.max()) < 1e-10)
            if not np.any(going):
                break
    return r


def _series(terms: np.ndarray, r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A power series and its derivative, by Horner's rule."""
    value, slope = np.full_like(r, terms[-1]), np.zeros_like(r)
    for term in terms[-2::-1]:
        slope *= r
        slope += value
        value *= r
        value += term
    return value, slope


def _sum_of_series(terms: np.ndarray, r: np.ndarray) -> np.ndarray:
    """The power series alone."""
    value = np.full_like(r, terms[-1])
    for term in terms[-2::-1]:
        value *= r
        value += term
    return value


def _holding(law: Law, r: np.ndarray, size: int) -> Latent:
    """The latent with its matrix, and its one number for positions as the matrix's mean.

    Pairs of places count by the deviations of both, as in pair moments: zeros beside tokens have no say.
    """
    width, pairs = runs(size).width, _widths_of_pairs(runs(size))
    squares, inside = width**2, width * (width - 1)
    if (root := _deviations(law, size)) is not None:
        pairs, squares, inside = pairs * np.multiply.outer(root, root), squares * root**2, inside * root**2
    count = float(pairs.sum() - squares.sum() + inside.sum())
    total = np.vdot(pairs, r) - squares @ r.diagonal() + inside @ neighbours(r, size)
    corr = {**law.latent.corr, frozenset((POSITION,)): float(total / count) if count > 0 else 1.0}
    return replace(law.latent, matrix=r, corr=corr)


def _deviations(law: Law, size: int) -> np.ndarray | None:
    """Standard deviations run by run, over the largest; None where positions do not differ in them."""
    if POSITION not in law.level_groups:
        return None
    found = weights(law, size) @ np.sqrt(np.maximum(law.variances, 0))
    largest = float(found.max())
    return found / largest if 0 < largest < np.inf and np.ptp(found) > 1e-9 * largest else None


@lru_cache(maxsize=8)
def _widths_of_pairs(along: Runs) -> np.ndarray:
    """Of how many pairs of positions every two runs are made."""
    return np.multiply.outer(along.width, along.width)


def neighbours(matrix: np.ndarray, size: int) -> np.ndarray:
    """What two different positions of one run have: the mean of the entries beside the diagonal, of its own piece."""
    n = len(matrix)
    if n < 2:
        return np.diag(matrix)
    beside = np.diag(matrix, 1)
    before, after = np.concatenate([beside[:1], beside]), np.concatenate([beside, beside[-1:]])
    first, last = runs(size).ends
    return (np.where(first, after, before) + np.where(last, before, after)) / 2


def _fit(size: int, law: Law, *parts: Law) -> bool:
    """Whether the sequence of that length runs through the result and every part that has places at all."""
    along = [length(p) for p in parts if POSITION in p.groups]
    return length(law) == size and all(n == size for n in along)


def summed(law: Law, *parts: Law, cross: tuple[Law, float] | None = None) -> Law:
    """Carry the matrices of independent summands on to their sum.

    Args:
        cross: what they have in common: the law it is most of, and by how much the mean square is larger for it.
    """
    size = carried(*parts)
    if size is None or not _fit(size, law, *parts):
        return law
    n = len(runs(size).index)
    total = np.zeros((n, n))
    means = [weights(p, size) @ p.means for p in parts]
    for part in parts:
        total += pair_matrix(part, size)
    for i in range(len(parts)):
        for j in range(len(parts)):
            if i != j:
                total += np.multiply.outer(means[i], means[j])
    if cross is not None and _fit(size, law, cross[0]):
        total = total + cross[1] * correlations(cross[0], size)
    return with_matrix(law, total, size)


def multiplied(law: Law, x: Law, y: Law, tied: float = 1.0) -> Law:
    """Carry the matrices of independent factors on to their product.

    Args:
        tied: by what the mean square is larger for a latent that both factors are functions of; places keep it.
    """
    size = carried(x, y)
    if size is None or not _fit(size, law, x, y):
        return law
    both = tied * pair_matrix(x, size)
    both *= pair_matrix(y, size)
    return with_matrix(law, both, size)


def mixed(law: Law, parts: Sequence[Law], sizes: Sequence[int]) -> Law:
    """Carry the matrices of tensors that lie side by side along features on to the whole: their mean, by size."""
    size, beside = carried(*parts), [(p, n) for p, n in zip(parts, sizes, strict=True) if p.second > 0]
    if size is None or any(length(p) != size for p, _ in beside):  # zeros that are written later have no places yet
        return law
    total = sum((n * pair_matrix(p, size) for p, n in beside), np.zeros(()))
    return with_matrix(law, total / sum(sizes), size)


def scaled(law: Law, x: Law) -> Law:
    """Carry x's matrix through fresh zero-mean weights: pair moments all scale alike."""
    size = carried(x)
    if size is None or length(law) != size:
        return law
    inner = pair_matrix(x, size)
    root = np.sqrt(np.maximum(np.diag(inner), 1e-300))
    r = np.multiply.outer(root, root)
    np.divide(inner, r, out=r)
    np.fill_diagonal(r, 1.0)
    r.clip(-1, 1, out=r)
    return replace(law, latent=_holding(law, r, size))


def mixing(allowed: np.ndarray) -> np.ndarray:
    """Uniform attention over allowed keys between runs: (queries, keys) booleans or counts -> share of each key run."""
    return allowed / np.maximum(allowed.sum(1, keepdims=True), 1e-300)


def causal_counts(queries: int, keys: int) -> np.ndarray:
    """How many keys of each run the middle query of each run may see, shape (query runs, key runs)."""
    q, k = runs(queries), runs(keys)
    limit = q.index[:, None] + 1
    return np.clip(limit - k.start[None, :], 0, k.width[None, :]).astype(float)


__all__ = ["LIMIT", "Runs", "grid", "length", "pair_matrix", "runs"]
