"""Samples of a tensor from its law: latents that correlate between places as the law says, features independent."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, combinations

import numpy as np

from fanin.theory import grid
from fanin.theory.law import FEATURE, Atom, Groups, Law
from fanin.theory.places import POSITION, correlations, length, runs


@dataclass(frozen=True)
class Drawn:
    """One sample: the latents and the tensor."""

    latent: np.ndarray
    values: np.ndarray


def fine_atoms(law: Law) -> list[Atom]:
    """The atoms of all axes in order, one for an axis whose atoms do not multiply to its size."""
    found = []
    for axis, n in zip(law.axes, law.shape, strict=True):
        size = int(np.prod([a.size for a in axis])) if axis else 1
        if size == n:
            found += [a for a in axis if a.size > 1]
        elif n > 1:
            found.append(Atom(n, axis[0].group if axis else FEATURE))
    return found


def draw(law: Law, rng: np.random.Generator) -> Drawn:
    """A sample of the whole tensor, float32."""
    atoms = fine_atoms(law)
    size = length(law)
    if law.latent.matrix is not None and size is not None:
        z = _along_positions(law, atoms, size, rng)
    else:
        z = _exchangeable(shares(law), atoms, rng)
    z = z.reshape(law.shape)
    return Drawn(z, _read_off(law, z))


def shares(law: Law) -> dict[Groups, float]:
    """How the latent's variance splits into parts that vary with some groups of places and are shared along the others.

    With v_T the variance of the part that varies with the groups T, two places that differ in S have the correlation
    sum of v_T over T without S; inclusion and exclusion gives v_T back.
    """
    groups = law.groups
    own = {t: _moebius(law, t, groups) for t in _subsets(groups)}
    kept = {t: max(v, 0.0) for t, v in own.items()}
    total = sum(kept.values())
    return {t: v / total for t, v in kept.items() if v > 1e-12 * total}


def _moebius(law: Law, varying: Groups, groups: Groups) -> float:
    return sum((-1) ** (len(varying) - len(u)) * law.correlation(groups - u) for u in _subsets(varying))


def _subsets(groups: Groups) -> list[Groups]:
    names = sorted(groups)
    return [frozenset(c) for c in chain.from_iterable(combinations(names, n) for n in range(len(names) + 1))]


def _exchangeable(parts: dict[Groups, float], atoms: list[Atom], rng: np.random.Generator) -> np.ndarray:
    z = np.zeros([a.size for a in atoms], np.float32)
    for varying, share in parts.items():
        shape = [a.size if a.group == FEATURE or a.group in varying else 1 for a in atoms]
        z += np.float32(np.sqrt(share)) * rng.standard_normal(shape, dtype=np.float32)
    return z


def _along_positions(law: Law, atoms: list[Atom], size: int, rng: np.random.Generator) -> np.ndarray:
    """A matrix of correlations over positions; samples share the part of it that the law says they do."""
    others = shares(_without_positions(law))
    z = _exchangeable(others, [a if a.group != POSITION else Atom(a.size, FEATURE) for a in atoms], rng)
    where = next(i for i, a in enumerate(atoms) if a.group == POSITION)
    root = _root(correlations(law, size), size).astype(np.float32)
    return np.moveaxis(np.tensordot(z, root, (where, 1)), -1, where)


def _without_positions(law: Law) -> Law:
    """The law with positions taken as features: what is left of its correlations is between samples."""
    from fanin.theory.records import replace

    axes = tuple(tuple(Atom(a.size, FEATURE if a.group == POSITION else a.group) for a in axis) for axis in law.axes)
    return replace(law, axes=axes)


def _root(matrix: np.ndarray, size: int) -> np.ndarray:
    """A square root of the correlations between all positions."""
    run = np.searchsorted(runs(size).start, np.arange(size), side="right") - 1
    full = matrix[np.ix_(run, run)].copy()
    np.fill_diagonal(full, 1.0)
    value, vector = np.linalg.eigh((full + full.T) / 2)
    root = vector * np.sqrt(np.maximum(value, 0))
    return root / np.sqrt(np.maximum((root**2).sum(1, keepdims=True), 1e-300))


def _read_off(law: Law, z: np.ndarray) -> np.ndarray:
    if law.gaussian:
        mean, slope = (x.astype(np.float32)[law.level] for x in (law.means, law.slopes))
        return mean + slope * z
    if len(law.values) == 1:
        return np.interp(z, grid.Z_UNIT, law.values[0]).astype(np.float32)
    level = np.broadcast_to(law.level, z.shape)
    out = np.empty_like(z)
    for k, values in enumerate(law.values):
        here = level == k
        out[here] = np.interp(z[here], grid.Z_UNIT, values)
    return out
