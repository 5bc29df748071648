"""Networks of one architecture, each with numbers of its own: traced once, measured with the numbers of each.

Tracing a small network takes several times as long as running it, and the program holds none of its numbers: parameters
and buffers are read when it runs. Other tensors are traced into it, so those have to be the same in all networks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from fanin.frameworks.torch.reading import Reading
from fanin.frameworks.torch.verbs import measure_signals, read_model
from fanin.signals import Signals


class Networks:
    """Measures one network after the other on one batch, as ``fanin.measure`` does."""

    def __init__(self, batch: Any):
        self.batch = batch
        self._reading: Reading | None = None

    def measure(self, model: nn.Module, *, seed: int = 0, **options: Any) -> Signals:
        """Signal and gradient in every tensor of this network; the seed is that of dropout and of the cotangent."""
        if self._reading is None:
            self._reading = read_model(model, self.batch)
        assert alike(self._reading.model, model), "another architecture, or numbers that are traced into the program"
        return measure_signals(replace(self._reading, model=model), seed=seed, **options)


def alike(one: nn.Module, other: nn.Module) -> bool:
    """Whether two networks have one program: the same modules in the same mode, and the same tensors beside weights."""
    if one is other:
        return True
    pairs = list(zip(one.named_modules(), other.named_modules(), strict=False))
    if len(pairs) != len(list(other.modules())) or len(pairs) != len(list(one.modules())):
        return False
    if any((a, type(m), m.training) != (b, type(n), n.training) for (a, m), (b, n) in pairs):
        return False
    sizes = [{k: v.shape for k, v in model.state_dict().items()} for model in (one, other)]
    traced = zip(traced_numbers(one), traced_numbers(other), strict=False)
    return sizes[0] == sizes[1] and all(type(a) is type(b) and same(a, b) for a, b in traced)


def traced_numbers(model: nn.Module) -> Iterator[Any]:
    """Tensors and numbers that are attributes of modules, but neither parameters nor buffers."""
    for module in model.modules():
        for name, value in vars(module).items():
            if not name.startswith("_") and isinstance(value, torch.Tensor | float | int | str):
                yield value


def same(a: Any, b: Any) -> bool:
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
