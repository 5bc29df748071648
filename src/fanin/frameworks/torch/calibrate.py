"""One forward pass in which each weight is scaled when its output appears, while the same pass runs on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

import torch

from fanin.errors import ModelError
from fanin.frameworks.torch.arguments import references
from fanin.frameworks.torch.execute import execute
from fanin.frameworks.torch.program import Program
from fanin.frameworks.torch.quiet import untouched
from fanin.frameworks.torch.reading import Reading

CANCELS = 0.9
"""Share of the square that the mean may hold before E[v^2] - E[v]^2 in float32 is too coarse: 1e-6 becomes 1e-5."""

FLOOR = 1e-30
"""Below it squares in float32 run into subnormal numbers."""


def calibrate(
    reading: Reading, tensors: Mapping[str, torch.Tensor], weights: Mapping[str, str], *, std: float, seed: int
) -> dict[str, float]:
    """Factors that bring the output of every weight to a standard deviation, found in one pass.

    Args:
        tensors: parameters and buffers of a copy of the model; the weights among them are scaled.
        weights: id of a node -> name of the weight that it applies, its bias being zero.
        std: what the outputs are brought to.
        seed: of dropout.

    Returns:
        factor by weight; 1 where the output is constant on this batch.

    Errors: ModelError where an output is not finite.
    """
    factors: dict[str, float] = {}
    again = _read_again(reading.program, tensors)

    def watch(id_: str, value: torch.Tensor) -> None:
        name = weights.get(id_)
        if name is None or name in factors:
            return
        found = _spread(value)
        if not math.isfinite(found):
            raise ModelError(
                f"the output of {name} is not finite on this batch",
                cause="the batch holds NaN or infinities, or the signal overflows",
                remedy="look at the batch; nothing has been written to the model",
            )
        factors[name] = std / found if found > 0 else 1.0
        value.mul_(factors[name])
        if id(tensors[name]) in again:
            tensors[name].mul_(factors[name])

    with untouched(seed), torch.no_grad():
        execute(
            reading.program,
            tensors,
            watch=watch,
            watch_grad=lambda id_, gradient: None,
            cotangent=lambda outputs: outputs[0].sum(),
            backward=False,
        )
    return factors


def _read_again(program: Program, tensors: Mapping[str, torch.Tensor]) -> set[int]:
    """The ``id`` of tensors that the signal meets more than once: only these must be scaled while the pass runs on.

    A transpose of a weight, or another function of weights alone, stands for the weight; tied names are one tensor.
    """
    origins = {ref: {id(tensors[name])} for ref, name in program.parameters.items()}
    uses: Counter[int] = Counter()
    for step in program.steps:
        reads = references(step)
        met = set().union(*(origins.get(ref, ()) for ref in reads))
        if met and all(ref in origins for ref in reads):
            origins[step.id] = met
        else:
            uses.update(met)
    return {tensor for tensor, times in uses.items() if times > 1}


def _spread(value: torch.Tensor) -> float:
    """Standard deviation; from two sums in float32 where they lose less than CANCELS, else in double precision."""
    if value.dtype == torch.float32 and value.numel():
        square, mean = float(torch.linalg.vector_norm(value)) ** 2 / value.numel(), float(value.mean())
        if FLOOR < square < math.inf and mean**2 < CANCELS * square:
            return math.sqrt(square - mean**2)
    return float(value.double().std(correction=0))
