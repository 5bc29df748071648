"""Parameters whose rows are tokens: learned queries, latents, prompts.

A table of positions gets the name of its rows' axis from what it is added to. Learned queries are added to nothing:
they go through norms and layers of their own before they meet the batch. There a row is what a token of the batch is
elsewhere, a place: rows hear the same weights, and what attention brings to all of them they have in common.
"""

from __future__ import annotations

import numpy as np

from fanin.graph import Graph, Kind, Node
from fanin.theory import grid
from fanin.theory.combine import matched
from fanin.theory.contraction import axis_groups, known_pairs
from fanin.theory.law import FEATURE, Atom, Law, fresh_latent, latent_for, subsets
from fanin.theory.places import POSITION
from fanin.theory.records import replace
from fanin.theory.state import Known

LAID_OUT = ("expand", "reshape", "same", "slice")
ELEMENT_BY_ELEMENT = (Kind.POINTWISE, Kind.SUM, Kind.PRODUCT, Kind.DROP)


def tables_of_tokens(graph: Graph) -> frozenset[str]:
    """Ids of parameters that a dense layer, a norm over features or attention reads as a signal, row by row."""
    alone, users = _alone(graph), graph.users
    tables = [
        n for n in graph.nodes if n.kind is Kind.PARAMETER and sum(k > 1 for k in n.shape[:-1]) and n.shape[-1] > 1
    ]
    return frozenset(n.id for n in tables if _read_by_row(n, users, alone))


def batch_of_tokens(graph: Graph) -> frozenset[str]:
    """Ids of inputs whose last axis a norm with weights reads by itself: it holds features, not places."""
    users, found = graph.users, set()
    for node in graph.nodes:
        waiting = [node] if node.kind is Kind.INPUT and node.is_float and len(node.shape) > 1 else []
        while waiting:
            here = waiting.pop()
            if any(user.kind is Kind.NORM and _reads(user, here) for user in users[here.id]):
                found.add(node.id)
            waiting += [u for u in users[here.id] if u.kind is Kind.MOVE and u.attrs["how"] == "same"]
    return frozenset(found)


def of_features(batch: Known) -> Known:
    """Such an input with features along its last axis."""
    return replace(batch, axes=(*batch.axes[:-1], (Atom(batch.shape[-1], FEATURE),)))


def normalized_batch(node: Node, batch: Known) -> Law:
    """What a norm over features reads of such an input: tokens of length one, whose products are counted."""
    array = np.asarray(batch.array, float)
    about = array - array.mean(-1, keepdims=True) if node.attrs.get("centred", True) else array
    array = about / np.sqrt(np.mean(about**2, -1, keepdims=True) + node.attrs["eps"])
    second, pairs = known_pairs(array, batch.axes, len(batch.shape) - 1)
    values = matched(grid.quantile_grid(array.ravel(), np.ones(array.size)), float(array.mean()), float(second.mean()))
    law = Law(batch.shape, batch.axes, values[None], np.zeros((1,) * len(batch.shape), np.int32), fresh_latent({}))
    return replace(law, latent=latent_for(law, lambda s: pairs.get(s, law.mean**2), law.groups))


def as_tokens(law: Law) -> Law:
    """The law of such a parameter: features last, independent places before."""
    named = lambda axis: tuple(Atom(a.size, POSITION if a.group == FEATURE else a.group) for a in axis)  # noqa: E731
    axes = (*(named(axis) for axis in law.axes[:-1]), law.axes[-1])
    apart = dict.fromkeys(subsets(frozenset(g for axis in axes for g in axis_groups(axis))), 0.0)
    return replace(law, axes=axes, latent=replace(law.latent, corr=apart))


def _alone(graph: Graph) -> frozenset[str]:
    """Tensors that no input of the batch has a part in."""
    found: set[str] = set()
    for node in graph.nodes:
        if node.kind is not Kind.INPUT and found.issuperset(node.inputs):
            found.add(node.id)
    return frozenset(found)


def _read_by_row(table: Node, users: dict[str, list[Node]], alone: frozenset[str]) -> bool:
    """Whether the table gets to such a reader with its features last, by what leaves elements what they are."""
    waiting, seen = [table], set()
    while waiting:
        node = waiting.pop()
        for user in users.get(node.id, ()):
            if _reads(user, node):
                return True
            if user.id not in seen and user.id in alone and _carries(user, table.shape[-1]):
                seen.add(user.id)
                waiting.append(user)
    return False


def _reads(user: Node, node: Node) -> bool:
    if user.kind is Kind.DENSE:
        return user.inputs[user.attrs["x"]] == node.id
    if user.kind is Kind.NORM:
        return user.inputs[0] == node.id and tuple(user.attrs["axes"]) == (len(node.shape) - 1,)
    return user.kind is Kind.ATTENTION and user.inputs[0] == node.id


def _carries(user: Node, width: int) -> bool:
    if user.shape[-1:] != (width,):
        return False
    if user.kind is Kind.MOVE and user.attrs["how"] == "permute":
        return user.attrs["perm"][-1] == len(user.shape) - 1
    return user.attrs["how"] in LAID_OUT if user.kind is Kind.MOVE else user.kind in ELEMENT_BY_ELEMENT
