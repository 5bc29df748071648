"""What was observed in the networks, layer by layer, before the first and after the last step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from fanin.study.analysis import Analysis
from fanin.study.grid import Condition
from fanin.study.report.canvas import INK, Drawing, panels, plain, style_of, titled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WHEN = {"start": "before training", "end": "after training"}


def observed(analysis: Analysis) -> Drawing | None:
    """None where nothing was observed by layer."""
    drawn = list(_panels(analysis))
    if not drawn:
        return None
    figure, grid = panels(len(drawn), most=4, height=2.6)
    for axes, (condition, name, when) in zip(grid, drawn):
        _panel(axes, analysis, condition, name, when)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=8)
    text = "By layer, from the input on. Line: median of the seeds; band: from the lower to the upper quartile."
    return Drawing("observed", "Inside the networks", text, figure)


def _panels(analysis: Analysis) -> Iterator[tuple[Condition, str, str]]:
    for condition in analysis.results.conditions:
        for name in _names(analysis, condition):
            for when in WHEN:
                arms = [arm.name for arm in analysis.study.arms]
                if any(len(_values(analysis, condition, arm, name, when)) for arm in arms):
                    yield condition, name, when


def _names(analysis: Analysis, condition: Condition) -> list[str]:
    """Observers whose findings are lists of numbers."""
    found = {}
    for arm in analysis.study.arms:
        for trial in analysis.results.compared(condition, arm.name):
            for name, value in (trial.outcome.observed.get("start") or {}).items():
                if isinstance(value, (list, tuple)) and len(value) > 1 and not isinstance(value[0], (list, tuple)):
                    found[name] = None
    return list(found)


def _values(analysis: Analysis, condition: Condition, arm: str, name: str, when: str) -> np.ndarray:
    """(seeds, layers) of the runs that have them; NaN where a number was not finite."""
    rows = [
        [math.nan if v is None else float(v) for v in value]
        for trial in analysis.results.compared(condition, arm)
        if (value := (trial.outcome.observed.get(when) or {}).get(name))
    ]
    longest = max(map(len, rows), default=0)
    return np.array([row for row in rows if len(row) == longest])


def _panel(axes: Axes, analysis: Analysis, condition: Condition, name: str, when: str) -> None:
    plain(axes)
    everything = []
    for arm, (color, dashes) in style_of(analysis.study).items():
        values = _values(analysis, condition, arm, name, when)
        known = np.isfinite(values).any(axis=0) if len(values) else np.zeros(0, dtype=bool)
        if not known.any():
            continue
        layers = np.arange(1, values.shape[1] + 1)[known]
        low, middle, high = np.nanquantile(values[:, known], (0.25, 0.5, 0.75), axis=0)
        axes.fill_between(layers, low, high, color=color, alpha=0.15, linewidth=0)
        marker = "o" if len(layers) <= 12 else ""
        axes.plot(layers, middle, color=color, linestyle=dashes, linewidth=1.6, marker=marker, markersize=3, label=arm)
        everything.append(middle)
    flat = np.concatenate(everything) if everything else np.zeros(0)
    if len(flat) and (flat > 0).all() and flat.max() > 8 * flat.min():
        axes.set_yscale("log")
    titled(axes, f"{name.replace('_', ' ')} {WHEN[when]}", analysis.told(condition))
    axes.set_xlabel("layer")
    axes.xaxis.label.set_color(INK["muted"])
