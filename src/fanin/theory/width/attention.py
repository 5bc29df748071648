"""Fluctuations of what attention sends back: few keys, and few features of a head, make a query's gradient.

``dq_i = s sum_j w_j k_j`` with ``w_j = a_ij (g_i . v_j - sum_j a_ij g_i . v_j)``. Given the weights a_ij, the w_j are
Gaussian and independent but for their sum, which is zero: of the m = 1 / sum_j a_ij^2 keys that a row looks at, m - 1
are free. With keys of d features the square of one head's gradient has the relative variance
``(1 + 2/d)(1 + 2/(m - 1)) - 1``; a base brings 2/d of it, and this is the rest. Keys meet the queries that look at them
in the same way. The weights answer to the logits' variance, which queries and keys of one network bring along: by the
elasticity of ``concentration.let_through`` (of ``concentrations`` for values).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fanin.graph import Node
from fanin.theory.adjoint.cotangent import Part
from fanin.theory.concentration import concentrations, let_through
from fanin.theory.law import Law
from fanin.theory.state import Value
from fanin.theory.width import pairs

QUERIES, KEYS, VALUES = range(3)
STEP = 1.05


def factors(node: Node, laws: Sequence[Value], i: int) -> tuple[float, float, float]:
    """Powers of the mean squares of queries, keys and values in the mean square of what is sent to one of them.

    Queries meet keys and values; the weights, too, answer to the logits' variance, to which queries and keys add.
    """
    answer = elasticity(node, laws, concentrations if i == VALUES else let_through)
    found = [answer, answer, 0.0 if i == VALUES else 1.0]
    if i != VALUES:
        found[KEYS if i == QUERIES else QUERIES] += 1.0
    return found[0], found[1], found[2]


def elasticity(node: Node, laws: Sequence[Value], of: Callable[[float, np.ndarray], np.ndarray]) -> float:
    """d log of a moment of the weights, over all rows, / d log variance of the logits."""
    q, k = laws[QUERIES], laws[KEYS]
    if not (isinstance(q, Law) and isinstance(k, Law)):
        return 0.0
    n = k.shape[-2]
    own = max(k.second - k.pair(frozenset(t.group for t in k.axes[-2] if t.size > 1)), 0.0) if n > 1 else 0.0
    variance = node.attrs["scale"] ** 2 * q.shape[-1] * q.second * own
    if not 1e-4 < variance < np.inf:  # equal weights have nothing to answer with
        return 0.0
    counts = np.arange(1.0, n + 1) if node.attrs["causal"] else np.array([float(n)])
    here, there = (float(of(v, counts).sum()) for v in (variance, variance * STEP))
    return float(np.log(there / here) / np.log(STEP)) if min(here, there) > 0 else 0.0


def extra(laws: Sequence[Value], i: int, part: Part, out: Value) -> float:
    """Relative variance of the mean square of what is sent to queries or keys beyond that of its features.

    Args:
        laws: of queries, keys and values.
        i: which of them it is sent to.
        part: what is sent.
        out: the attention's own result.
    """
    to, v = laws[i], laws[VALUES]
    if i == VALUES or not (isinstance(to, Law) and isinstance(v, Law) and isinstance(out, Law)):
        return 0.0
    width = to.shape[-1]
    heads = max(pairs.features(to) / width, 1.0)
    return pairs.alone(to, part.profile(to)) * 2 * free(v, out) * (1 + 2 / width) / heads


def free(v: Law, out: Law) -> float:
    """One over the number of keys that a row's weights are free over, at the places that weigh most."""
    apart = v.pair(frozenset(t.group for t in v.axes[-2] if t.size > 1))
    if v.second <= apart:
        return 0.0
    profile = out.profile(out.seconds) if len(out.values) > 1 else out.seconds
    kept = np.clip((profile - apart) / (v.second - apart), 0, 1)
    each = np.clip(kept / np.maximum(1 - kept, 1e-9), 0, 1)
    return float((kept**2 * each).sum() / (kept**2).sum()) if kept.any() else 0.0
