"""Which way is the fastest for cells of one shape, found out by short timings on the workers that will run them.

One by one or stacked, on every worker with a thread of its own; or one stack at a time on all threads. The last can
only pay where arithmetic is the limit, and is timed there alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import perf_counter, process_time
from typing import Any

from fanin.study.engines.unit import Unit, groups_of, split
from fanin.study.grid import Cell
from fanin.study.trial import LARGEST_STACK

CLEAR = 2.0
"""Where a stack is so many times faster than its networks one by one, calls are the limit, not arithmetic."""
TRIES = 3
"""Timed steps."""
ROUNDS = 2
"""Timings of the pool and of all threads, in turns; the fastest of each counts."""

Call = Callable[..., Any]
"""``call(function, *arguments)``, a future of a worker."""


@dataclass(frozen=True)
class Seconds:
    """A step of one network on one thread; ``stacked`` is infinite where it cannot be stacked."""

    serial: float
    stacked: float

    @property
    def best(self) -> float:
        return min(self.serial, self.stacked)

    @property
    def way(self) -> str:
        return "stacked" if self.stacked < self.serial else "serial"


def on_one_thread(cells: Sequence[Cell]) -> Seconds | None:
    """Timed with rates of zero, by the processor's time: what else the machine does shall not decide.

    None where the task itself fails: the trials will tell what is wrong.
    """
    from fanin.frameworks.torch.training.serial import Single, draws
    from fanin.study.trial import _prepared

    try:
        problem, starter, recipe, _ = _prepared(cells[0])
        starter.start(cells[0].start, cells[0].init_seed, recipe.batch)
        problem.model.train()
        serial = _shortest(Single(problem, recipe, 0.0, cells[0].data_seed).step, process_time)
        if draws(problem.model):
            return Seconds(serial, float("inf"))
    except Exception:
        return None
    try:
        return Seconds(serial, _stacked(cells, process_time))
    except Exception:  # vmap says no in many types
        return Seconds(serial, float("inf"))


def on_all_threads(cells: Sequence[Cell], threads: int) -> float:
    """Seconds of a step of one network, in a stack that has all threads."""
    import torch

    torch.set_num_threads(threads)
    try:
        return _stacked(cells, perf_counter)
    finally:
        torch.set_num_threads(1)


def _stacked(cells: Sequence[Cell], clock: Callable[[], float]) -> float:
    from fanin.frameworks.torch.training.stacked import Stack
    from fanin.study.trial import _prepared

    problem, starter, recipe, _ = _prepared(cells[0])
    starts = [starter.state(cell.start, cell.init_seed, recipe.batch) for cell in cells]
    problem.model.train()
    stack = Stack(problem, recipe, starts, [0.0] * len(cells), [cell.data_seed for cell in cells])
    return _shortest(stack.step, clock) / len(cells)


def _shortest(step: Callable[[int], object], clock: Callable[[], float]) -> float:
    """Of a few steps, after one that warms up."""
    step(0)
    taken = []
    for i in range(TRIES):
        began = clock()
        step(i)
        taken.append(clock() - began)
    return min(taken)


def fastest(groups: Iterable[Sequence[Cell]], workers: int, call: Call) -> dict[str, str]:
    """Shape -> "serial", "stacked" or "wide", for groups of cells of one shape; a shape that fails is left out.

    Every group is timed by one worker while the others time theirs; those that may be limited by arithmetic once more
    by all workers at a time, which is how they would run, and then on all threads.
    """
    timed = {group[0].shape: (group, call(on_one_thread, _share(group, workers))) for group in groups}
    found = {shape: (group, seconds) for shape, (group, future) in timed.items() if (seconds := future.result())}
    ways = {shape: seconds.way for shape, (_, seconds) in found.items()}
    for shape, (group, seconds) in found.items():
        if workers > 1 and seconds.serial / CLEAR < seconds.stacked < float("inf"):
            ways[shape] = _of_three(group, workers, call) or ways[shape]
    return ways


def _of_three(group: Sequence[Cell], workers: int, call: Call) -> str | None:
    pool: list[Seconds] = []
    wide: list[float] = []
    for _ in range(ROUNDS):
        together = [call(on_one_thread, _share(group, workers)) for _ in range(workers)]
        seconds = [future.result() for future in together]
        if not all(seconds):
            return None
        pool.append(Seconds(max(s.serial for s in seconds), max(s.stacked for s in seconds)))
        wide.append(call(on_all_threads, group[:LARGEST_STACK], workers).result())
    one = Seconds(min(s.serial for s in pool), min(s.stacked for s in pool))
    return "wide" if min(wide) < one.best / workers else one.way


def _share(group: Sequence[Cell], workers: int) -> Sequence[Cell]:
    """The stack that a worker would get."""
    return group[: max(1, min(LARGEST_STACK, -(-len(group) // workers)))]


def timed_units(cells: Iterable[Cell], workers: int, known: dict[str, str], call: Call) -> list[Unit]:
    """Units of the fastest way; ``known`` keeps what was timed. What could not be timed decides when it is run."""
    groups = groups_of(cells)
    known |= fastest([g for shape, g in groups.items() if len(g) > 1 and shape not in known], workers, call)
    share = -(-sum(map(len, groups.values())) // max(1, workers))
    units, wide = [], []
    for shape, group in groups.items():
        way = known.get(shape, "auto")
        if way == "wide":
            wide += [Unit(part, "stacked", workers) for part in split(group, LARGEST_STACK)]
        elif way == "serial":
            units += [Unit((cell,)) for cell in group]
        else:
            units += [Unit(part, way) for part in split(group, min(LARGEST_STACK, share))]
    return units + wide
