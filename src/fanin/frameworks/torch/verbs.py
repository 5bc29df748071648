"""What the public verbs need of PyTorch, in their order: read, measure, apply."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from fanin.errors import ArgumentError
from fanin.frameworks.torch.batch import missing_numbers as missing_numbers
from fanin.frameworks.torch.fitness import require_finite
from fanin.frameworks.torch.groups import parameter_groups as parameter_groups
from fanin.frameworks.torch.loss import head as loss_head
from fanin.frameworks.torch.measure import measure as _measure
from fanin.frameworks.torch.quiet import untouched
from fanin.frameworks.torch.reading import Reading, is_model, read
from fanin.graph import Graph
from fanin.signals import Signals

__all__ = [
    "apply_plan", "graph_of", "is_model", "loss_head", "measure_signals", "read_model", "require_finite", "weights_of",
]  # fmt: skip


def read_model(model: torch.nn.Module, batch: Any, *, seed: int = 0) -> Reading:
    """Trace without leaving a trace."""
    with untouched():
        return read(model, batch, seed=seed)


def graph_of(reading: Reading) -> Graph:
    """The neutral graph."""
    return reading.graph


def measure_signals(
    reading: Reading,
    *,
    seeds: int = 1,
    plan: Any = None,
    seed: int = 0,
    loss: Callable | None = None,
    target: Any = None,
) -> Signals:
    """One run a seed: on the weights as they are, or freshly drawn by a plan each time."""
    if not isinstance(seeds, int) or isinstance(seeds, bool) or seeds < 1:
        raise ArgumentError(f"seeds is {seeds!r}", remedy="give a positive number of runs")
    tensors = _tensors(reading.model)
    runs = [(seed + k, tensors if plan is None else _planned(reading, plan, tensors, seed + k)) for k in range(seeds)]
    return _measure(reading, runs, loss=loss, target=target)


def _tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))


def _planned(reading: Reading, plan: Any, tensors: Mapping[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    """Parameters as the plan draws them under a seed, in storage of their own: the model is not written to."""
    return _tensors(planned_model(reading, plan, seed))


def planned_model(reading: Reading, plan: Any, seed: int) -> torch.nn.Module:
    """A copy of the model with the weights that the plan draws."""
    from fanin.frameworks.torch.shadow import shadow

    def own(tensor: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(tensor, device="cpu") if tensor.device.type == "meta" else tensor.detach().clone()

    with untouched():
        copied = shadow(reading.model, own)
        apply_plan(plan, copied, seed=seed)
    return copied


def apply_plan(plan: Any, model: torch.nn.Module, *, seed: int, undo: bool = False, **kept: Any) -> torch.nn.Module:
    """Fill the model's parameters in place; with ``undo`` what is overwritten can be put back."""
    from fanin.frameworks.torch.fill import apply
    from fanin.frameworks.torch.undo import forget, remember

    if undo:
        remember(plan, model)
    try:
        return apply(plan, model, seed=seed, **kept)
    except BaseException:
        if undo:
            forget(model)
        raise


def undo_plan(plan: Any, model: torch.nn.Module) -> torch.nn.Module:
    """Put back what the plan's last apply with ``undo`` overwrote."""
    from fanin.frameworks.torch.undo import restore

    return restore(plan, model)


def weights_of(model: torch.nn.Module) -> dict[str, tuple[Any, str, Any]]:
    """Every parameter by every name, without a batch: its record, its role by the class of its module, and its fans.

    Roles: "dense", "conv", "embedding", "recurrent", "norm_weight", "norm_bias", "bias", or "" where the class says
    nothing. Fans are None where the module's layout is not known.
    """
    from fanin.axes import fans
    from fanin.frameworks.torch.parameters import parameter_records

    with untouched():
        records = parameter_records(model)
    found = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for leaf, tensor in module.named_parameters(recurse=False, remove_duplicate=False):
            name = f"{path}.{leaf}" if path else leaf
            role = _role(module, leaf, tensor.dim())
            try:
                size = fans(module, parameter=leaf) if role in _WITH_FANS else None
            except ArgumentError:
                size = None
            found[name] = (records[name], role, size)
    order = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    return {name: found[name] for name in order}


_WITH_FANS = ("dense", "conv", "embedding", "recurrent")
_CLASSES = {
    "dense": ("Linear", "Conv1D", "Bilinear", "MultiheadAttention"),
    "conv": ("_ConvNd",),
    "embedding": ("Embedding", "EmbeddingBag"),
    "recurrent": ("RNNBase", "RNNCellBase"),
    "norm": ("_NormBase", "LayerNorm", "GroupNorm", "RMSNorm"),
}


def _role(module: torch.nn.Module, leaf: str, axes: int) -> str:
    names = {c.__name__ for c in type(module).__mro__ if c.__module__.split(".")[0] in ("torch", "transformers")}
    kind = next((role for role, classes in _CLASSES.items() if names & set(classes)), "")
    if kind == "norm":
        return {"weight": "norm_weight", "bias": "norm_bias"}.get(leaf, "")
    if kind and (leaf.startswith("bias") or leaf.endswith("bias")):
        return "bias"
    return kind if axes > 1 else ""


def calibrate(
    reading: Reading, plan: Any, weights: Mapping[str, str], *, std: float = 1.0, seed: int = 0
) -> dict[str, float]:
    """Factor by which each weight of the plan must be scaled for outputs of this std on the reading's batch."""
    from fanin.frameworks.torch.calibrate import calibrate as passed
    from fanin.frameworks.torch.measure import _no_meta_batch

    _no_meta_batch(reading)
    copied = _planned(reading, plan, _tensors(reading.model), seed)
    return passed(reading, copied, weights, std=std, seed=seed)


def learned_scales(
    model: torch.nn.Module,
    batch: Any,
    plan: Any,
    names: Sequence[str],
    method: str,
    options: Mapping[str, Any],
    loss: Callable | None,
    target: Any,
    *,
    seed: int,
) -> dict[str, float]:
    """Factor by weight that a method learns, starting from the plan's draw; the model stays as it is."""
    from fanin.frameworks.torch.learned import learned
    from fanin.frameworks.torch.loss import own_loss

    reading = read_model(model, batch)
    if loss is None and not own_loss(reading.graph):
        raise ArgumentError(
            f"recipe {method!r} without a loss",
            cause="it learns the scales from the gradient of one, and the model returns none",
            remedy="give loss= and target=, such as loss=torch.nn.functional.cross_entropy",
        )
    copied = planned_model(reading, plan, seed)
    with untouched(seed), torch.enable_grad():
        return learned(copied, batch, names, method, options, loss, target)
