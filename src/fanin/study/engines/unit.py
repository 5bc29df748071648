"""What an engine runs at once: one cell, or cells of one shape that may train as one program."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from fanin.study.grid import Cell
from fanin.study.outcome import Outcome
from fanin.study.trial import LARGEST_STACK

LOST = "the worker was lost"


@dataclass(frozen=True)
class Unit:
    """Cells of one shape, and how they are trained: see ``trial.WAYS``.

    Args:
        threads: of its worker; more than one where nothing else is to run beside it.
    """

    cells: tuple[Cell, ...]
    way: str = "serial"
    threads: int = 1

    def run(self) -> list[Outcome]:
        from fanin.study.trial import run_cells

        if self.threads == 1:
            return run_cells(self.cells, self.way)
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            return run_cells(self.cells, self.way)
        finally:
            torch.set_num_threads(before)

    def lost(self) -> list[Outcome]:
        """Outcomes where the worker died twice over this unit."""
        return [Outcome("failed", error=f"{LOST}: killed, out of memory, or crashed") for _ in self.cells]


class Engine(Protocol):
    """Where units run, for as long as the context is open.

    Args:
        workers: units at once.
    """

    def __init__(self, workers: int): ...

    def units(self, cells: Sequence[Cell], way: str) -> list[Unit]:
        """Cells as units that are run one of `trial.WAYS`."""
        ...

    def run(self, units: Iterable[Unit]) -> Iterator[tuple[Unit, list[Outcome]]]:
        """(unit, outcomes of its cells), as they end, in any order."""
        ...

    def __enter__(self) -> Engine: ...

    def __exit__(self, *_: object) -> None: ...


def units_of(cells: Iterable[Cell], way: str, workers: int) -> list[Unit]:
    """Cells one by one, or grouped by shape into stacks; no fewer stacks than workers where there are cells enough.

    Cells that share an order of samples stand together, so that a stack draws it once.
    """
    if way == "serial":
        return [Unit((cell,)) for cell in cells]
    groups = groups_of(cells)
    share = -(-sum(map(len, groups.values())) // max(1, workers))
    size = min(LARGEST_STACK, share)
    return [Unit(part, way) for group in groups.values() for part in split(group, size)]


def groups_of(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    """Shape -> its cells, by order of samples."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.shape, []).append(cell)
    return {shape: sorted(group, key=lambda cell: (cell.data_seed, cell.init_seed)) for shape, group in groups.items()}


def split(group: Sequence[Cell], most: int) -> list[tuple[Cell, ...]]:
    """Parts of nearly one size, none above ``most``."""
    count = -(-len(group) // max(1, most))
    even = -(-len(group) // count)
    return [tuple(group[i : i + even]) for i in range(0, len(group), even)]
