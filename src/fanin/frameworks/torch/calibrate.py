"""One forward pass in which each weight is scaled when its output appears, while the same pass runs on."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from fanin.errors import ModelError
from fanin.frameworks.torch.execute import execute
from fanin.frameworks.torch.quiet import untouched
from fanin.frameworks.torch.reading import Reading


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

    def watch(id_: str, value: torch.Tensor) -> None:
        name = weights.get(id_)
        if name is None or name in factors:
            return
        found = float(value.double().std(correction=0))
        if not math.isfinite(found):
            raise ModelError(
                f"the output of {name} is not finite on this batch",
                cause="the batch holds NaN or infinities, or the signal overflows",
                remedy="look at the batch; nothing has been written to the model",
            )
        factors[name] = std / found if found > 0 else 1.0
        value.mul_(factors[name])
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
