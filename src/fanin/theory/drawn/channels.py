"""Channels of a region, drawn for two samples at all steps, and what every operation makes of them.

What comes in is drawn from its law: one latent a step, with the correlations that steps and samples have, and of a
weight one number a channel. Two samples tell mean products within a sample and across two; means are over channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from fanin.graph import Graph, Kind, Node
from fanin.theory import grid, places, scale
from fanin.theory.combine import matched
from fanin.theory.contraction import axis_groups
from fanin.theory.drawn.regions import Region, regions
from fanin.theory.latent import ALONG
from fanin.theory.law import FEATURE, Atom, Law, fresh_latent, latent_for
from fanin.theory.records import replace
from fanin.theory.recurrent.process import all_moments
from fanin.theory.state import SAMPLE, Known, Value

UNITS = 8192
LARGEST = 1e15  # what stands for minus infinity is no signal
NOTE = f"followed on {UNITS} drawn channels"
BOTH = frozenset((SAMPLE, places.POSITION))


def correlated(within: np.ndarray, across: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gaussian channels of two samples with these covariances between steps, (steps, 2, UNITS).

    Means and covariances of what is drawn are exact where there are enough channels to the steps.
    """
    steps = len(within)
    white = rng.standard_normal((2 * steps, UNITS))
    white -= white.mean(1, keepdims=True)
    if 8 * steps <= UNITS:
        white = np.linalg.solve(np.linalg.cholesky(white @ white.T / UNITS), white)
    both = [_root(within + sign * across) @ part for sign, part in ((1, white[:steps]), (-1, white[steps:]))]
    return np.stack([both[0] + both[1], both[0] - both[1]], 1) / np.sqrt(2)


def _root(covariance: np.ndarray) -> np.ndarray:
    value, vector = np.linalg.eigh((covariance + covariance.T) / 2)
    return (vector * np.sqrt(np.maximum(value, 0))) @ vector.T


