"""Ray: the same units as core tasks on a cluster. Ray runs a task again when its node is lost."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from fanin.errors import MissingDependency
from fanin.study.engines.unit import Unit, units_of
from fanin.study.grid import Cell
from fanin.study.outcome import Outcome

RETRIES = 3
"""Times that a task is run again when its worker or node is lost."""


class Cluster:
    """The cluster that is connected, or that RAY_ADDRESS names, or a local one.

    Args:
        workers: CPUs of a local cluster; a cluster that is there uses what it has.
    """

    def __init__(self, workers: int):
        self.workers = workers

    def __enter__(self) -> Cluster:
        self._ray, self._own = _connected(self.workers)
        return self

    def __exit__(self, *_: object) -> None:
        if self._own:
            self._ray.shutdown()

    def units(self, cells: Sequence[Cell], way: str) -> list[Unit]:
        return units_of(cells, way, self.workers)

    def run(self, units: Iterable[Unit]) -> Iterator[tuple[Unit, list[Outcome]]]:
        """Run units as tasks of one CPU; a few wait at the cluster, so that no CPU does."""
        ray = self._ray
        task = ray.remote(num_cpus=1, max_retries=RETRIES)(_run)
        waiting = list(units)[::-1]
        flying: dict[Any, Unit] = {}
        while waiting or flying:
            while waiting and len(flying) < 2 * max(1, int(ray.cluster_resources().get("CPU", 1))):
                unit = waiting.pop()
                flying[task.remote(unit)] = unit
            for reference in ray.wait(list(flying), num_returns=1)[0]:
                unit = flying.pop(reference)
                try:
                    yield unit, ray.get(reference)
                except (
                    ray.exceptions.WorkerCrashedError,
                    ray.exceptions.NodeDiedError,
                    ray.exceptions.OutOfMemoryError,
                ):
                    yield unit, unit.lost()


def _connected(workers: int) -> tuple[Any, bool]:
    """Ray, and whether this call began the connection."""
    try:
        import ray
    except ImportError:
        raise MissingDependency("engine ray needs the package ray", remedy='pip install "fanin[ray]"') from None
    if ray.is_initialized():
        return ray, False
    local = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers, "include_dashboard": False}
    ray.init(log_to_driver=False, logging_level=logging.WARNING, **local)
    return ray, True


def _run(unit: Unit) -> list[Outcome]:
    import torch

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    return unit.run()
