"""Scales of weights that are learned before training: GradInit and MetaInit, on a copy of the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from fanin.errors import ModelError
from fanin.frameworks.torch.batch import arguments
from fanin.frameworks.torch.loss import scalar_loss

LEAST = 0.01
"""Lowest scale, as GradInit has it: no weight is switched off."""

Tensors = dict[str, torch.Tensor]


@dataclass
class Problem:
    """Loss of a model as a function of one scale a weight, on parts of a batch.

    Attributes:
        model: a copy that nobody else uses; its buffers may change.
        names: the weights whose scale is learned.
        args, kwargs: what forward takes. rows: samples of the batch, 0 where its tensors do not agree on their number.
    """

    model: torch.nn.Module
    names: Sequence[str]
    args: tuple
    kwargs: Mapping[str, Any]
    loss: Callable | None
    target: Any

    def __post_init__(self) -> None:
        self.base = {name: tensor.detach() for name, tensor in self.model.named_parameters()}
        self.scales = {name: torch.ones((), dtype=self.base[name].dtype, requires_grad=True) for name in self.names}
        sizes = {len(t) for t in _leaves((self.args, self.kwargs, self.target)) if t.dim()}
        self.rows = sizes.pop() if len(sizes) == 1 else 0

    def weights(self) -> Tensors:
        """Every parameter at its present scale; those that are not scaled can be differentiated, too."""
        scaled = {name: self.base[name] * scale for name, scale in self.scales.items()}
        return {n: scaled[n] if n in scaled else t.clone().requires_grad_() for n, t in self.base.items()}

    def at(self, weights: Tensors, rows: torch.Tensor | None) -> torch.Tensor:
        """The loss of these weights on these rows of the batch."""
        args, kwargs, target = (_picked(x, rows) for x in (self.args, self.kwargs, self.target))
        with sdpa_kernel(SDPBackend.MATH):  # the fused ones cannot be differentiated twice
            output = torch.func.functional_call(self.model, weights, args, kwargs)
        return scalar_loss(self.loss, target)(_first(output))

    def part(self, share: float) -> torch.Tensor | None:
        """Random rows of the batch; all of it where it cannot be cut."""
        if self.rows < 4:
            return None
        return torch.randperm(self.rows)[: max(2, int(share * self.rows))]


def _leaves(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _leaves(item)


def _picked(value: Any, rows: torch.Tensor | None) -> Any:
    if rows is None:
        return value
    if isinstance(value, torch.Tensor):
        return value[rows] if value.dim() else value
    if isinstance(value, Mapping):
        return {key: _picked(item, rows) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_picked(item, rows) for item in value)
    return value


def _first(output: Any) -> torch.Tensor:
    """The loss that the model returns, else its first floating-point output."""
    own = getattr(output, "loss", None)
    if isinstance(own, torch.Tensor):
        return own
    items = list(output.values()) if isinstance(output, Mapping) else [output]
    for leaf in _leaves(items):
        if leaf.is_floating_point():
            return leaf
    raise ModelError("the model has no floating-point output", remedy="give a model whose first output is a signal")


def gradinit(problem: Problem, options: Mapping[str, Any]) -> None:
    """Least loss after one step of the optimizer, the gradient's norm held below gamma.

    Where ||g|| > gamma the scales go down its slope, elsewhere down that of L(w - eta A(g)) on rows of which half are
    new; A(g) = g and the 2-norm for SGD, A(g) = sign(g) and the 1-norm for Adam.

    Source: Zhu et al. 2021, GradInit: Learning to initialize neural networks for stable and efficient training,
    arXiv:2102.08098, algorithm 1.
    """
    adam = options["optimizer"] == "adam"
    steps = torch.optim.Adam(list(problem.scales.values()), lr=options["rate"])
    for _ in range(int(options["steps"])):
        rows = problem.part(0.5)
        weights = problem.weights()
        loss = _finite(problem.at(weights, rows))
        used = [w for w in weights.values() if w.requires_grad]
        grads = torch.autograd.grad(loss, used, create_graph=True, allow_unused=True)
        found = [(w, g) for w, g in zip(used, grads, strict=True) if g is not None]
        norm = torch.stack([g.abs().sum() if adam else g.square().sum() for _, g in found]).sum()
        norm = norm if adam else norm.sqrt()
        if float(norm.detach()) > options["gamma"]:
            objective = norm
        else:
            moved = {id(w): w - options["eta"] * (g.sign().detach() if adam else g) for w, g in found}
            objective = problem.at({n: moved.get(id(w), w) for n, w in weights.items()}, _half_new(problem, rows))
        _step(problem, steps, objective)


def _half_new(problem: Problem, rows: torch.Tensor | None) -> torch.Tensor | None:
    if rows is None:
        return None
    rest = torch.randperm(problem.rows)
    other = rest[~torch.isin(rest, rows)]
    half = len(rows) // 2
    return torch.cat([rows[:half], other[: len(rows) - half]])


def _step(problem: Problem, steps: torch.optim.Optimizer, objective: torch.Tensor) -> None:
    scales = list(problem.scales.values())
    for scale, slope in zip(scales, torch.autograd.grad(objective, scales, allow_unused=True), strict=True):
        scale.grad = slope if slope is not None and bool(torch.isfinite(slope)) else torch.zeros_like(scale)
    steps.step()
    with torch.no_grad():
        for scale in scales:
            scale.clamp_(min=LEAST)


def metainit(problem: Problem, options: Mapping[str, Any]) -> None:
    """Least gradient quotient: how much the gradient changes over a step of its own length.

    GQ = mean |(g - H g) / (g + eps sign g) - 1| = mean |H g / (g + eps sign g)| nearly; norms of the weights follow the
    sign of its slope, with momentum.

    Source: Dauphin & Schoenholz 2019, MetaInit: Initializing learning by learning to initialize, NeurIPS 32,
    algorithm 1.
    """
    speed = dict.fromkeys(problem.names, 0.0)
    norms = {name: float(problem.base[name].norm()) for name in problem.names}
    for _ in range(int(options["steps"])):
        weights = problem.weights()
        quotient = gradient_quotient(_finite(problem.at(weights, problem.part(0.5))), list(weights.values()))
        slopes = torch.autograd.grad(quotient, list(problem.scales.values()), allow_unused=True)
        with torch.no_grad():
            for (name, scale), slope in zip(problem.scales.items(), slopes, strict=True):
                if slope is None or not bool(torch.isfinite(slope)) or norms[name] == 0:
                    continue
                speed[name] = options["momentum"] * speed[name] - options["rate"] * float(torch.sign(slope))
                scale.add_(speed[name] / norms[name]).clamp_(min=LEAST)


def gradient_quotient(loss: torch.Tensor, weights: Sequence[torch.Tensor], eps: float = 1e-5) -> torch.Tensor:
    """Mean over all weights of |(g - H g) / (g + eps sign g) - 1|; zero for a quadratic with H = 0, one for H = 1."""
    grads = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
    found = [(w, g) for w, g in zip(weights, grads, strict=True) if g is not None]
    half = torch.stack([g.square().sum() / 2 for _, g in found]).sum()
    products = torch.autograd.grad(half, [w for w, _ in found], create_graph=True, allow_unused=True)
    total, count = torch.zeros(()), 0
    for (_, g), product in zip(found, products, strict=True):
        product = torch.zeros_like(g) if product is None else product
        sign = torch.where(g >= 0, 1.0, -1.0)
        total = total + ((g - product) / (g + eps * sign) - 1).abs().sum()
        count += g.numel()
    return total / count


def _finite(loss: torch.Tensor) -> torch.Tensor:
    if not math.isfinite(float(loss.detach())):
        raise ModelError(
            f"the loss is {float(loss.detach())} on this batch",
            cause="the batch holds NaN or infinities, or the signal overflows",
            remedy="look at the batch, or start from another recipe (start=); nothing has been written to the model",
        )
    return loss


METHODS = {"gradinit": gradinit, "metainit": metainit}


def learned(
    model: torch.nn.Module,
    batch: Any,
    names: Sequence[str],
    method: str,
    options: Mapping[str, Any],
    loss: Callable | None,
    target: Any,
) -> dict[str, float]:
    """Factor by weight that the method finds.

    Args:
        model: a copy with the weights to start from.
        options: of the method: steps, rate, and its own.
    """
    problem = Problem(model, names, *arguments(batch), loss, target)
    METHODS[method](problem, options)
    return {name: float(scale.detach()) for name, scale in problem.scales.items()}