@dataclass(eq=False)
class Channels:
    """A region with its channels.

    Attributes:
        given: what comes in, by node: (2, UNITS), a weight's (1, UNITS), one number (1, 1).
        arrays: what operations make of it; kept while it is read, and made again where it is asked for later.
        followed: the nodes whose channels are known, in order.
        laid: of tensors that hold results of the region step by step: the axis of the steps, and whose result is at
            each, None where there is nothing yet.
        alive: False where something comes in that cannot be drawn; then all is left to the laws.
    """

    graph: Graph
    region: Region
    given: dict[str, np.ndarray] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    laid: dict[str, tuple[int, tuple[str | None, ...]]] = field(default_factory=dict)
    followed: dict[str, None] = field(default_factory=dict)
    alive: bool = True
    _sources: dict[tuple, np.ndarray] = field(default_factory=dict)
    _rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    _axes: tuple | None = None

    @classmethod
    def of(cls, graph: Graph) -> dict[str, Channels]:
        """The channels of every node that is in a region."""
        found = [cls(graph, region) for region in regions(graph)]
        return {i: channels for channels in found for i in channels.region.nodes}

    @property
    def samples(self) -> int:
        """How many samples the batch has."""
        return self.region.shape[0]

    def law(self, node: Node, values: Mapping[str, Value]) -> Law | None:
        """The law of what a node of the region makes; None where it is left to the rules."""
        if not self.alive or all(isinstance(values[i], Known) for i in node.inputs):
            return None
        try:
            array = self.made(node, [self._incoming(i, values) for i in node.inputs])
        except NotImplementedError:
            self.alive = False
            return None
        self.arrays[node.id], self.followed[node.id] = array, None
        if node.id == self.region.nodes[-1]:
            self.forget()
        if len(array) < 2 or np.abs(array).max() > LARGEST:
            return None
        return self._law(node, array)

    def made(self, node: Node, inputs: list[np.ndarray]) -> np.ndarray:
        """What an operation makes of channels."""
        if node.kind is Kind.MOVE:
            return inputs[0]
        if node.kind is Kind.SUM:
            return inputs[0] + node.attrs.get("alpha", 1.0) * inputs[1]
        if node.kind is Kind.PRODUCT:
            return inputs[0] * inputs[1]
        return np.asarray(node.attrs["fn"](*inputs), float)

    def value(self, i: str, values: Mapping[str, Value]) -> np.ndarray:
        """Channels of a node, or of what comes in."""
        if i not in self.given and i not in self.arrays:
            self._rng = np.random.default_rng(0)
            for j in self.followed:
                node = self.graph.by_id[j]
                self.arrays[j] = self.made(node, [self._incoming(k, values) for k in node.inputs])
        return self._incoming(i, values)

    def forget(self) -> None:
        """Drop what nobody else reads: a sequence has thousands of steps' tensors."""
        inside = set(self.region.nodes)
        read = {i for i in self.arrays if any(user.id not in inside for user in self.graph.users[i])}
        self.arrays = {i: array for i, array in self.arrays.items() if i in read}
        self.given, self._sources = {}, {}

    def _law(self, node: Node, array: np.ndarray) -> Law:
        assert self._axes is not None
        mean, second, pair = float(array.mean()), float(np.mean(array**2)), float(np.mean(array[0] * array[1]))
        rows = np.sort(array.ravel())
        values = np.interp(grid.CDF, (np.arange(len(rows)) + 0.5) / len(rows), rows)
        law = Law(
            node.shape, self._axes, matched(values, mean, second)[None], np.zeros((1, 1), np.int32), fresh_latent({})
        )
        return scale.settled(replace(law, latent=latent_for(law, lambda s: pair, law.groups))).marked(NOTE)

    # --- what comes in ----------------------------------------------------------------------------------------------

    def _incoming(self, i: str, values: Mapping[str, Value]) -> np.ndarray:
        if i in self.arrays:
            return self.arrays[i]
        if i not in self.given:
            self.given[i] = self._drawn(self.graph.by_id[i], values)
        return self.given[i]

    def _drawn(self, node: Node, values: Mapping[str, Value]) -> np.ndarray:
        value = values[node.id]
        if isinstance(value, Known):
            if np.ptp(value.array) > 0:
                raise NotImplementedError
            return np.full((1, 1), float(value.array.flat[0]))
        if not isinstance(value, Law) or value.exponent:
            raise NotImplementedError
        if node.kind is Kind.PARAMETER and len(value.values) == 1:
            z = grid.ndtri((self._rng.permutation(UNITS) + 0.5) / UNITS)
            return grid.at(value.values[0], z)[None]
        if value.shape != self.region.shape or not value.groups <= {SAMPLE} or axis_groups(value.axes[1]) - {FEATURE}:
            raise NotImplementedError
        self._axes = value.axes
        step = steps_of(node, self.graph, values)
        if step is None:
            alike = np.full((1, 1), value.correlation((SAMPLE,)) if value.groups else 0.0)
            return self._at(value, correlated(np.ones((1, 1)), alike, self._rng)[0])
        source, t = step
        latent = source.latent
        key = (latent.id, latent.feature_view, latent.place_view)
        if key not in self._sources:
            self._sources[key] = correlated(*_between_steps(source), self._rng)
        return self._at(value, self._sources[key][t])

    def _at(self, law: Law, z: np.ndarray) -> np.ndarray:
        """Values at latents; where samples differ in law every channel is that of two of them."""
        if len(law.values) == 1:
            return grid.at(law.values[0], z)
        if law.level.shape[1] > 1:
            raise NotImplementedError
        level = law.level[:, 0][self._chosen]
        found = np.empty_like(z)
        for k, values in enumerate(law.values):
            found[level == k] = grid.at(values, z[level == k])
        return found

    @cached_property
    def _chosen(self) -> np.ndarray:
        """Of every channel which two samples, (2, UNITS): all pairs of them alike."""
        first = np.arange(UNITS) % self.samples
        return np.stack(
            [first, (first + 1 + np.arange(UNITS) // self.samples % max(self.samples - 1, 1)) % self.samples]
        )

    # --- tensors that results are laid into -------------------------------------------------------------------------

    def laying(self, node: Node, values: Mapping[str, Value]) -> None:
        """Take note of a move that lays results of the region out over steps."""
        if node.kind is not Kind.MOVE or not node.is_float:
            return
        how, first = node.attrs["how"], node.inputs[0]
        if how == "reshape" and first in self.followed and len(self.arrays[first]) == 2:
            axis = next((k for k in (0, 1) if node.shape == (*node.shape[:k], 1, *self.region.shape[k:])), None)
            if axis is not None and len(node.shape) == 3:
                self.laid[node.id] = axis, (first,)
        elif how == "stack" and all(i in self.arrays for i in node.inputs) and node.attrs["axis"] % 3 < 2:
            self.laid[node.id] = node.attrs["axis"] % 3, node.inputs
        elif how == "same" and first in self.laid:
            self.laid[node.id] = self.laid[first]
        elif how == "slice" and first in self.laid and node.attrs["axis"] % 3 == self.laid[first][0]:
            axis, ids = self.laid[first]
            self.laid[node.id] = axis, ids[slice(node.attrs["start"], node.attrs["stop"], node.attrs["step"])]
        elif how == "cat" and any(i in self.laid for i in node.inputs):
            self._joined(node, values)

    def _joined(self, node: Node, values: Mapping[str, Value]) -> None:
        axis, ids = node.attrs["axis"] % 3, []
        for i in node.inputs:
            value = values[i]
            if i in self.laid and self.laid[i][0] == axis:
                ids += self.laid[i][1]
            elif isinstance(value, Known) and not np.any(value.array):
                ids += [None] * value.shape[axis]
            else:
                return
        self.laid[node.id] = axis, tuple(ids)

    def read(self, node: Node) -> bool:
        """Whether anything but further moves reads a tensor that results are laid into."""
        return node.id in self.laid and any(user.kind is not Kind.MOVE for user in self.graph.users[node.id])

    def together(self, node: Node, law: Law) -> Law:
        """The law with what the channels have in common at every two steps."""
        axis, ids = self.laid[node.id]
        steps, named = len(ids), (Atom(len(ids), places.POSITION),)
        if places.POSITION not in law.groups:  # of zeros that were written to
            law = replace(law, axes=(*law.axes[:axis], named, *law.axes[axis + 1 :]))
        if places.length(law) != steps:
            return law
        within, across = all_moments(self.by_step(node.id))
        apart = ~np.eye(steps, dtype=bool)
        means = {
            ALONG: float(within[apart].mean()),
            BOTH: float(across[apart].mean()),
            frozenset((SAMPLE,)): float(np.diag(across).mean()),
        }
        law = replace(law, latent=latent_for(law, lambda s: means[s & BOTH], law.groups))
        at = places.runs(steps).index
        return places.with_matrix(law, within[np.ix_(at, at)], steps)

    def by_step(self, i: str) -> np.ndarray:
        """(steps, 2, UNITS)."""
        nothing = np.zeros((2, UNITS))
        return np.stack([nothing if j is None else self.arrays[j] for j in self.laid[i][1]])


def steps_of(node: Node, graph: Graph, values: Mapping[str, Value]) -> tuple[Law, int] | None:
    """The sequence of which a tensor is one step, and which."""
    while node.kind is Kind.MOVE and node.attrs["how"] == "same":
        node = graph.by_id[node.inputs[0]]
    if node.kind is not Kind.MOVE or node.attrs["how"] != "select":
        return None
    source, axis = values[node.inputs[0]], node.attrs["axis"]
    if not isinstance(source, Law) or axis_groups(source.axes[axis % len(source.shape)]) != {places.POSITION}:
        return None
    steps = places.length(source)
    return None if steps is None else (source, node.attrs["index"] % steps)


def _between_steps(source: Law) -> tuple[np.ndarray, np.ndarray]:
    """Correlations of the latents of every two steps, within a sample and across two."""
    steps = places.length(source)
    assert steps is not None
    r = places.correlations(source, steps)
    if len(r) < steps:
        of = np.searchsorted(places.runs(steps).start, np.arange(steps), side="right") - 1
        near = places.neighbours(r, steps)
        r = np.where(of[:, None] == of[None, :], near[of][:, None], r[np.ix_(of, of)])
    within = np.array(r)
    np.fill_diagonal(within, 1.0)
    if SAMPLE not in source.groups:
        return within, np.zeros_like(within)
    across = np.full((steps, steps), source.correlation(BOTH))
    np.fill_diagonal(across, source.correlation((SAMPLE,)))
    return within, across
