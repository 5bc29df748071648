"""LSTM, GRU and plain recurrent layers: the law of the output at every step, from a population of units."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np

from fanin.graph import Node
from fanin.theory import grid, places
from fanin.theory.combine import matched
from fanin.theory.contraction import axis_groups, known_pairs
from fanin.theory.law import FEATURE, Atom, Groups, Law, compress, fresh_latent, latent_for
from fanin.theory.records import replace
from fanin.theory.recurrent.lengths import Lengths
from fanin.theory.recurrent.population import Kernel, Layer, Population, run
from fanin.theory.state import Known, Modelled, Value, as_law

LONGEST = 4096
NOTE = "simulated units of a wide layer"
_RUNS: WeakKeyDictionary[Law, Population] = WeakKeyDictionary()


def recur(node: Node, *inputs: Modelled) -> Law:
    """The output at every step (``piece`` "output"), or the second state after the last ("cell")."""
    population = run(layer_of(node, inputs))
    made = PIECES[node.attrs["piece"]](node, inputs[0], population)
    _RUNS[made] = population
    return made


def population_of(node: Node, law: Law, inputs: tuple[Value, ...]) -> Population:
    """The units that made a law; simulated again where the law came another way."""
    found = _RUNS.get(law)
    return found if found is not None else run(layer_of(node, inputs))


def layer_of(node: Node, inputs: tuple[Value, ...]) -> Layer:
    """What the inputs of a node say of the layer."""
    a = node.attrs
    steps = inputs[0].shape[a["time"]]
    if steps > LONGEST:
        raise NotImplementedError(f"a recurrent layer over {steps} steps, more than {LONGEST}")
    x = kernel(inputs[0], a["time"], lengths_of(node))
    w_ih, w_hh = (_square(as_law(inputs[a[k]])) for k in ("w_ih", "w_hh"))
    biases = tuple(_by_gate(inputs[a[k]] if a[k] is not None else None, a["gates"]) for k in ("b_ih", "b_hh"))
    projection = inputs[a["w_hr"]] if a.get("w_hr") is not None else None
    return Layer(
        a["cell"],
        x.flipped() if a["reverse"] and not a.get("lengths") else x,
        w_ih,
        w_hh,
        hidden=inputs[a["w_ih"]].shape[0] // a["gates"],
        projected=projection.shape[0] if projection is not None else None,
        w_hr=_square(as_law(projection)) if projection is not None else 1.0,
        biases=biases,
        initial=tuple(_moments(inputs[k]) for k in a["initial"]),
    )


def lengths_of(node: Node) -> Lengths | None:
    """Lengths of the sequences, where they are not all as long as the tensor."""
    sizes = node.attrs.get("lengths")
    return Lengths(tuple(sizes), bool(node.attrs["reverse"])) if sizes else None


def _by_gate(bias: Value | None, gates: int) -> np.ndarray:
    """Values of a bias on the grid, a gate each: blocks of rows may have laws of their own (forget gates of one)."""
    if bias is None:
        return np.zeros((gates, grid.POINTS))
    law = as_law(bias)
    level = np.broadcast_to(law.level, law.shape).reshape(gates, -1)
    return np.stack([law.values[np.bincount(row).argmax()] for row in level])


def _square(weight: Law) -> float:
    if weight.mean**2 > 0.05 * weight.second:
        raise NotImplementedError("recurrent weights with a mean")
    return weight.second


def _moments(state: Value) -> tuple[float, float, float]:
    """Mean, mean square, and mean product of two samples of an initial state, (samples, features)."""
    if isinstance(state, Known):
        array = np.asarray(state.array, float)
        second, pairs = known_pairs(array, state.axes, array.ndim - 1)
        return float(array.mean()), float(second.mean()), float(next(iter(pairs.values()), second.mean()))
    law = as_law(state)
    return law.mean, law.second, law.pair(law.groups) if law.groups else law.second


# --- kernels over time ---------------------------------------------------------------------------------------------


def kernel(x: Value, time: int, lengths: Lengths | None = None) -> Kernel:
    """Mean products of an input between steps, summed over features, within a sample and across two.

    Of sequences of unlike ``lengths`` by step in the order in which they are read, over those that have not ended.
    """
    if isinstance(x, Known):
        return _known_kernel(x, time, lengths)
    law = as_law(x)
    n = float(law.shape[-1])
    steps, along, apart = law.shape[time], axis_groups(law.axes[time]), _samples(law, time)
    within = _whole(places.pair_matrix(law, steps), steps) if places.length(law) == steps else None
    if within is None:
        within = np.full((steps, steps), law.pair(along))
    own = _over_time(law.profile(law.seconds), time, steps)
    np.fill_diagonal(within, own)
    across = np.full((steps, steps), law.pair(along | apart) if along else 0.0)
    np.fill_diagonal(across, law.pair(apart) * own / max(law.second, 1e-300))
    if not apart:
        across = within
    found = Kernel(n * within, n * across)
    if lengths is None:
        return found
    return lengths.in_order(found, by_sample(np.sqrt(law.profile(law.seconds)), time, lengths))


def by_sample(roots: np.ndarray, time: int, lengths: Lengths) -> np.ndarray:
    """Root mean squares over the places of a tensor as (positions, samples)."""
    rows = np.moveaxis(roots, time, 0).mean(-1)
    return np.broadcast_to(rows, (lengths.steps, len(lengths.sizes)))


def _samples(law: Law, time: int) -> Groups:
    """Groups that tell sequences apart: all places but the steps."""
    others = [a for i, a in enumerate(law.axes[:-1]) if i != time]
    return frozenset(g for axis in others for g in axis_groups(axis)) - {FEATURE}


def _over_time(profile: np.ndarray, time: int, steps: int) -> np.ndarray:
    rest = tuple(i for i in range(profile.ndim) if i != time)
    return np.broadcast_to(profile.mean(rest), (steps,)) if profile.ndim > 1 else np.broadcast_to(profile, (steps,))


def _whole(matrix: np.ndarray, steps: int) -> np.ndarray:
    """A matrix over runs laid out over all steps; two steps of one run are as two neighbouring runs."""
    if len(matrix) == steps:
        return np.array(matrix)
    run_of = np.searchsorted(places.runs(steps).start, np.arange(steps), side="right") - 1
    beside = places.neighbours(matrix, steps)
    full = matrix[np.ix_(run_of, run_of)]
    same = run_of[:, None] == run_of[None, :]
    return np.where(same, beside[run_of][:, None], full)


def _known_kernel(x: Known, time: int, lengths: Lengths | None) -> Kernel:
    array = np.asarray(x.array, float)
    array = array[None] if array.ndim == 2 else np.moveaxis(array, time, 1)
    if lengths is not None:
        at = lengths.step_at()[..., None]
        array = np.where(at < 0, 0.0, np.take_along_axis(array, np.maximum(at, 0), 1))
        return lengths.valid(_mean_products(array))
    return _mean_products(array)


def _mean_products(array: np.ndarray) -> Kernel:
    count = len(array)
    own = sum((s @ s.T for s in array), np.zeros((array.shape[1],) * 2))
    total = array.sum(0)
    across = (total @ total.T - own) / (count * (count - 1)) if count > 1 else own
    return Kernel(own / count, across)


# --- laws ----------------------------------------------------------------------------------------------------------


def _sequence(node: Node, x: Modelled, population: Population) -> Law:
    a, width = node.attrs, node.shape[-1]
    axes = (*x.axes[:-1], (Atom(width, FEATURE),))
    h = _outputs(node, population)
    units = population.states[0][1:]
    lengths = lengths_of(node)
    if lengths is None and a["reverse"]:
        h, units = h.flipped(), units[::-1]
    values = _laws(units, np.diag(h.within), gaussian=population.layer.projected is not None)
    level = np.arange(len(values), dtype=np.int32).reshape(
        [-1 if i == a["time"] else 1 for i in range(len(node.shape))]
    )
    if lengths is not None:
        values, level = _ended(values), _levels(lengths.step_at(), a["time"])
        h = lengths.placed(h)
    values, level = compress(values, level)
    law = Law(node.shape, axes, values, level, fresh_latent({})).marked(NOTE)
    along, apart = axis_groups(axes[a["time"]]), _samples(law, a["time"])
    pair = lambda s: _mean_pair(h.across if s & apart else h.within, bool(s & along))  # noqa: E731
    law = replace(law, latent=latent_for(law, pair, law.groups))
    steps = len(units)
    if places.length(law) != steps:
        return law
    at = places.runs(steps).index
    return places.with_matrix(law, h.within[np.ix_(at, at)], steps)


def _outputs(node: Node, population: Population) -> Kernel:
    """Kernel of the output after every step, a feature."""
    return Kernel(population.h.within[1:, 1:], population.h.across[1:, 1:]).scaled(1 / node.shape[-1])


def _ended(values: np.ndarray) -> np.ndarray:
    """With zeros as the last level, for places past the end (level -1)."""
    return np.concatenate([values, np.zeros((1, values.shape[1]))])


def _levels(step_at: np.ndarray, time: int) -> np.ndarray:
    """Steps by (sample, position) as levels over (samples, positions, 1), or positions first; -1 is the last level."""
    level = np.where(step_at < 0, step_at.shape[1], step_at).astype(np.int32)
    return (level if time else level.T)[..., None]


def _last(node: Node, x: Modelled, population: Population) -> Law:
    """The output after the last step of sequences of unlike length, (samples, features)."""
    lengths = lengths_of(node)
    assert lengths is not None
    h, ends = _outputs(node, population), np.array(lengths.sizes) - 1
    values = _laws(population.states[0][1:], np.diag(h.within), gaussian=population.layer.projected is not None)
    values, level = compress(values, ends.astype(np.int32)[:, None])
    axes = (x.axes[1 - node.attrs["time"]], (Atom(node.shape[-1], FEATURE),))
    law = Law(node.shape, axes, values, level, fresh_latent({})).marked(NOTE)
    beside = ~np.eye(len(ends), dtype=bool)
    pair = float(h.across[np.ix_(ends, ends)][beside].mean()) if len(ends) > 1 else float(h.within[ends, ends].mean())
    return replace(law, latent=latent_for(law, lambda s: pair, law.groups))


def _laws(units: np.ndarray, second: np.ndarray, gaussian: bool) -> np.ndarray:
    """Increasing functions of a latent with the units' law at every step; (steps, 2, units) -> (steps, points)."""
    if gaussian:
        return np.sqrt(np.maximum(second, 0))[:, None] * grid.Z_UNIT
    rows = np.sort(units.reshape(len(units), -1), axis=-1).astype(float)
    at = (np.arange(rows.shape[1]) + 0.5) / rows.shape[1]
    found = [
        matched(np.interp(grid.CDF, at, row), float(row.mean()), float(s)) for row, s in zip(rows, second, strict=True)
    ]
    return np.stack(found)


def _mean_pair(kernel: np.ndarray, apart: bool) -> float:
    """Mean over pairs of different steps, or over steps."""
    n = len(kernel)
    if not apart or n < 2:
        return float(np.mean(np.diag(kernel)))
    return float((kernel.sum() - np.trace(kernel)) / (n * (n - 1)))


def _cell(node: Node, x: Modelled, population: Population) -> Law:
    last = population.states[1][-1]
    second, pair = float(np.mean(last**2)), float(np.mean(last[0] * last[1]))
    others = tuple(axis for i, axis in enumerate(x.axes[:-1]) if i != node.attrs["time"])
    axes = (*others, (Atom(node.shape[-1], FEATURE),))
    values = _laws(last[None], np.array([second]), gaussian=False)
    law = Law(node.shape, axes, values, np.zeros((1,) * len(axes), np.int32), fresh_latent({})).marked(NOTE)
    return replace(law, latent=latent_for(law, lambda s: pair, law.groups))


PIECES = {"output": _sequence, "last": _last, "cell": _cell}
"""What a recurrent layer returns: every step, the last output of sequences of unlike length, the last second state."""
