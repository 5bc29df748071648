"""Processes of this machine, one thread each. A worker that dies costs its unit one more try, and no other."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from fanin.study.engines.unit import Unit, units_of
from fanin.study.engines.ways import timed_units
from fanin.study.grid import Cell
from fanin.study.outcome import Outcome


class Pool:
    """``workers`` processes, begun when the first unit comes and kept until the context ends."""

    def __init__(self, workers: int):
        self.workers = workers
        self._processes: ProcessPoolExecutor | None = None
        self._ways: dict[str, str] = {}

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def units(self, cells: Sequence[Cell], way: str) -> list[Unit]:
        """Where the way is "auto", what short timings say; a worker that dies over them leaves the choice to units."""
        if way != "auto":
            return units_of(cells, way, self.workers)
        try:
            return timed_units(cells, self.workers, self._ways, self._pool().submit)
        except BrokenProcessPool:
            self._end()
            return units_of(cells, way, self.workers)

    def run(self, units: Iterable[Unit]) -> Iterator[tuple[Unit, list[Outcome]]]:
        """Run units; those that were in flight when a worker died once more, alone, so that the killer is found."""
        waiting = list(units)[::-1]
        suspects: list[Unit] = []
        while waiting:
            suspects += yield from self._until_broken(waiting, self.workers)
        for unit in suspects:
            for lost in (yield from self._until_broken([unit], 1)):
                yield lost, lost.lost()

    def _until_broken(
        self, waiting: list[Unit], at_once: int
    ) -> Generator[tuple[Unit, list[Outcome]], None, list[Unit]]:
        """Yields what ends; empties ``waiting``, and returns the units that were in flight when a worker died."""
        flying: dict[Future, Unit] = {}
        while flying or waiting:
            try:
                while waiting and len(flying) < at_once and _beside(waiting[-1], flying.values()):
                    flying[self._pool().submit(Unit.run, waiting[-1])] = waiting[-1]
                    waiting.pop()
                for future in wait(flying, return_when=FIRST_COMPLETED).done:
                    outcomes = future.result()
                    yield flying.pop(future), outcomes
            except BrokenProcessPool:
                self._end()
                if flying:
                    return list(flying.values())
        return []

    def _pool(self) -> ProcessPoolExecutor:
        if self._processes is None:
            context = multiprocessing.get_context("spawn")
            self._processes = ProcessPoolExecutor(self.workers, context, _begin, (os.getpid(),))
        return self._processes

    def _end(self) -> None:
        if self._processes is not None:
            _end(self._processes)
            self._processes = None


def _beside(unit: Unit, others: Collection[Unit]) -> bool:
    """Whether a unit may run beside others: one that has all threads runs alone."""
    return not others or max(unit.threads, *(other.threads for other in others)) == 1


def _end(pool: ProcessPoolExecutor) -> None:
    """Do not wait for trials in flight: an interrupted study ends at once."""
    processes = list((pool._processes or {}).values())
    idle = not pool._pending_work_items
    pool.shutdown(wait=idle, cancel_futures=True)
    if not idle:
        for process in processes:
            process.kill()


def _begin(parent: int) -> None:
    """In a worker: one thread, no denormals, and an end with the parent, also when that is killed."""
    import torch

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    os.environ.setdefault("NUMBA_NUM_THREADS", "1")
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
