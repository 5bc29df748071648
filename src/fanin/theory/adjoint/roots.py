"""What cotangents of different steps of a recurrence have in common: random numbers that each handed on to the next.

``h_t = a_t h_{t-1} + u_t`` hands the gradient of its last state back through all rates, ``g_s = a_t .. a_(s+1) g_t``.
What the inputs u_s of two steps get is then alike: a part on a base of its own remembers which bases ("roots") it is a
sum of, and with what loads, ``B = sum_k l_k B_k`` with ``sum_k l_k^2 <= 1``:

- of a sum of parts, the loads of each by the root of its share of the mean square;
- behind a factor y of mean m those of the cotangent times ``m / rms(y)``: what is beyond the mean is new at every step;
- behind a factor without much of a mean (the state itself) those of the cotangent as they are, and the factor stands
  beside it: two such parts are as alike as their cotangents times as their factors are, ``E[y y'] / rms rms'``.

Where the parts of all steps come together, in the tensor that the steps were cut from, they give every two positions a
correlation; and a parameter that every step reads, gets what they have in common as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fanin.theory import grid, places
from fanin.theory.adjoint import sequence
from fanin.theory.adjoint.cotangent import Cotangent, Part
from fanin.theory.latent import ALONG
from fanin.theory.law import Groups, Law
from fanin.theory.moments import mean_of
from fanin.theory.records import replace

SLIGHT = 1e-3
"""Loads below are dropped."""
HALF = 0.5
"""Share of a factor's mean square that its mean must have to be what it hands on."""
FEW = 64
"""Parts that are looked at two by two."""
ENOUGH = 1 << 22
"""Numbers laid out at a time."""


def loads(part: Part) -> Mapping[int, float]:
    """The bases that a part's base is a sum of; itself where it is none."""
    return part.loads if part.loads else {part.base: 1.0}


def multiplied(part: Part, sent: list[Part], y: Law) -> list[Part]:
    """What a product with y hands on, in one part on a base of its own."""
    if len(sent) != 1 or part.values is not None or sent[0].base == part.base or y.second <= 0:
        return sent
    straight = float(np.clip(y.mean / np.sqrt(y.second), -1, 1))
    gate = None if y.groups or part.beside else (y, loads(part))
    if straight**2 >= HALF:
        return [replace(sent[0], loads=_scaled(loads(part), straight), beside=part.beside, gate=gate)]
    return [replace(sent[0], loads=dict(loads(part)), beside=(*part.beside, y), gate=gate)]


def summed(part: Part, was: Part) -> Part:
    """A sum over copies: of random numbers, of each of which another step has its own."""
    return part if part.base == was.base or part.awaited else replace(part, loads=loads(was), beside=was.beside)


def _scaled(found: Mapping[int, float], factor: float) -> dict[int, float]:
    return {base: factor * v for base, v in found.items() if abs(factor * v) > SLIGHT}


def flat(part: Part) -> Part:
    """A part that is one number times its base, and cut from a larger tensor, as one without a function."""
    if part.values is None or part.second.size == 1 or part.second.min() > 0 or part.awaited:
        return part
    number = float(part.values.flat[0])
    if np.ptp(part.values) > 1e-6 * abs(number):
        return part
    kept = _scaled(loads(part), np.sign(number))
    return replace(part, second=part.second * number**2, values=None, loads=kept)


def together(law: Law, parts: Sequence[Part]) -> np.ndarray | None:
    """Correlations of parts' bases, (parts, parts); None where they have nothing in common."""
    names: dict[int, int] = {}
    for part in parts:
        for base in loads(part):
            names.setdefault(base, len(names))
    if len(names) >= sum(len(loads(p)) for p in parts) or len(parts) * len(names) > ENOUGH:
        return None
    table = np.zeros((len(parts), len(names)))
    for row, part in zip(table, parts, strict=True):
        for base, load in loads(part).items():
            row[names[base]] = load
    found = np.clip(table @ table.T, -1, 1)
    kinds = [len(p.beside) for p in parts]
    found *= np.equal.outer(kinds, kinds)
    for k in range(max(kinds)):
        found *= _alike([p.beside[k] if k < len(p.beside) else None for p in parts])
    np.fill_diagonal(found, 1.0)
    return found if np.any(np.abs(found - np.eye(len(parts))) > SLIGHT) else None


def _alike(factors: list[Law | None]) -> np.ndarray:
    """``E[y y'] / (rms rms')`` of every two factors, by what their latents are made of; one where there is none."""
    names: dict[tuple, int] = {}
    for y in factors:
        for key in y.latent.made_of if y is not None else ():
            names.setdefault(key, len(names))
    table = np.zeros((len(factors), max(len(names), 1)))
    mean, line = np.ones(len(factors)), np.zeros(len(factors))
    for i, y in enumerate(factors):
        if y is None:
            continue
        for key, c in y.latent.made_of.items():
            table[i, names[key]] = c
        root = np.sqrt(max(y.second, 1e-300))
        mean[i] = y.mean / root
        line[i] = float(y.level_weight @ y.slopes) / root
    return np.outer(mean, mean) + np.outer(line, line) * np.clip(table @ table.T, -1, 1)


