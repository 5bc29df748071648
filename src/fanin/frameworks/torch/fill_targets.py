"""Which tensors a plan writes, and whether it can: every check that ``apply`` makes before it writes."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Collection
from typing import Any, NamedTuple

import torch
from torch.nn.parameter import is_lazy

from fanin.errors import PlanError
from fanin.fill.jobs import Job
from fanin.fill.laws import ELEMENTWISE, KINDS, STRUCTURED, law
from fanin.frameworks.torch.fill_storage import direct, obstacle, read_only


class Target(NamedTuple):
    """One tensor to be drawn, under the name and full shape that decide its values."""

    name: str
    shape: tuple[int, ...]
    distribution: Any
    tensor: torch.Tensor
    job: Job | None  # for one contiguous run of host memory


def targets(
    plan: Any,
    model: torch.nn.Module,
    *,
    keep: Collection[str] = (),
    frozen: bool = True,
    loaded: bool = True,
    prefix: str = "",
) -> list[Target]:
    """The plan's tensors in the model, each once. Errors: PlanError for the first that cannot be written."""
    inside = f"{prefix}." if prefix else ""
    parameters = dict(model.named_parameters(prefix, remove_duplicate=False))
    patterns = (keep,) if isinstance(keep, str) else tuple(keep)
    selective = bool(patterns) or not (frozen and loaded)
    found, addresses, seen = [], [], set()
    for name, entry in plan.entries.items():
        tensor = parameters.get(name)
        if tensor is None:
            if not name.startswith(inside):
                continue
            raise _unknown(name, parameters)
        if entry.distribution is None or getattr(entry, "tied_to", None) is not None:
            continue
        if selective and _kept(name, tensor, patterns, frozen, loaded):
            continue
        shape, distribution = tuple(entry.shape), entry.distribution
        job = direct(tensor, name, shape, distribution)
        target = Target(name, shape, distribution, tensor, job)
        if job is None or tensor.shape != shape or getattr(distribution, "kind", None) not in ELEMENTWISE:
            _check(target)  # not called for each of thousands of plain ones
        address = job.address if job else id(tensor)  # the same for two parameters that are one memory
        if not address or address not in seen:
            seen.add(address)
            found.append(target)
            addresses.append(job.address if job else 0)
    _check_writable(found, addresses)
    return found


def _kept(name: str, tensor: torch.Tensor, patterns: tuple[str, ...], frozen: bool, loaded: bool) -> bool:
    return (
        (not frozen and not tensor.requires_grad)
        or (not loaded and getattr(tensor, "_is_hf_initialized", False))
        or (bool(patterns) and any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns))
    )


def _check(target: Target) -> None:
    name, shape, distribution, tensor, job = target
    if job is None and is_lazy(tensor):
        raise PlanError(f"parameter {name!r} has no shape yet", cause="a lazy module", remedy="run one batch first")
    if tensor.shape != shape:
        raise PlanError(
            f"parameter {name!r} has shape {tuple(tensor.shape)}, the plan says {shape}",
            cause="the plan was made for another model or configuration",
            remedy="make the plan anew from this model",
        )
    trouble = None if job else obstacle(tensor)
    if trouble:
        raise PlanError(f"parameter {name!r} {trouble[0]}", remedy=trouble[1])
    kind = getattr(distribution, "kind", None)
    if kind in STRUCTURED and (len(shape) < 2 or tensor.is_complex()):
        raise PlanError(
            f"parameter {name!r} of shape {shape} and {tensor.dtype} cannot be drawn from {distribution}",
            cause="this law fills real tensors of two or more axes",
            remedy="give it Normal, Uniform or Constant in the plan",
        )
    if kind not in KINDS:
        law(distribution)  # says what is wrong with it


def _check_writable(found: list[Target], addresses: list[int]) -> None:
    locked = read_only(addresses)
    if locked is not None:
        raise PlanError(
            f"parameter {found[locked].name!r} lies in memory that cannot be written",
            cause="it was probably mapped from a file for reading only",
            remedy="clone it first: parameter.data = parameter.data.clone()",
        )


def _unknown(name: str, parameters: dict[str, Any]) -> PlanError:
    near = difflib.get_close_matches(name, parameters, n=1)
    return PlanError(
        f"the plan draws {name!r}, which the model does not have",
        cause=f"its nearest name is {near[0]!r}" if near else f"the model has {len(parameters)} parameters",
        remedy="make the plan from this model; wrappers such as torch.compile and DDP change the names",
    )
