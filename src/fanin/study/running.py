"""Run what a study still lacks: rates first, then the comparison; every outcome is stored as it comes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fanin.errors import StudyError
from fanin.study.document import read, written
from fanin.study.engines import ENGINES, WAYS, Engine
from fanin.study.grid import Cell
from fanin.study.looks import decided
from fanin.study.outcome import Outcome
from fanin.study.results import Results, collect
from fanin.study.spec import Study
from fanin.study.store import Store
from fanin.study.versions import environment

TRIES = 2
"""A trial that fails is run once more, by itself."""


@dataclass(frozen=True)
class Progress:
    """Where a run is.

    Args:
        done, total: trials; the total grows where a condition goes on to its next look.
        left: seconds, by the rate so far; None before anything has ended.
        last: the cell that ended last, with its outcome.
    """

    done: int
    total: int
    seconds: float
    left: float | None
    failed: int
    last: tuple[Cell, Outcome] | None = None


def run(
    spec: Study | Mapping[str, Any] | str | Path,
    *,
    size: str = "s",
    store: str | Path | None = None,
    engine: str = "vectorized",
    workers: int | None = None,
    progress: Callable[[Progress], Any] | None = None,
    again: bool = False,
    update: bool = False,
) -> Results:
    """Run a study, or what is left of it.

    Args:
        spec: a Study, a dict, the path of a TOML file, or the name of a built-in study.
        size: "xs" for a smoke run, "s" for two cores, "l" for a GPU; where the study says what these are.
        store: SQLite file of the outcomes; ``NAME-SIZE.sqlite`` without it. What it holds is not run again.
        engine: "local" (a process a core), "vectorized" (many networks a program, where a timing says that it pays),
            "ray", or "inline" (this process, for debugging).
        workers: processes; one a core without it.
        progress: called when a trial ends.
        again: try again what failed in an earlier run.
        update: run again what another version of the code computed, which is an error otherwise.

    Returns:
        the results; ``fanin.study.report`` reads them.

    Errors: StudyError for a study that cannot be, a store that another process writes or that cannot be used, and where
    every trial of the first kind fails.
    """
    study = read(spec, size)
    if engine not in ENGINES:
        raise StudyError(f"engine {engine!r}", remedy=f"one of {', '.join(ENGINES)}")
    path = Path(store) if store is not None else Path(f"{study.name}-{size}.sqlite")
    with Store(path, update=update) as kept:
        kept.tell("study", written(study))
        kept.tell("size", size)
        kept.tell("environment", environment())
        if again:
            kept.forget_failed()
        count = workers or os.cpu_count() or 1
        with ENGINES[engine](count) as started:
            return _Running(study, kept, started, WAYS[engine], progress).all()


def resume(path: str | Path, **options: Any) -> Results:
    """Run what is left of the study that a store was made for."""
    with Store(path, writing=False) as kept:
        document, size = kept.about("study"), kept.about("size")
    if document is None:
        raise StudyError(f"{path} holds no study", remedy="give the path that `fanin study run` printed")
    return run(document, size=size, store=path, **options)


def load(path: str | Path) -> Results:
    """The results in a store, finished or not; also while a run writes it."""
    with Store(path, writing=False) as kept:
        document = kept.about("study")
        if document is None:
            raise StudyError(f"{path} holds no study", remedy="give the path that `fanin study run` printed")
        return _results(read(document), kept)


def _results(study: Study, store: Store) -> Results:
    """All that the store holds, with the conditions that stopped early cut where they stopped."""
    if not study.seeds.looks:
        return collect(study, store)
    counts = decided(study, store)
    found = collect(study, store, counts=counts.seeds)
    return replace(found, stopped=counts.stopped)


class _Running:
    """One run: what is missing, in rounds, until nothing is."""

    def __init__(self, study: Study, store: Store, engine: Engine, way: str, progress: Any):
        self.study, self.store, self.engine, self.way, self.progress = study, store, engine, way, progress
        self.began, self.ran, self.failed = time.perf_counter(), 0, 0

    def all(self) -> Results:
        while (found := _results(self.study, self.store)).missing:
            self._round(found)
        return found

    def _round(self, found: Results) -> None:
        """Everything that can run now. Failures are tried once more, alone."""
        before = len(found.trials)
        self.total = before + len(found.missing) + found.blocked
        self.done = before
        failed = self._units(found.missing, self.way, 1)
        if failed:
            self._units([cell for cell, _ in failed], "serial", TRIES)

    def _units(self, cells: Any, way: str, attempt: int) -> list[tuple[Cell, Outcome]]:
        units = self.engine.units(cells, way)
        failed: list[tuple[Cell, Outcome]] = []
        for unit, outcomes in self.engine.run(units):
            pairs = list(zip(unit.cells, outcomes))
            fine = [(cell, out) for cell, out in pairs if out.status != "failed" or attempt == TRIES]
            failed += [(cell, out) for cell, out in pairs if out.status == "failed" and attempt < TRIES]
            self.store.put((cell, out, attempt) for cell, out in fine)
            self._tell(fine)
        if attempt < TRIES and len(failed) == len(cells) > 0:
            raise StudyError(
                f"every trial failed, the first with: {failed[0][1].error}", remedy="mend it, and run again"
            )
        return failed

    def _tell(self, ended: list[tuple[Cell, Outcome]]) -> None:
        self.done += len(ended)
        self.ran += len(ended)
        self.failed += sum(out.status == "failed" for _, out in ended)
        if self.progress is not None and ended:
            seconds = time.perf_counter() - self.began
            left = (self.total - self.done) * seconds / self.ran
            self.progress(Progress(self.done, self.total, seconds, left, self.failed, ended[-1]))
