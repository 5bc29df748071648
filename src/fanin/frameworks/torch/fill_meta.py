"""Parameters on the meta device have shapes and no memory: give them some, and their modules' buffers their values."""

from __future__ import annotations

from typing import Any

import torch

from fanin.errors import ModelError
from fanin.frameworks.torch.fill_sharded import reset_shards
from fanin.frameworks.torch.fill_storage import direct
from fanin.frameworks.torch.fill_targets import Target


def materialize(model: torch.nn.Module, found: list[Target], device: torch.device) -> list[Target]:
    """Give memory on ``device`` to the targets that have none, and to meta buffers whose values are known.

    Ties stay ties, strides and ``requires_grad`` stay as they are. A model with a meta buffer that no rule below
    knows is left untouched.

    Errors: ModelError for such a buffer.
    """
    buffers = _known_buffers(model, device)
    fresh = {id(t.tensor): _allocated(t.tensor, device) for t in found if t.tensor.device.type == "meta"}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and id(parameter) in fresh:
                module._parameters[name] = fresh[id(parameter)]
    for module, name, value in buffers:
        module._buffers[name] = value
    if fresh:
        reset_shards(model)
    return [_moved(target, fresh.get(id(target.tensor))) for target in found]


def _moved(target: Target, tensor: torch.Tensor | None) -> Target:
    return target if tensor is None else target._replace(tensor=tensor, job=direct(tensor, *target[:3]))


def _allocated(tensor: torch.Tensor, device: torch.device) -> torch.nn.Parameter:
    new = torch.nn.Parameter(torch.empty_like(tensor, device=device), requires_grad=tensor.requires_grad)
    vars(new).update(vars(tensor))  # marks that others have put on it
    return new


def _known_buffers(model: torch.nn.Module, device: torch.device) -> list[tuple[torch.nn.Module, str, torch.Tensor]]:
    known = []
    for path, module in model.named_modules():
        for name, buffer in module._buffers.items():
            if buffer is None or buffer.device.type != "meta":
                continue
            value = _value(module, name, buffer, device)
            if value is None:
                full = f"{path}.{name}" if path else name
                raise ModelError(
                    f"buffer {full!r} of shape {tuple(buffer.shape)} is on the meta device",
                    cause="a plan says what parameters hold, not buffers",
                    remedy="build the model with real buffers (only its parameters on the meta device), or set it",
                )
            known.append((module, name, value))
    return known


def known_buffer(model: torch.nn.Module, name: str, buffer: torch.Tensor) -> torch.Tensor | None:
    """The value of a meta buffer by its full name, where a rule knows it."""
    path, _, last = name.rpartition(".")
    return _value(model.get_submodule(path), last, buffer, torch.device("cpu"))


def _value(module: torch.nn.Module, name: str, buffer: torch.Tensor, device: torch.device) -> torch.Tensor | None:
    return next((value for rule in _RULES if (value := rule(module, name, buffer, device)) is not None), None)


def _running_statistics(module: Any, name: str, buffer: torch.Tensor, device: torch.device) -> torch.Tensor | None:
    """torch's normalizations start at mean 0, variance 1, count 0."""
    start = {"running_mean": 0, "running_var": 1, "num_batches_tracked": 0}.get(name)
    return None if start is None else torch.full_like(buffer, start, device=device)


def _of_configuration(module: Any, name: str, buffer: torch.Tensor, device: torch.device) -> torch.Tensor | None:
    """transformers' rotary embeddings: made from a configuration alone, without parameters, so made again."""
    if not hasattr(module, "config") or any(True for _ in module.parameters()):
        return None
    try:
        with torch.device(device):
            value = type(module)(module.config)._buffers[name]
    except Exception:  # its class wants other arguments: then this rule does not know
        return None
    return value.to(buffer.dtype) if value is not None and value.shape == buffer.shape else None


def _positions(module: Any, name: str, buffer: torch.Tensor, device: torch.device) -> torch.Tensor | None:
    """0, 1, 2, .. in a row, as transformers' embeddings keep them."""
    if name != "position_ids" or buffer.dtype != torch.int64:
        return None
    return torch.arange(buffer.shape[-1], device=device).expand(buffer.shape).clone()


_RULES = (_running_statistics, _of_configuration, _positions)
