"""Padding that takes from one end what it adds at the other: the token before each (a shift by a place).

In ``a x_t + b x_(t-1)`` two neighbours read one token: with C the correlation of tokens they have in common

    E[y_t y_s] = E[a^2] C_ts + E[b^2] C_(t-1)(s-1) + E[a b] (C_t(s-1) + C_(t-1)s),

and where tokens near each other are alike the mean square is larger by twice the last for t = s.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fanin.graph import Node
from fanin.theory import given, places
from fanin.theory.given import Given
from fanin.theory.latent import Latent
from fanin.theory.law import Law, compress, fresh_latent
from fanin.theory.records import replace

SHIFT = "shift"
SLIGHT = 0.02


def idle(node: Node, law: Law) -> bool:
    """Whether everything stays where it is: a slice of all, padding by nothing (a shift takes from one end)."""
    if node.attrs["how"] == "pad":
        return not any(map(any, node.attrs["widths"]))
    return node.attrs["how"] == "slice" and node.shape == tuple(law.shape)


def padded(law: Law, widths: Sequence[tuple[int, int]]) -> np.ndarray | None:
    """The latent's matrix behind padding along the sequence (a shift by a place), or None where it is not told."""
    size, along = places.length(law), [i for i, w in enumerate(widths) if any(w)]
    if size is None or len(along) != 1 or [a.group for a in law.axes[along[0]] if a.size > 1] != [places.POSITION]:
        return None
    before, after = widths[along[0]]
    return moved(law.latent.matrix, before, size + before + after)


def moved(matrix: np.ndarray | None, by: int, size: int) -> np.ndarray | None:
    """A matrix of places that are moved along a sequence of a new length; places without one before have no pairs."""
    if matrix is None or max(size, len(matrix)) > places.LIMIT:
        return None
    at = np.arange(size) - by
    inside = (at >= 0) & (at < len(matrix))
    found = np.eye(size)
    found[np.ix_(inside, inside)] = matrix[np.ix_(at[inside], at[inside])]
    return found


def mark(node: Node, law: Law) -> tuple | None:
    """Name of the view of a tensor that is shifted along its sequence: by how many places."""
    if node.attrs["how"] != "pad" or node.shape != tuple(law.shape):
        return None
    along = [i for i, w in enumerate(node.attrs["widths"]) if any(w)]
    if len(along) != 1 or [a.group for a in law.axes[along[0]] if a.size > 1] != [places.POSITION]:
        return None
    return SHIFT, node.attrs["widths"][along[0]][0]


def named(latent: Latent) -> Latent:
    """The latent of a shifted tensor, made of what the tensor is made of, shifted."""
    *view, mark = latent.place_view
    before = replace(latent, place_view=tuple(view))
    terms = {(i, f, p if p[-1:] == (mark,) else (*p, mark)): c for (i, f, p), c in before.made_of.items()}
    return replace(latent, id=fresh_latent({}).id, place_view=tuple(view), terms=terms)


def of_sum(law: Law, x: Law, y: Law) -> Law:
    """A sum with what a tensor and its own shift have in common."""
    for one, other in ((x, y), (y, x)):
        by, alike = _in_common(one, other)
        size = places.length(law)
        if by and alike and size is not None and size == places.length(one) == places.length(other):
            return _neighbours(law, one, other, by, alike)
    return law


def alike(x: Law, y: Law) -> float:
    """Mean correlation of two tensors at one place, of which one is the other's shift; zero where none is."""
    for one, other in ((x, y), (y, x)):
        by, share = _in_common(one, other)
        size = places.length(one)
        if by and share and size is not None and abs(by) < size:
            whole = places.carried(one) is not None and size <= places.LIMIT
            near = places.correlations(one, size) if whole else np.full((1, 1), one.correlation((places.POSITION,)))
            return share * float(np.mean(np.diag(near, by) if whole else near)) * (size - abs(by)) / size
    return 0.0


