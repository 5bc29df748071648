"""What a plan would change in a model: a dry run."""

from __future__ import annotations

from typing import Any

import numpy as np

from fanin.recipes.plan import Change, Diff, Plan
from fanin.recipes.tensors import named_arrays


def difference(plan: Plan, model: Any) -> Diff:
    """One Change for every name of the plan, in its order, then for the names that only the model has."""
    now = {name: (shape, *_figures(array)) for name, shape, array in named_arrays(model, buffers=False)}
    changes = [_planned(plan, name, now.get(name)) for name in plan.entries]
    changes += [
        Change(n, "extra", shape, std, None, rms) for n, (shape, std, rms) in now.items() if n not in plan.entries
    ]
    return Diff(tuple(changes))


def _planned(plan: Plan, name: str, found: tuple | None) -> Change:
    entry = plan.entries[name]
    drawn = plan.entries[entry.tied_to] if entry.tied_to else entry
    if found is None:
        return Change(name, "missing", entry.shape, None, drawn.std, None, drawn.rms)
    shape, std, rms = found
    if shape != entry.shape:
        return Change(name, "shape", shape, std, drawn.std, rms, drawn.rms)
    if drawn.distribution is None:
        return Change(name, "keep", shape, std, std, rms, rms)
    return Change(name, "draw", shape, std, drawn.std, rms, drawn.rms)


def _figures(array: np.ndarray | None) -> tuple[float | None, float | None]:
    """(std, rms) in float64."""
    if array is None or array.size == 0 or array.dtype.kind not in "fc":
        return None, None
    values = np.abs(array - array.mean()) if array.dtype.kind == "c" else array
    with np.errstate(all="ignore"):
        return float(np.std(values, dtype=np.float64)), float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
