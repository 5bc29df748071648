"""Laws of a whole tensor rather than of its elements: orthonormal rows, the identity, gates, sparse columns."""

from __future__ import annotations

import math

import numpy as np

from fanin.distributions import Constant, Distribution, Identity, Orthogonal, Sparse, Stacked

GATES = (3, 4)
"""Gates of a GRU and of an LSTM: equal blocks along the first axis."""
FORGET = {4: 1}
"""Which block is the forget gate's, in torch's order (input, forget, cell, output)."""


def matrix_law(values: np.ndarray) -> tuple[Distribution, str] | None:
    """A law of the whole matrix, with its words: the identity, orthonormal blocks of gates, or orthonormal."""
    gain = _orthogonal(values)
    if gain is None:
        return None
    tap = values[(slice(None), slice(None), *(n // 2 for n in values.shape[2:]))]
    if np.count_nonzero(values) == min(tap.shape) and np.allclose(np.diagonal(tap), gain, rtol=1e-3):
        return Identity(gain), "the identity, at the central tap of a convolution (Dirac)"
    gates = values.shape[0] // values.shape[1]
    if values.ndim == 2 and gates in GATES and values.shape[0] == gates * values.shape[1]:
        found = [_orthogonal(block) for block in np.split(values, gates)]
        if None not in found:
            return Stacked(tuple(Orthogonal(g) for g in found if g is not None)), "orthogonal, each gate for itself"
    return Orthogonal(gain), "orthogonal"


def _orthogonal(values: np.ndarray) -> float | None:
    """The gain where rows or columns are orthonormal up to it."""
    if values.ndim < 2:
        return None
    matrix = values.reshape(values.shape[0], -1)
    matrix = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    if matrix.shape[0] < 2 or matrix.shape[0] > 4096:
        return None
    few = matrix[:64] @ matrix[:64].T  # a glance first: most are not
    scale = float(np.trace(few)) / len(few)
    if scale <= 0 or np.abs(few - scale * np.eye(len(few))).max() > 1e-3 * scale:
        return None
    return math.sqrt(scale)


def gated(values: np.ndarray) -> tuple[Distribution, str] | None:
    """Biases of gates, a constant each: zeros but for a forget gate's, as a rule."""
    for gates in reversed(GATES):
        if values.ndim != 1 or len(values) % gates or len(values) < 2 * gates:
            continue
        blocks = np.split(values, gates)
        if any(np.ptp(block) > 1e-6 * max(abs(float(block[0])), 1e-30) for block in blocks):
            continue
        levels = [float(block[0]) for block in blocks]
        others = {level for i, level in enumerate(levels) if i != FORGET.get(gates)}
        words = f"{', '.join(f'{v:g}' for v in levels)} by gate"
        if gates in FORGET and others == {0.0}:
            words = f"a forget gate's bias of {levels[FORGET[gates]]:g}, zeros elsewhere"
        return Stacked(tuple(Constant(level) for level in levels)), words
    return None


def thinned(values: np.ndarray) -> tuple[np.ndarray, float, str] | None:
    """Elements that are not zero, the share that is, and by what; None where hardly any is.

    ``torch.nn.init.sparse_`` leaves the same number of zeros in every column.
    """
    zero = values == 0
    share = float(zero.mean())
    if values.ndim != 2 or not 0.01 < share < 1:
        return None
    counts = zero.sum(axis=0)
    words = "sparse, the same number of zeros in every column" if np.ptp(counts) == 0 else "zeros anywhere"
    return values[~zero], share, words


def sparse(share: float, std: float) -> Distribution:
    """The sparse law with this share of zeros whose other elements have this std."""
    return Sparse(std * math.sqrt(1 - share), sparsity=share)
