"""A loss on samples: what follows the drawn tensor, the loss itself and the gradient of both, by the framework."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch

from fanin.errors import ArgumentError, ModelError
from fanin.frameworks.torch.arguments import references, substitute
from fanin.frameworks.torch.program import Program, Step
from fanin.frameworks.torch.reading import Reading
from fanin.graph import Graph
from fanin.graph.head import Cut, Evaluated, Head

Scalar = Callable[[torch.Tensor], torch.Tensor]


def own_loss(graph: Graph) -> bool:
    """Whether the model returns its loss first, as models of transformers do when they are given labels."""
    return bool(graph.outputs) and graph.by_id[graph.outputs[0]].shape == ()


def scalar_loss(loss: Callable | None, target: Any) -> Scalar:
    """The loss as a function of the first output alone; one without a reduction is averaged.

    Raises:
        ModelError: the loss raises on the output, or does not give numbers.
    """

    def of(output: torch.Tensor) -> torch.Tensor:
        if loss is None:
            return output
        try:
            value = loss(output, target) if target is not None else loss(output)
        except Exception as error:
            raise ModelError(
                f"the loss raised {type(error).__name__}: {str(error)[:300]}",
                cause=f"it was called with the first floating-point output, of shape {tuple(output.shape)}"
                + (", and the target" if target is not None else ""),
                remedy="give loss=f(output, target), with target=",
            ) from error
        if not isinstance(value, torch.Tensor) or not value.is_floating_point() or not value.numel():
            raise ModelError(
                f"the loss is {_described(value)}, not a single number that can be differentiated",
                remedy="return a tensor of one number: .mean()",
            )
        return value.mean()

    return of


def _described(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)} and type {str(value.dtype).removeprefix('torch.')}"
    return f"a {type(value).__name__}"


def head(reading: Reading, loss: Callable | None, target: Any) -> Head | None:
    """How theory evaluates the loss on samples; None where there is no loss to speak of.

    Args:
        loss, target: ``loss(output, target)`` or ``loss(output)``; without a loss the model's own, if it returns one.

    Raises:
        ArgumentError: the loss cannot be called.
    """
    if loss is None and not own_loss(reading.graph):
        return None
    if loss is not None and not callable(loss):
        raise ArgumentError(
            f"loss is a {type(loss).__name__}",
            remedy="give a function of output and target: torch.nn.CrossEntropyLoss()",
        )

    def make(cut: Cut, known: Mapping[str, np.ndarray]):
        return _Tail(reading.program, cut, known, loss, target)

    return make


class _Tail:
    """The steps behind the cut and the loss, run on one sample after another."""

    def __init__(self, program: Program, cut: Cut, known: Mapping[str, np.ndarray], loss, target):
        self.cut = cut
        self.steps = _needed(program, cut, known)
        self.known = {ref: torch.from_numpy(np.array(known[ref])) for ref in _read(self.steps) if ref in known}
        self.loss, self.target, self.count = loss, target, 0
        self.constant: dict[str, float] = {}

    def __call__(self, sample: np.ndarray) -> Evaluated:
        drawn = torch.from_numpy(np.ascontiguousarray(sample))
        before = torch.random.get_rng_state()
        try:
            torch.default_generator.manual_seed(self.count)  # of dropout behind the cut
            if self.count == 0:
                self._without_knowledge(drawn)
            self.count += 1
            with torch.enable_grad():
                return self._evaluate(drawn.requires_grad_())
        finally:
            torch.random.set_rng_state(before)

    def _without_knowledge(self, like: torch.Tensor) -> None:
        """The loss of scores that are all zero, and of how many classes it is the cross-entropy."""
        env = self._run(torch.zeros_like(like), {})
        self.target = stand_in(self.target, env[self.cut.output])
        scores = env[self.cut.output] if self.loss is not None else env[self.cut.node]
        value = float(scalar_loss(self.loss, self.target)(env[self.cut.output]))
        self.constant["uninformed_loss"] = value
        axis = classes_axis(value, tuple(scores.shape))
        if axis is not None:
            self.constant["classes"] = scores.shape[axis]

    def _run(self, drawn: torch.Tensor, kept: dict[str, torch.Tensor]) -> dict[str, Any]:
        env: dict[str, Any] = {**self.known, self.cut.node: drawn * 1.0}
        for step in self.steps:
            args, kwargs = substitute(step, env)
            value = env[step.id] = step.target(*args, **kwargs)
            if step.id in self.cut.tail and isinstance(value, torch.Tensor) and value.requires_grad:
                value.retain_grad()
                kept[step.id] = value
        return env

    def _evaluate(self, drawn: torch.Tensor) -> Evaluated:
        kept: dict[str, torch.Tensor] = {}
        env = self._run(drawn, kept)
        output = env[self.cut.output]
        scores = output if self.loss is not None else env[self.cut.node]
        scalar = scalar_loss(self.loss, self.target)(output)
        if not scalar.requires_grad:
            raise ModelError("the loss does not depend on the output", remedy="give a loss of the model's first output")
        scores.retain_grad()
        scalar.backward()
        assert drawn.grad is not None and scores.grad is not None
        facts = {"loss": float(scalar.detach()), "square": float(scores.detach().square().mean()), **self.constant}
        if "classes" in self.constant:
            facts["accuracy"] = accuracy(scores.detach(), scores.grad, int(self.constant["classes"]))
        return Evaluated(drawn.grad.numpy(), facts, {k: _figures(t) for k, t in kept.items()})


def _figures(tensor: torch.Tensor) -> tuple[float, float, float | None]:
    detached = tensor.detach()
    gradient = float(tensor.grad.square().mean()) if tensor.grad is not None else None
    return float(detached.square().mean()), float(detached.mean()), gradient


def _needed(program: Program, cut: Cut, known: Mapping[str, Any]) -> list[Step]:
    """Steps between the cut and the output, with those that have several outputs of which one is read."""
    by_id = {step.id: step for step in program.steps}
    wanted, waiting = set(cut.tail), [cut.output, *cut.tail]
    while waiting:
        id_ = waiting.pop()
        if id_ == cut.node or id_ not in by_id or (id_ in known and id_ not in cut.tail):
            continue
        wanted.add(id_)
        waiting += [ref for ref in references(by_id[id_]) if ref not in wanted]
    return [step for step in program.steps if step.id in wanted and step.id != cut.node]


def _read(steps: Iterable[Step]) -> set[str]:
    return {ref for step in steps for ref in references(step)}


def stand_in(target: Any, output: torch.Tensor) -> Any:
    """The target itself; where it has no values (on the meta device), uniform class ids or N(0, 1)."""
    if not isinstance(target, torch.Tensor) or target.device.type != "meta":
        return target
    generator = torch.Generator().manual_seed(0)
    if target.is_floating_point():
        return torch.randn(target.shape, generator=generator, dtype=target.dtype)
    shape, ids = tuple(output.shape), tuple(target.shape)
    axis = 1 if len(shape) > 2 and ids == (shape[0], *shape[2:]) and ids != shape[:-1] else -1
    return torch.randint(0, shape[axis] if shape else 2, ids, generator=generator, dtype=target.dtype)


def classes_axis(uninformed: float, shape: tuple[int, ...]) -> int | None:
    """The axis of the classes: the one with C scores, where the loss of equal scores is ln C; None otherwise.

    Example:
        >>> classes_axis(math.log(10), (8, 10)), classes_axis(math.log(2), (8, 10))
        (1, None)
    """
    for axis in dict.fromkeys((len(shape) - 1, 1)):
        if 0 < axis < len(shape) and shape[axis] > 1 and math.isclose(uninformed, math.log(shape[axis]), rel_tol=1e-4):
            return axis
    return None


def accuracy(scores: torch.Tensor, gradient: torch.Tensor, classes: int) -> float:
    """Share of the predictions that are right.

    The gradient of a cross-entropy with respect to the scores is lowest at the label, wherever the loss finds its
    labels (shifted, in the batch, some of them ignored): no target needs to be read.
    """
    axis = len(scores.shape) - 1 if scores.shape[-1] == classes else 1
    counted = gradient.abs().sum(axis) > 0
    hit = scores.argmax(axis) == gradient.argmin(axis)
    return float(hit[counted].float().mean()) if bool(counted.any()) else 0.0


def measured_accuracy(scalar: Scalar, scores: torch.Tensor, value: torch.Tensor) -> float | None:
    """Of one run; None where the loss is not a cross-entropy of the output."""
    if scores.dim() < 2 or not value.requires_grad:
        return None
    with torch.no_grad():
        axis = classes_axis(float(scalar(torch.zeros_like(scores))), tuple(scores.shape))
    if axis is None:
        return None
    (gradient,) = torch.autograd.grad(value, scores, retain_graph=True)
    return accuracy(scores.detach(), gradient, scores.shape[axis])


__all__ = ["accuracy", "classes_axis", "head", "measured_accuracy", "own_loss", "scalar_loss", "stand_in"]