@dataclass(frozen=True, eq=False)
class Common:
    """Of a sum of parts at one tensor.

    Attributes:
        more: what they have together at one place, more than one by one.
        ratio, matrix: correlations between places, and between every two positions where these were told apart.
        loads, beside: as of a part.
    """

    more: np.ndarray
    ratio: Mapping[Groups, float]
    matrix: np.ndarray | None
    loads: Mapping[int, float]
    beside: tuple[Law, ...]


def common(law: Law, parts: Sequence[Part], ratio: Mapping[Groups, float]) -> Common:
    """What parts without a function have in common.

    Args:
        ratio: of their sum, were they independent.
    """
    alike, more, found = together(law, parts), np.zeros(()), None
    if alike is not None:
        more, found = _crossed(parts, alike), _between(law, parts, alike)
    elif (near := of_neighbours(law, parts)) is not None:
        more = sequence.laid_out(np.diag(near[0]), law, near[1])
        found = sequence.pair_matrix(Cotangent(law, tuple(parts)), near[1]) + near[0], near[1]
    total = max(sum(p.mean_second for p in parts) + mean_of(more), 1e-300)
    sums = _sum(parts, total)
    if found is None:
        return Common(more, ratio, None, *sums)
    pairs, size = found
    along = sequence.mean_pair(pairs, size) / max(float(np.trace(pairs)) / size, 1e-300)
    own = {s: along * ratio.get(s - ALONG, 1.0) if s >= ALONG else r for s, r in ratio.items()}
    return Common(more, own, sequence.normalized(pairs), *sums)


def shifted(part: Part, sent: Part, by: int) -> Part:
    """What a part is when it is moved along the sequence: made of what stands elsewhere."""
    moved = lambda found: {(base, by): load for base, load in found.items()}  # noqa: E731
    gate = None if part.gate is None else (part.gate[0], moved(part.gate[1]))
    return replace(sent, loads=moved(loads(part)), beside=part.beside, gate=gate)  # type: ignore[arg-type]


def of_neighbours(law: Law, parts: Sequence[Part]) -> tuple[np.ndarray, int] | None:
    """What parts and those that are shifted against them have in common at every two positions."""
    size, total = places.length(law), None
    if size is None or size > places.LIMIT or len(parts) > FEW:
        return None
    for q in (q for q in parts if any(isinstance(k, tuple) for k in q.loads)):
        for p in parts:
            for by, alike in _next_to(p, q):
                own = sequence.normalized(sequence.pair_matrix(Cotangent(law, (p,)), size))
                root, other = (np.sqrt(sequence.by_position(r.second, law.axes, size)) for r in (p, q))
                near = np.zeros((size, size))
                near[:, max(-by, 0) : size - max(by, 0)] = own[:, max(by, 0) : size - max(-by, 0)]
                near *= alike * np.outer(root, other)
                total = near + near.T if total is None else total + near + near.T
    return None if total is None else (total, size)


def _next_to(p: Part, q: Part) -> list[tuple[int, float]]:
    """By how much q is shifted against p, and their correlation but for that; of weights that both were times E[ab]."""
    gates, (mine, theirs) = 1.0, (loads(p), q.loads)
    if p.gate is not None and q.gate is not None and p.gate[0].latent.aligned(q.gate[0].latent):
        (a, mine), (b, theirs) = p.gate, q.gate
        gates = float(np.mean(grid.expectation(a.values * b.values))) / (a.rms * b.rms)
    elif len(p.beside) or len(q.beside):
        return []
    shifts = [key for key in theirs if isinstance(key, tuple)]
    return [(key[1], gates * mine[key[0]] * theirs[key]) for key in shifts if key[0] in mine]


def _sum(parts: Sequence[Part], total: float) -> tuple[Mapping[int, float], tuple[Law, ...]]:
    """Loads of a sum of parts, and what stands beside all of them; nothing where different factors do."""
    first = parts[0].beside
    if any(len(p.beside) != len(first) or any(a is not b for a, b in zip(p.beside, first, strict=True)) for p in parts):
        return {}, ()
    found: dict[int, float] = {}
    for part in parts:
        root = float(np.sqrt(part.mean_second / total))
        for base, load in loads(part).items():
            found[base] = found.get(base, 0.0) + root * load
    return {base: v for base, v in found.items() if abs(v) > SLIGHT}, first


def _crossed(parts: Sequence[Part], alike: np.ndarray) -> np.ndarray:
    """Twice the sum over pairs of parts of what they have in common, at every place."""
    shape = np.broadcast_shapes(*[p.second.shape for p in parts])
    if np.prod(shape) * len(parts) > ENOUGH:
        return np.zeros(())
    sizes = np.stack([np.sqrt(np.broadcast_to(p.second, shape)).ravel() for p in parts])
    return (((alike - np.eye(len(parts))) @ sizes) * sizes).sum(0).reshape(shape)


def _between(law: Law, parts: Sequence[Part], alike: np.ndarray) -> tuple[np.ndarray, int] | None:
    """Pair moments of their sum between every two positions; None where the tensor has no sequence, or a long one."""
    size = places.length(law)
    if size is None or len(places.runs(size).index) != size:
        return None
    root = np.sqrt(np.stack([sequence.by_position(p.second, law.axes, size) for p in parts]))
    own = sequence.pair_matrix(Cotangent(law, tuple(parts)), size)
    return own + root.T @ (alike - np.eye(len(parts))) @ root, size
