"""Values that a plan is about to overwrite, kept so that they can be put back."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch

from fanin.errors import PlanError
from fanin.frameworks.torch.fill_sharded import local

Kept = tuple[str, dict[str, torch.Tensor]]

_KEPT: WeakKeyDictionary[torch.nn.Module, list[Kept]] = WeakKeyDictionary()


def remember(plan: Any, model: torch.nn.Module) -> None:
    """Copy what the plan draws over, in this process's memory; calls can be nested.

    Errors: PlanError where a parameter has no values yet (meta device).
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    copies: dict[str, torch.Tensor] = {}
    for name in plan.drawn:
        tensor = parameters.get(name)
        if tensor is None:
            continue  # applying the plan will say so
        if tensor.is_meta:
            raise PlanError(
                f"{name!r} is on the meta device: there is nothing to go back to", remedy="apply without undo=True"
            )
        copies[name] = local(tensor).detach().clone()
    _KEPT.setdefault(model, []).append((plan.fingerprint, copies))


def forget(model: torch.nn.Module) -> None:
    """Drop the copies made last: what they were made for did not happen."""
    _KEPT[model].pop()


def restore(plan: Any, model: torch.nn.Module) -> torch.nn.Module:
    """Put back, bit for bit, what the last apply of this plan with ``undo=True`` overwrote.

    Errors: PlanError where no such copies are kept.
    """
    stack = _KEPT.get(model, [])
    at = next((i for i in reversed(range(len(stack))) if stack[i][0] == plan.fingerprint), None)
    if at is None:
        raise PlanError(
            f"nothing is kept to undo plan {plan.fingerprint[:8]} on this {type(model).__name__}",
            cause="it was applied without undo=True, to another model object, or undone already",
            remedy="apply with undo=True to keep a copy of what is overwritten",
        )
    _, copies = stack.pop(at)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    with torch.no_grad():
        for name, values in copies.items():
            local(parameters[name]).copy_(values)
    return model
