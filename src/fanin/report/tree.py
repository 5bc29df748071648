"""The tensors of a report as lines by module tree, repeated blocks folded into one.

Siblings that repeat with a period (``h.0 … h.11``, or
convolution, ReLU, convolution, ReLU, ...) become one line each, which then stands for several tensors.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field

from fanin.checks.finding import Finding
from fanin.report.pairs import Pair, pairs
from fanin.report.record import Report
from fanin.signals import Signal

LONGEST_PERIOD = 12
MOVES = frozenset(  # where elements go, not what they are: the rms stays
    "view reshape transpose permute contiguous clone alias to expand unsqueeze squeeze split split_with_sizes "  # noqa: SIM905
    "chunk slice select index unbind flatten unflatten detach lift repeat_interleave t _to_copy copy".split()
)


@dataclass(slots=True)
class Node:
    """A module or a tensor in the tree of names."""

    label: str
    pair: Pair | None = None
    children: dict[str, Node] = field(default_factory=dict)

    def shape(self) -> tuple:
        """What makes two nodes alike: ops and shapes, and the same below."""
        own = (self.pair.row.op, self.pair.row.shape) if self.pair else None
        return own, tuple((name if not name.isdigit() else "#", child.shape()) for name, child in self.children.items())


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the table: a heading (no pairs), one tensor, or the same tensor of every repeated block."""

    depth: int
    label: str
    pairs: tuple[Pair, ...] = ()
    repeats: int = 1


def lines(report: Report, *, detail: bool = False) -> list[Line]:
    """The table's lines, top to bottom.

    Without ``detail`` what only moves elements is left out, and so are the operations inside a module that has no
    modules in it; what a finding is about and what no rule predicts always stay.
    """
    root = Node("")
    for pair in pairs(report):
        node = root
        for part in _parts(pair.name):
            node = node.children.setdefault(part, Node(part))
        node.pair = pair
    if not detail:
        _prune(root, set(findings_by_name(report)))
    return list(_walk([[child] for child in root.children.values()], 0))


def findings_by_name(report: Report) -> dict[str, list[Finding]]:
    """The findings about each tensor; one about a parameter is shown at the module that owns it."""
    names = {pair.name for pair in pairs(report)}
    aliases = report.signals.aliases
    by_name: dict[str, list[Finding]] = {}
    for finding in report.findings:
        by_name.setdefault(row_of(finding.name, names, aliases), []).append(finding)
    return by_name


def row_of(name: str, names: Container[str], aliases: Mapping[str, str]) -> str:
    """The row that a finding's name points at: itself, what it is an alias of, or the innermost module around it.

    Example:
        >>> row_of("fc.weight", {"fc", "act"}, {})
        'fc'
    """
    inner = name
    while inner:
        if inner in names:
            return inner
        if inner in aliases and aliases[inner] in names:
            return aliases[inner]
        inner = inner.rpartition(".")[0]
    return name


def main_path(report: Report) -> list[Signal]:
    """The outputs of modules, where there are some: what a curve against depth should show."""
    rows = report.signals.rows
    outputs = [row for row in rows if "/" not in row.name]
    return list(outputs if len(outputs) >= 3 else rows)


def _prune(node: Node, needed: set[str]) -> None:
    for child in node.children.values():
        _prune(child, needed)
    leaf = node.pair is not None and all(name.startswith("/") for name in node.children)
    for name, child in list(node.children.items()):
        inner = name.startswith("/") and not child.children and not _must_show(child.pair, needed)
        if inner and (leaf or (child.pair is not None and child.pair.row.op in MOVES)):
            del node.children[name]


def _must_show(pair: Pair | None, needed: set[str]) -> bool:
    if pair is None:
        return False
    ruleless = pair.predicted is not None and pair.predicted.rms is None and pair.row.op not in MOVES
    return pair.name in needed or ruleless


def _parts(name: str) -> list[str]:
    head, slash, op = name.partition("/")
    return [*(part for part in head.split(".") if part), *([f"/{op}"] if slash else [])]


def _walk(siblings: list[list[Node]], depth: int) -> Iterator[Line]:
    """Siblings are lists of alike nodes (one node, or one of each repeated block)."""
    position = 0
    while position < len(siblings):
        period, repeats = _repeat(siblings, position)
        for offset in range(period):
            group = [siblings[position + offset + k * period] for k in range(repeats)]
            yield from _lines([node for alike in group for node in alike], repeats, depth)
        position += period * repeats


def _lines(alike: list[Node], repeats: int, depth: int) -> Iterator[Line]:
    label = alike[0].label if repeats == 1 else f"{alike[0].label} … {alike[-1].label}"
    nodes = alike
    while nodes[0].pair is None and len(nodes[0].children) == 1:  # a module with one inner name needs no own line
        nodes = [next(iter(node.children.values())) for node in nodes]
        label += nodes[0].label if nodes[0].label.startswith("/") else f".{nodes[0].label}"
    found = tuple(node.pair for node in nodes if node.pair is not None)
    yield Line(depth, label, found, repeats)
    inner = [list(same) for same in zip(*(node.children.values() for node in nodes))]
    yield from _walk(inner, depth + 1)


def _repeat(siblings: list[list[Node]], start: int) -> tuple[int, int]:
    """Period and number of repeats of the longest repetition that begins at ``start``; (1, 1) for none."""
    shapes = [_alike(same) for same in siblings[start:]]
    best = (1, 1)
    for period in range(1, min(LONGEST_PERIOD, len(shapes) // 2) + 1):
        repeats = 1
        while shapes[repeats * period : (repeats + 1) * period] == shapes[:period]:
            repeats += 1
        least = 2 if any(same[0].children for same in siblings[start : start + period]) else 3
        if repeats >= least and period * repeats > best[0] * best[1]:
            best = (period, repeats)
    return best


def _alike(same: list[Node]) -> tuple:
    return same[0].label.isdigit(), same[0].shape()
