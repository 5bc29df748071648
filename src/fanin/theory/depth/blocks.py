"""Repeating blocks of a graph, from the paths of its modules.

Modules whose names differ in a number alone (``layers.0``, ``layers.1``, ... or ``fc1``, ``fc2``, ...) are siblings. A
stack is the longest run of siblings that repeat the same operations and shapes with some period, each fed by the one
before: parallel experts or heads are no stack.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from fanin.graph import Graph, Node

LONGEST_PERIOD = 12
FEWEST = 3  # blocks: with two there is no trend
_NUMBERED = re.compile(r"(.*?)(\d+)")


@dataclass(frozen=True, slots=True)
class Stack:
    """Blocks that follow each other.

    Attributes:
        blocks: names of the blocks; of several modules a block, that of the last: ``layers.0``, ``1``.
        ends: ids of the nodes whose tensors the blocks hand on, in order.
    """

    blocks: tuple[str, ...]
    ends: tuple[str, ...]


def stacks(graph: Graph) -> tuple[Stack, ...]:
    """The stacks of a graph in the order in which they run; those inside another's blocks are left out."""
    found: list[tuple[str, Stack]] = []
    for (parent, _), siblings in _siblings(graph).items():
        start, period, repeats = _run([_signature(graph, at) for at in siblings.values()])
        if repeats < FEWEST or any(_inside(parent, outer) for outer, _ in found):
            continue
        names = [".".join(filter(None, (parent, name))) for name in siblings]
        groups = [range(start + k * period, start + (k + 1) * period) for k in range(repeats)]
        places = [[i for j in group for i in list(siblings.values())[j]] for group in groups]
        ends = tuple(_end(graph, at) for at in places)
        stack = Stack(tuple(names[group[-1]] for group in groups), tuple(end for end in ends if end))
        if len(stack.ends) == repeats and _chained(graph, stack.ends):
            found += [(name, stack) for name in names[start : start + period * repeats]]
    order = {node.id: i for i, node in enumerate(graph.nodes)}
    return tuple(sorted({id(s): s for _, s in found}.values(), key=lambda s: order[s.ends[0]]))


def _siblings(graph: Graph) -> dict[tuple[str, str], dict[str, list[int]]]:
    """Places of the nodes under each numbered module, by (parent, stem of the name); outer parents first."""
    found: dict[tuple[str, str], dict[str, list[int]]] = {}
    for i, node in enumerate(graph.nodes):
        if not node.signal:
            continue
        parts = node.module.split(".")
        for depth, part in enumerate(parts):
            named = _NUMBERED.fullmatch(part)
            if named:
                found.setdefault((".".join(parts[:depth]), named[1]), {}).setdefault(part, []).append(i)
    return dict(sorted(found.items(), key=lambda item: item[0][0].count(".") + bool(item[0][0])))


def _signature(graph: Graph, at: list[int]) -> tuple:
    return tuple((graph.nodes[i].op, graph.nodes[i].shape) for i in at)


def _run(signatures: list[tuple]) -> tuple[int, int, int]:
    """Start, period and number of repeats of the longest repetition, the shortest period of equal ones."""
    best = (0, 1, 1)
    for period in range(1, min(LONGEST_PERIOD, len(signatures) // 2) + 1):
        same = 0  # how many siblings in a row equal the one a period before
        for i in range(period, len(signatures)):
            same = same + 1 if signatures[i] == signatures[i - period] else 0
            repeats = same // period + 1
            if repeats * period > best[1] * best[2] and repeats > 1:
                best = (i + 1 - repeats * period, period, repeats)
    return best


def _inside(parent: str, block: str) -> bool:
    return parent == block or parent.startswith(f"{block}.")


def _end(graph: Graph, at: list[int]) -> str | None:
    """The last tensor of a block that something outside of it reads."""
    own = {graph.nodes[i].id for i in at}
    for i in reversed(at):
        node = graph.nodes[i]
        if node.is_float and (node.id in graph.outputs or any(user.id not in own for user in graph.users[node.id])):
            return node.id
    return None


def _chained(graph: Graph, ends: tuple[str, ...]) -> bool:
    """Whether each end is made from the one before."""
    order = {node.id: i for i, node in enumerate(graph.nodes)}
    pairs = itertools.pairwise(ends)
    return all(end in {node.id for node in between(graph, start, end, order)} for start, end in pairs)


def between(graph: Graph, start: str, end: str, order: dict[str, int] | None = None) -> list[Node]:
    """The nodes up to ``end`` that depend on ``start``, in order, without it."""
    order = order or {node.id: i for i, node in enumerate(graph.nodes)}
    reached, found = {start}, []
    for node in graph.nodes[order[start] + 1 : order[end] + 1]:
        if any(source in reached for source in node.inputs):
            reached.add(node.id)
            found.append(node)
    return found
