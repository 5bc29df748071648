"""This process: no workers, for debugging a factory and for small studies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from fanin.study.engines.unit import Unit, units_of
from fanin.study.grid import Cell
from fanin.study.outcome import Outcome


class Inline:
    """Runs units one after the other where it is called."""

    def __init__(self, workers: int = 1):
        self.workers = workers

    def __enter__(self) -> Inline:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def units(self, cells: Sequence[Cell], way: str) -> list[Unit]:
        return units_of(cells, way, self.workers)

    def run(self, units: Iterable[Unit]) -> Iterator[tuple[Unit, list[Outcome]]]:
        for unit in units:
            yield unit, unit.run()
