"""Gains and shifts that are drawn, of norms over the places of a channel: channels of several kinds.

A channel ``g x^ + b`` of a small gain and a negative shift is shut behind a ReLU nearly everywhere, and the next norm
divides it by next to nothing: what its gradient is multiplied by, what passes the ReLU and the gain itself go
together, ``E[g^2 p / s^2]`` is not ``E[g^2] E[p] E[1/s^2]``. So channels are told apart (levels): each has a gain and
a shift of its own, quantiles of their laws, in an order of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fanin.distributions import Distribution
from fanin.graph import Graph, Kind, Node, Parameter
from fanin.theory import border
from fanin.theory.channels import MOST, columns, unlike
from fanin.theory.fewer import KINDS
from fanin.theory.law import Law, compress, constant
from fanin.theory.observed import observed_law
from fanin.theory.records import remembered, replace
from fanin.theory.state import Value, as_law, feature_axes

SLIGHT = 0.25
"""Spread of gains, or of shifts, over the rms of the gains, below which all channels are as good as one."""


def gains(graph: Graph, laws: Mapping[str, Distribution]) -> dict[str, Law]:
    """What norms over places multiply unlike channels by, or add to them, by node of the parameter: of each kind one.

    Channels of a sum, and of blocks behind one another, are the same ones. So that few numbers stand for all that
    may meet, orders are taken by which vectors near each other, and their squares about the mean, go together least.
    """
    told: list[np.ndarray] = []
    return {node.id: _laid_out(graph, node, law, told) for node, law in _unlike(graph, laws)}


def _unlike(graph: Graph, laws: Mapping[str, Distribution]) -> list[tuple[Node, Distribution]]:
    """Nodes of gains and shifts that make channels of several kinds."""
    found: dict[str, tuple[Node, Distribution]] = {}
    for node in graph.nodes:
        if node.kind is Kind.NORM and _over_places(node):
            places = (node.attrs.get(key) for key in ("weight", "bias"))
            read = [graph.by_id[node.inputs[i]] for i in places if i is not None]
            drawn = [(n, law) for n in read if n.kind is Kind.PARAMETER and (law := _law(n, graph, laws)) is not None]
            if len(drawn) == len(read) and _differ([law for _, law in drawn]):
                found |= {n.id: (n, law) for n, law in drawn}
    return list(found.values())


def _over_places(node: Node) -> bool:
    """Whether a statistic is of one channel at all samples."""
    a = node.attrs
    return 0 in a["axes"] and not set(a.get("feature_axes", (1,))) & set(a["axes"]) and a.get("groups", 1) == 1


def _law(node: Node, graph: Graph, laws: Mapping[str, Distribution]) -> Distribution | None:
    parameter = graph.parameters[node.attrs["parameter"]]
    return laws.get(parameter.name, parameter.law) if parameter.value is None else None


def _differ(drawn: Sequence[Distribution]) -> bool:
    """Whether a gain, and a shift, of these laws make channels of several kinds."""
    if not drawn or not all(law.iid for law in drawn):
        return False
    return any(law.std > SLIGHT * np.hypot(drawn[0].mean, drawn[0].std) for law in drawn)


def _laid_out(graph: Graph, node: Node, law: Distribution, told: list[np.ndarray]) -> Law:
    parameter = graph.parameters[node.attrs["parameter"]]
    shape, size = tuple(parameter.shape), parameter.size
    numbers = quantiles(parameter, law, min(KINDS, size))
    if np.ptp(numbers) > 0:
        about = np.stack([numbers - numbers.mean(), (numbers - numbers.mean()) ** 2])
        about -= about.mean(1, keepdims=True)
        numbers = numbers[_order(about / np.sqrt(np.sum(about**2, 1, keepdims=True)), told)]
    return constant(shape, feature_axes(shape), numbers[np.arange(size) % len(numbers)].reshape(shape))


def quantiles(parameter: Parameter, law: Distribution, count: int) -> np.ndarray:
    """As many numbers of equal share, in increasing order, with the mean and the mean square of the law."""
    at = (np.arange(count) + 0.5) / count
    if parameter.observed is not None and law is parameter.law:
        array = np.asarray(parameter.observed, float).ravel()
        numbers, mean, std = np.quantile(array, at), array.mean(), array.std()
    else:
        numbers, mean, std = np.asarray(law.quantile(at), float), law.mean, law.std
    spread = numbers.std()
    return mean + (numbers - numbers.mean()) * (std / spread if spread > 0 else 0.0)


NEAR, TRIED = 12, 256
"""Of how many earlier vectors the next one is kept apart, and how many orders are tried for it."""


def _order(about: np.ndarray, told: list[np.ndarray]) -> np.ndarray:
    """The order by which a vector goes together least with those before it; it is told to the next.

    Args:
        about: (functions, kinds) functions of the vector, of mean zero and length one.
        told: (functions, kinds) of those before, in their orders.
    """
    count = about.shape[1]
    rng = np.random.default_rng(len(told))
    orders = np.stack([rng.permutation(count) for _ in range(TRIED)])
    near = [one for one in told[-NEAR:] if one.shape[1] == count]
    met = sum(np.sum(np.einsum("ftc,gc->tfg", about[:, orders], one) ** 2, (1, 2)) for one in near)
    best = orders[int(np.argmin(met))] if near else orders[0]
    told.append(about[:, best])
    return best


def of_kinds(value: Value) -> bool:
    """Whether a gain or a shift tells channels apart."""
    return isinstance(value, Law) and value.deterministic and len(value.values) > 1


def told(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...]:
    """What a norm reads, with gains and shifts as laws of all channels where these would be of too many kinds.

    Pieces of a concatenation have channels of all kinds each: a few kinds of some hundreds say nothing of the others.
    """
    at = [i for key in ("weight", "bias") if (i := node.attrs.get(key)) is not None]
    x, axis = inputs[0], node.attrs.get("feature_axes", (1,))[0]
    if not isinstance(x, Law) or not any(of_kinds(inputs[i]) for i in at):
        return inputs
    size = x.shape[axis]
    rows = [columns(x, axis, size), *(columns(as_law(inputs[i]), 0, size) for i in at)]
    if len(unlike(np.concatenate(rows, 1))[0]) <= MOST:
        return inputs
    whole = list(inputs)
    for i in at:
        whole[i] = _drawn(inputs[i]) if of_kinds(inputs[i]) else inputs[i]
    return tuple(whole)


@remembered
def _drawn(law: Law) -> Law:
    """Numbers by kind as one law."""
    return observed_law(law.shape, law.profile(law.means).ravel())


def alike(law: Law, feature: int) -> Law:
    """All places of a map as one, where channels are told apart: kinds matter more than the border."""
    law = replace(law, latent=replace(law.latent, border=None)) if border.carried(law) is not None else law
    if all(n == 1 or i == feature for i, n in enumerate(law.level.shape)):
        return law
    rows, which = unlike(np.moveaxis(law.level, feature, 0).reshape(law.level.shape[feature], -1))
    made = [compress(law.values, row.reshape(1, -1), 1)[0][0] for row in rows]
    shape = tuple(n if i == feature else 1 for i, n in enumerate(law.level.shape))
    return law.with_values(np.stack(made), level=which.reshape(shape).astype(np.int32))


__all__ = ["alike", "gains", "of_kinds", "quantiles", "told"]
