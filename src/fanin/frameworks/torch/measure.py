"""Measure: one forward and one backward pass a seed, and the figures of every tensor on the way."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from fanin.errors import ModelError
from fanin.frameworks.torch.execute import execute
from fanin.frameworks.torch.loss import measured_accuracy, own_loss, scalar_loss
from fanin.frameworks.torch.quiet import untouched
from fanin.frameworks.torch.reading import Reading
from fanin.signals import Signal, Signals

Tensors = Mapping[str, torch.Tensor]


def measure(
    reading: Reading, runs: Sequence[tuple[int, Tensors]], *, loss: Callable | None = None, target: Any = None
) -> Signals:
    """Signals of the model's own program on its own batch.

    Args:
        runs: a seed (of dropout and of the cotangent) and the parameters and buffers of each run.
        loss: ``loss(output, target)`` or ``loss(output)``; without it the loss that the model returns first, and where
            it returns none an i.i.d. N(0, 1) cotangent on the first floating-point output.

    Returns:
        rows whose rms is the root of the mean square over all runs; low and high are the smallest and largest run.
    """
    if any(t.device.type == "meta" for t in runs[0][1].values()):
        raise ModelError(
            "the model is on the meta device: it has no weights to measure",
            remedy="use predict, give a plan, or build the model with real weights",
        )
    _no_meta_batch(reading)
    tally, has_loss = _Tally(reading), loss is not None or own_loss(reading.graph)
    cotangent = _of_loss(loss, target, tally) if has_loss else _of_output
    for seed, tensors in runs:
        with untouched(seed):
            tally.run(tensors, cotangent)
    return tally.signals("loss" if has_loss else "output")


def _no_meta_batch(reading: Reading) -> None:
    for leaf in reading.program.leaves:
        if isinstance(leaf, torch.Tensor) and leaf.device.type == "meta":
            raise ModelError(
                f"a batch tensor of shape {tuple(leaf.shape)} is on the meta device",
                remedy="give real values to measure",
            )


def _of_output(outputs: list[torch.Tensor]) -> torch.Tensor:
    first = outputs[0]
    return (first * torch.randn_like(first)).sum()


def _of_loss(loss: Callable | None, target: Any, tally: _Tally) -> Callable:
    scalar = scalar_loss(loss, target)

    def of(outputs: list[torch.Tensor]) -> torch.Tensor:
        value = scalar(outputs[0])
        right = measured_accuracy(scalar, outputs[0], value) if loss is not None else None
        tally.accuracies += [right] if right is not None else []
        return value

    return of


class _Tally:
    """Sums of figures over runs, by step."""

    def __init__(self, reading: Reading):
        self.reading = reading
        self.nodes = {node.id: node for node in reading.graph.signals}
        self.squares: dict[str, list[float]] = {}
        self.means: dict[str, list[float]] = {}
        self.gradients: dict[str, list[float]] = {}
        self.extra: dict[str, dict[str, float]] = {}
        self.parameters: dict[str, list[float]] = {}
        self.losses: list[float] = []
        self.accuracies: list[float] = []

    def run(self, tensors: Tensors, cotangent: Callable) -> None:
        """One forward and backward pass."""
        before = {k: len(v) for k, v in self.gradients.items()}
        grads: dict[str, float] = {}
        _, scalar, by_parameter = execute(
            self.reading.program,
            tensors,
            watch=self._watch,
            watch_grad=lambda i, g: grads.__setitem__(i, _mean_square(g)) if i in self.nodes else None,
            cotangent=cotangent,
        )
        del before
        for id_, value in grads.items():
            self.gradients.setdefault(id_, []).append(value)
        for name, gradient in by_parameter.items():
            self.parameters.setdefault(name, []).append(_mean_square(gradient))
        if scalar is not None:
            self.losses.append(float(scalar))

    def _watch(self, id_: str, tensor: torch.Tensor) -> None:
        if id_ not in self.nodes:
            return
        detached = tensor.detach()
        self.squares.setdefault(id_, []).append(_mean_square(detached))
        self.means.setdefault(id_, []).append(float(detached.mean(dtype=torch.float64)) if detached.numel() else 0.0)
        self.extra[id_] = figures(detached)

    def signals(self, cotangent: str) -> Signals:
        """The rows, in graph order."""
        rows = []
        for id_, node in self.nodes.items():
            squares, grads = self.squares.get(id_), self.gradients.get(id_)
            if squares is None:
                continue
            root = _root_range(squares)
            gradient = _root_range(grads) if grads else (None, None, None)
            rows.append(
                Signal(
                    node.name,
                    node.op,
                    node.shape,
                    *root,
                    sum(self.means[id_]) / len(squares),
                    *gradient,
                    source="measured",
                    module=node.module,
                    extra=self.extra[id_],
                )
            )
        parameters = {n: {"grad_rms": _root_range(v)[0]} for n, v in self.parameters.items()}
        facts: dict[str, Any] = {"cotangent": cotangent, "seeds": len(next(iter(self.squares.values()), []))}
        if cotangent == "loss" and self.losses:
            facts["loss"] = sum(self.losses) / len(self.losses)
        if self.accuracies:
            facts["accuracy"] = sum(self.accuracies) / len(self.accuracies)
        return Signals(rows, aliases=self.reading.graph.aliases, parameters=parameters, facts=facts)


def _root_range(squares: list[float]) -> tuple[float, float, float]:
    return math.sqrt(sum(squares) / len(squares)), math.sqrt(min(squares)), math.sqrt(max(squares))


def _mean_square(tensor: torch.Tensor) -> float:
    """Mean of squares, accumulated in float64 and scaled so that neither tiny nor huge values under- or overflow."""
    if tensor.numel() == 0:
        return 0.0
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    tensor = tensor.detach()
    if tensor.dtype in (torch.bfloat16, torch.float16):
        tensor = tensor.float()
    top = float(torch.linalg.vector_norm(tensor, float("inf")))
    if top == 0 or not math.isfinite(top):
        return 0.0 if top == 0 else float("nan") if math.isnan(top) else float("inf")
    if 1e-15 < top < 1e15:
        return float(torch.linalg.vector_norm(tensor, dtype=torch.float64)) ** 2 / tensor.numel()
    return float((tensor.double() / top).square().mean()) * top**2


def figures(tensor: torch.Tensor) -> dict[str, float]:
    """Shares of zero and of non-finite elements, share of features that are zero everywhere, and the largest value."""
    if tensor.numel() == 0:
        return {}
    zero = tensor == 0
    zeros = float(zero.float().mean())
    out = {"zeros": zeros, "nonfinite": 1.0 - float(torch.isfinite(tensor).float().mean())}
    low, high = torch.aminmax(tensor)
    out["min"], out["max"] = float(low), float(high)
    if tensor.dim() >= 2 and zeros > 0:
        axis = 1 if tensor.dim() > 3 or tensor.dim() == 2 else tensor.dim() - 1
        others = [d for d in range(tensor.dim()) if d != axis]
        out["dead"] = float(zero.all(dim=others[0]).float().mean()) if len(others) == 1 else _dead(zero, others)
    if tensor.dim() >= 2 and tensor.shape[0] > 1:
        out["spread"] = float(tensor.float().std(0).square().mean().sqrt())
    return out


def _dead(zero: torch.Tensor, others: list[int]) -> float:
    for axis in sorted(others, reverse=True):
        zero = zero.all(dim=axis)
    return float(zero.float().mean())
