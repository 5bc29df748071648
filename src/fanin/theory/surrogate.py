"""A measured stand-in for an operation without a rule: it is run on samples of what the theory says its inputs are.

Only where the user allows it. The result is a law of its own with the mean, mean square, distribution and pair moments
of the samples; its row is marked. The gradient follows from how much the operation stretches small random steps.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr

from fanin.graph import Node
from fanin.theory import grid
from fanin.theory.adjoint.cotangent import Cotangent, Part, fresh
from fanin.theory.combine import matched
from fanin.theory.contraction import known_pairs
from fanin.theory.law import Axis, Law, fresh_latent, latent_for, subsets, uniform_level
from fanin.theory.loss.draw import draw
from fanin.theory.records import replace
from fanin.theory.state import Known, Value

SAMPLES = 8
STEP = 1e-3
BINS = 8  # ranges of the latent, equally likely


def measured(node: Node, inputs: tuple[Value, ...], axes: tuple[Axis, ...]) -> Law | None:
    """The law of the operation's result on samples of its inputs; None where it cannot be run on them."""
    rng = np.random.default_rng(0)
    try:
        found = np.stack([_run(node, _sample(inputs, rng)[0]) for _ in range(SAMPLES)])
    except Exception:  # an operation that nothing is known of may raise anything
        return None
    if found.shape[1:] != tuple(node.shape) or not np.isfinite(found).all():
        return None
    mean, second = float(found.mean()), float((found**2).mean())
    some = found.ravel()[:: max(found.size // 65536, 1)]
    values = matched(grid.quantile_grid(some, np.ones(len(some))), mean, second)
    law = Law(tuple(node.shape), axes, values[None], uniform_level(len(node.shape)), fresh_latent({}))
    _, pairs = known_pairs(found, [(), *axes], 0)
    law = replace(law, latent=latent_for(law, lambda s: pairs.get(s, second), law.groups))
    return law.marked(f"a stand-in measured on {SAMPLES} samples: {node.op} has no rule")


def back(node: Node, g: Cotangent, inputs: tuple[Value, ...]) -> list[list[Part]]:
    """Mean square of J^T g for an independent g: that of g times the squared stretch of random steps, per element.

    Steps are made in the elements of one range of the latent at a time, so that what is behind (a ReLU) meets the
    gradient where it is.
    """
    rng = np.random.default_rng(1)
    sent: list[list[Part]] = [[] for _ in inputs]
    for i, x in enumerate(inputs):
        if isinstance(x, Law):
            stretch = np.mean([_stretch(node, inputs, i, rng) for _ in range(SAMPLES)], axis=0)
            form = np.sqrt(np.interp(grid.CDF, (np.arange(BINS) + 0.5) / BINS, stretch))
            values = np.tile(form, (len(x.values), 1))
            second = np.full((1,) * len(x.shape), g.second)
            sent[i] = [fresh(second, dict.fromkeys(subsets(x.groups), 0.0), values)]
    return sent


def _sample(inputs: tuple[Value, ...], rng: np.random.Generator) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
    """Values and latents of every input; those that share a latent at the same places share its sample."""
    latents: list[tuple[Law, np.ndarray]] = []
    arrays: list[np.ndarray] = []
    found: list[np.ndarray | None] = []
    for x in inputs:
        if isinstance(x, Known):
            arrays.append(x.array)
            found.append(None)
            continue
        if not isinstance(x, Law):
            raise ValueError("values that are not known")
        z = next((z for law, z in latents if law.shape == x.shape and law.latent.aligned(x.latent)), None)
        if z is None:
            drawn = draw(x, rng)
            z = drawn.latent
            latents.append((x, z))
            arrays.append(drawn.values)
        else:
            arrays.append(_at(x, z))
        found.append(z)
    return arrays, found


def _at(law: Law, z: np.ndarray) -> np.ndarray:
    level = np.broadcast_to(law.level, law.shape)
    out = np.empty(law.shape, np.float32)
    for k, values in enumerate(law.values):
        out[level == k] = grid.at(values, z[level == k])
    return out


def _run(node: Node, arrays: list[np.ndarray]) -> np.ndarray:
    assert node.evaluate is not None
    return np.asarray(node.evaluate(*arrays), float)


def _stretch(node: Node, inputs: tuple[Value, ...], i: int, rng: np.random.Generator) -> np.ndarray:
    """Squared change of the whole output for a unit step of one element of an input, by range of its latent."""
    arrays, latents = _sample(inputs, rng)
    arrays = [np.asarray(a, np.float64) if a.dtype.kind == "f" else a for a in arrays]
    x, z = arrays[i], latents[i]
    assert z is not None
    size = STEP * max(float(np.sqrt(np.mean(x**2))), 1e-30)
    ranges = np.minimum((ndtr(z) * BINS).astype(int), BINS - 1)
    found = np.zeros(BINS)
    for k in range(BINS):
        chosen = ranges == k
        step = np.where(chosen, size * rng.standard_normal(x.shape), 0.0)
        ends = [_run(node, [x + s * step if j == i else a for j, a in enumerate(arrays)]) for s in (1.0, -1.0)]
        change = float(np.sum(((ends[0] - ends[1]) / 2) ** 2)) / size**2
        found[k] = change / max(int(chosen.sum()), 1)
    return found
