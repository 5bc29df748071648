"""What an adapter asks for: pieces of storage, each with the slice of the tensor that belongs there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fanin.errors import ArgumentError
from fanin.fill.engine import Piece, fill_pieces, memory
from fanin.fill.formats import Format, encode
from fanin.fill.keys import keys
from fanin.fill.laws import law
from fanin.fill.structured import whole


class Job(NamedTuple):
    """Values ``start`` .. of tensor ``name`` of full ``shape``, for ``size`` numbers of the format at ``address``.

    A complex value is two numbers of ``size``; ``start`` counts values. Whoever makes a Job keeps its memory alive.
    """

    address: int
    size: int
    name: str
    shape: tuple[int, ...]
    distribution: Any
    format: Format
    start: int = 0
    count: int = 1  # runs of ``size`` numbers, one after the other in memory
    stride: int = 0  # and so many values apart in the tensor


def run(jobs: Iterable[Job], seed: int) -> None:
    """Fill every piece. Independent elements are drawn together in one call, so that small tensors cost little.

    Errors: ArgumentError where a law cannot fill a shape or dtype.
    """
    drawn, laws, centred = [], [], []
    for job in jobs:
        generator = law(job.distribution)
        if generator is None:
            _DRAWN.get(job.distribution.kind, _structured)(job, seed)
            continue
        if job.format.parts == 2:  # complex: half the variance in each part, the mean in the real one
            centred.append((job, generator.shift))
            generator = generator._replace(scale=generator.scale * math.sqrt(0.5), shift=0.0)
        drawn.append(job)
        laws.append(generator)
    streams = keys(seed, [job.name for job in drawn])
    fill_pieces(
        [
            Piece(address, size, generator, stream, start * format.parts, format, count, stride * format.parts)
            for (address, size, _, _, _, format, start, count, stride), generator, stream in zip(
                drawn, laws, streams, strict=True
            )
        ]
    )
    for job, shift in centred:
        if shift:
            _out(job)[::2] += job.format.storage.type(shift)


def _out(job: Job) -> NDArray:
    return memory(job.address, job.size * job.count, job.format)


def _constant(job: Job, seed: int) -> None:
    out = _out(job)
    out[...] = encode(np.full(1, job.distribution.value, job.format.working), job.format)
    if job.format.parts == 2:
        out[1::2] = 0


def _structured(job: Job, seed: int) -> None:
    if job.format.parts == 2:
        raise ArgumentError(
            f"{job.distribution} asked for {job.name!r} in {job.format.name}",
            cause="it is defined for real weights only",
            remedy="draw the real and imaginary parts under two names",
        )
    into = _out(job)
    direct = job.size == math.prod(job.shape) and job.format.storage == job.format.working
    full = whole(job.distribution, job.shape, seed, job.name, job.format.working, into if direct else None).reshape(-1)
    if direct and np.shares_memory(full, into):
        return
    if job.size < full.size:
        full = full[(job.start + np.arange(job.count)[:, None] * job.stride + np.arange(job.size)).reshape(-1)]
    into[...] = encode(full, job.format)


def _stacked(job: Job, seed: int) -> None:
    """Block by block: i.i.d. laws go on in the tensor's own stream, matrices have a stream of their own name."""
    block = job.distribution.block(job.shape)
    size = math.prod(block)
    run([part for at in range(job.count) for part in _blocks(job, at, block, size)], seed)


def _blocks(job: Job, run_: int, block: tuple[int, ...], size: int) -> Iterator[Job]:
    first = job.start + run_ * job.stride
    stop = first + job.size // job.format.parts
    address = job.address + run_ * job.size * job.format.storage.itemsize
    for i in range(first // size if size else 0, -(-stop // size) if size else 0):
        law, low, high = job.distribution.parts[i], max(first, i * size), min(stop, (i + 1) * size)
        own = {} if law.iid else {"name": f"{job.name}#{i}", "shape": block}
        yield job._replace(
            address=address + (low - first) * job.format.parts * job.format.storage.itemsize,
            size=(high - low) * job.format.parts,
            distribution=law,
            start=low if law.iid else low - i * size,
            count=1,
            **own,
        )


_DRAWN = {"constant": _constant, "stacked": _stacked}
