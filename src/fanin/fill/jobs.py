"""What an adapter asks for: pieces of storage, each with the slice of the stream that belongs there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from numpy.typing import NDArray

from fanin.fill.draw import fill_slice
from fanin.fill.formats import Format


class Job(NamedTuple):
    """Values ``start`` .. ``start + out.size`` of tensor ``name`` of full ``shape``, into the flat array ``out``."""

    out: NDArray
    name: str
    shape: tuple[int, ...]
    distribution: Any
    format: Format
    start: int = 0


def run(jobs: Iterable[Job], seed: int) -> None:
    """Fill every piece. Errors: ArgumentError where a law cannot fill a shape; ``check`` says so beforehand."""
    for job in jobs:
        fill_slice(job.out, job.distribution, job.shape, seed=seed, name=job.name, format=job.format, start=job.start)