def _in_common(x: Law, y: Law) -> tuple[int, float]:
    """By how much y is shifted against x, and what they have in common beside that: E[x y] over both rms."""
    mine = x.latent.made_of
    found = [(key, p[-1][1], c) for key in y.latent.made_of for p, c in [(key[2], y.latent.made_of[key])] if _moved(p)]
    shared = [(by, mine[i, f, p[:-1]], c) for (i, f, p), by, c in found if (i, f, p[:-1]) in mine]
    if not shared:
        return 0, 0.0
    line = [float(law.level_weight @ law.slopes) / law.rms if law.second > 0 else 0.0 for law in (x, y)]
    alike = [float(np.sqrt(sum(s[k] ** 2 for s in shared))) * line[k - 1] for k in (1, 2)]
    sign = np.sign(sum(a * b for _, a, b in shared))
    return shared[0][0], sign * alike[0] * alike[1] * _of_factors(x, y, alike)


def _moved(view: tuple) -> bool:
    return bool(view) and view[-1][0] == SHIFT


def _of_factors(x: Law, y: Law, straight: list[float]) -> float:
    """Gates of both that are made of one weight: E[a b] / (E[a] E[b]).

    Args:
        straight: E[a] / rms of each.
    """
    gain = 1.0
    mine, theirs = given.stored(x), given.stored(y)
    for key in mine.keys() & theirs.keys():
        a, b = (_signed(t[key], m) for t, m in zip((mine, theirs), straight, strict=True))
        if a is not None and b is not None:
            gain *= float(given.mean(a * b)[0]) / float(given.mean(a)[0] * given.mean(b)[0])
    return gain


def _signed(gate: Given, straight: float) -> np.ndarray | None:
    """A gate over its rms given its latent: the root of psi, on one side of where nothing is left less than zero.

    Its mean tells which; None where it is neither.
    """
    root = np.sqrt(np.maximum(gate.second.mean(0, keepdims=True), 0.0))
    side = np.where(np.arange(root.shape[1]) < np.argmin(root), -1.0, 1.0)
    for form in (root, root * side):
        mean = float(given.mean(form)[0])
        if abs(abs(mean) - straight) < SLIGHT:
            return form * np.sign(mean)
    return None


def _neighbours(law: Law, x: Law, y: Law, by: int, alike: float) -> Law:
    size = places.length(law)
    assert size is not None
    if size > places.LIMIT:
        return law
    a, b = places.pair_matrix(x, size), places.pair_matrix(y, size)
    root = np.sqrt(np.maximum(np.diag(a), 1e-300))
    near = np.zeros((size, size))  # of x at t and of y at s, which is made of what x is made of at s - by
    near[:, max(by, 0) : size + min(by, 0)] = (a / np.outer(root, root))[:, max(-by, 0) : size - max(by, 0)]
    cross = alike * near * np.outer(root, np.sqrt(np.maximum(np.diag(b), 0.0)))
    means = places.weights(x, size) @ x.means, places.weights(y, size) @ y.means
    total = a + b + cross + cross.T + np.outer(*means) + np.outer(*means).T
    return places.with_matrix(_louder(law, np.diag(total), size), total, size)


def _louder(law: Law, second: np.ndarray, size: int) -> Law:
    """The law with a mean square for every position."""
    old = places.weights(law, size) @ law.seconds
    if np.all(np.abs(second - old) <= 1e-3 * old.mean()):
        return law
    axis = next(i for i, a in enumerate(law.axes) if [t.group for t in a if t.size > 1] == [places.POSITION])
    factor = np.sqrt(np.maximum(second, 0) / np.maximum(old, 1e-300))
    shape = [size if i == axis else n for i, n in enumerate(law.level.shape)]
    at = np.arange(size).reshape([size if i == axis else 1 for i in range(len(shape))])
    codes, level = np.unique(np.broadcast_to(law.level * size + at, shape), return_inverse=True)
    values, level = compress(
        law.values[codes // size] * factor[codes % size, None], level.reshape(shape).astype(np.int32)
    )
    return law.with_values(values, level=level)
