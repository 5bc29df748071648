"""Which tensors a plan writes, and whether it can: every check that ``apply`` makes before it writes."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Collection
from typing import Any, NamedTuple

import torch
from torch.nn.parameter import is_lazy

from fanin.errors import PlanError
from fanin.fill.laws import STRUCTURED, law
from fanin.frameworks.torch.fill_storage import obstacle, read_only


class Target(NamedTuple):
    """One tensor to be drawn, under the name and full shape that decide its values."""

    name: str
    shape: tuple[int, ...]
    distribution: Any
    tensor: torch.Tensor


def targets(
    plan: Any, model: torch.nn.Module, *, keep: Collection[str] = (), frozen: bool = True, loaded: bool = True
) -> list[Target]:
    """The plan's tensors in the model, each once. Errors: PlanError for the first that cannot be written."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    keep = (keep,) if isinstance(keep, str) else keep
    found, seen = [], set()
    for name, entry in plan.entries.items():
        if name not in parameters:
            raise _unknown(name, parameters)
        tensor = parameters[name]
        if _passed_over(name, entry, tensor, keep, frozen, loaded) or _identity(tensor) in seen:
            continue
        seen.add(_identity(tensor))
        target = Target(name, tuple(entry.shape), entry.distribution, tensor)
        _check(target)
        found.append(target)
    locked = read_only([target.tensor for target in found])
    if locked is not None:
        raise PlanError(
            f"parameter {found[locked].name!r} lies in memory that cannot be written",
            cause="it was probably mapped from a file for reading only",
            remedy="clone it first: parameter.data = parameter.data.clone()",
        )
    return found


def _passed_over(
    name: str, entry: Any, tensor: torch.Tensor, keep: Collection[str], frozen: bool, loaded: bool
) -> bool:
    return (
        entry.distribution is None
        or getattr(entry, "tied_to", None) is not None
        or (not frozen and not tensor.requires_grad)
        or (not loaded and getattr(tensor, "_is_hf_initialized", False))
        or any(fnmatch.fnmatchcase(name, pattern) for pattern in keep)
    )


def _identity(tensor: torch.Tensor) -> Any:
    """The same for two parameters that are one piece of memory."""
    if is_lazy(tensor) or tensor.device.type == "meta" or tensor.layout != torch.strided or _subclass(tensor):
        return id(tensor)
    return (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else id(tensor)


def _subclass(tensor: torch.Tensor) -> bool:
    return type(tensor) not in (torch.Tensor, torch.nn.Parameter)


def _check(target: Target) -> None:
    name, shape, distribution, tensor = target
    if is_lazy(tensor):
        raise PlanError(f"parameter {name!r} has no shape yet", cause="a lazy module", remedy="run one batch first")
    if tuple(tensor.shape) != shape:
        raise PlanError(
            f"parameter {name!r} has shape {tuple(tensor.shape)}, the plan says {shape}",
            cause="the plan was made for another model or configuration",
            remedy="make the plan anew from this model",
        )
    trouble = obstacle(tensor)
    if trouble:
        raise PlanError(f"parameter {name!r} {trouble[0]}", remedy=trouble[1])
    law(distribution)
    if distribution.kind in STRUCTURED and (len(shape) < 2 or tensor.is_complex()):
        raise PlanError(
            f"parameter {name!r} of shape {shape} and {tensor.dtype} cannot be drawn from {distribution}",
            cause="this law fills real tensors of two or more axes",
            remedy="give it Normal, Uniform or Constant in the plan",
        )


def _unknown(name: str, parameters: dict[str, Any]) -> PlanError:
    near = difflib.get_close_matches(name, parameters, n=1)
    return PlanError(
        f"the plan draws {name!r}, which the model does not have",
        cause=f"its nearest name is {near[0]!r}" if near else f"the model has {len(parameters)} parameters",
        remedy="make the plan from this model; wrappers such as torch.compile and DDP change the names",
    )
