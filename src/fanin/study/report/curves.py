"""Training curves: every seed, median and interquartile band, a colour an arm, a panel a condition."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fanin.study.analysis import Analysis
from fanin.study.grid import Condition
from fanin.study.report.canvas import INK, Drawing, panels, plain, style_of, titled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LINES = 3000
"""Curves of single seeds that a page can hold; beyond it only medians and bands are drawn."""


def curves(analysis: Analysis) -> Drawing | None:
    """None where no trial left a curve."""
    results = analysis.results
    drawn = [c for c in results.conditions if any(len(_curves(analysis, c, a.name)[1]) for a in analysis.study.arms)]
    if not drawn:
        return None
    figure, grid = panels(len(drawn), most=3, height=2.7)
    every = sum(not trial.choosing for trial in results.trials) <= MOST_LINES
    for axes, condition in zip(grid, drawn):
        _panel(axes, analysis, condition, every)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=8)
    text = (
        "Training loss, the mean of the steps since the last point, at the chosen learning rates. Thick: median of the "
        "seeds; band: from the lower to the upper quartile; thin: every seed. A curve ends where its run diverged."
    )
    return Drawing("curves", "Training curves", text, figure)


def _curves(analysis: Analysis, condition: Condition, arm: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps (t,), losses (seeds, t) with NaN after a run diverged."""
    found = [t.outcome for t in analysis.results.compared(condition, arm) if len(t.outcome.curve)]
    if not found:
        return np.empty(0), np.empty((0, 0))
    steps = max((out.steps for out in found), key=len)
    values = np.full((len(found), len(steps)), np.nan)
    for row, out in zip(values, found):
        row[: len(out.curve)] = [np.nan if v is None else v for v in out.curve]
    values[~np.isfinite(values)] = np.nan
    return np.asarray(steps, dtype=float), values


def _panel(axes: Axes, analysis: Analysis, condition: Condition, every: bool) -> None:
    plain(axes)
    all_values = []
    for arm, (color, dashes) in style_of(analysis.study).items():
        steps, values = _curves(analysis, condition, arm)
        if not len(steps):
            continue
        all_values.append(values)
        for row in values if every else ():
            axes.plot(steps, row, color=color, linewidth=0.6, alpha=0.3)
        low, middle, high = _quartiles(values)
        axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
        axes.plot(steps, middle, color=color, linestyle=dashes, linewidth=1.8, label=arm)
    _limits(axes, np.concatenate([values.ravel() for values in all_values]))
    titled(axes, analysis.told(condition) or "all runs")
    axes.set_xlabel("step")
    axes.set_ylabel("training loss")
    axes.yaxis.label.set_color(INK["muted"])


def _quartiles(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Over the seeds, where a diverged run is worse than any other; NaN where a quartile has diverged."""
    worst = np.where(np.isnan(values), np.inf, values)
    low, middle, high = np.quantile(worst, (0.25, 0.5, 0.75), axis=0, method="inverted_cdf")
    return tuple(np.where(np.isfinite(q), q, np.nan) for q in (low, middle, high))  # type: ignore[return-value]


def _limits(axes: Axes, values: np.ndarray) -> None:
    """A log scale where losses span a factor of eight; what explodes must not hide the rest."""
    values = values[np.isfinite(values)]
    if not len(values):
        return
    low, top = float(values.min()), float(min(np.quantile(values, 0.98), 30 * np.median(values)))
    if low > 0 and top > 8 * low:
        from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if top < 300 * low else (1,)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_ylim(low / 1.15, 1.15 * top)
    elif top > low:
        axes.set_ylim(low - 0.05 * (top - low), top + 0.08 * (top - low))
