"""Curves of all scales against the learning rate and against the effective one: where they collapse, one line."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from fanin.study.analysis import Analysis, outcome_name
from fanin.study.effective import Curves, scaled
from fanin.study.report.canvas import INK, Drawing, panels, plain, style_of, titled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fanin.study.statistics import Collapse

POWERS = {0: "learning rate", 2: "learning rate / scale²"}


def collapse(analysis: Analysis) -> Drawing | None:
    """None where arms do not differ in scale alone, or rates were not all run."""
    found = analysis.collapses
    if not found:
        return None
    figure, grid = panels(2 * len(found), most=4, height=2.7)
    for i, (curves, told) in enumerate(found):
        for axes, power in zip(grid[2 * i :], POWERS):
            _panel(axes, analysis, curves, told, power)
    for axes in grid[::4]:
        axes.set_ylabel(outcome_name(analysis.study))
        axes.yaxis.label.set_color(INK["muted"])
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=8)
    text = (
        f"Mean {outcome_name(analysis.study)} on the seeds on which rates are chosen, a line a scale; a hollow point "
        "is a diverged run, shown at the largest value seen. R²: the share of the variance of the logarithm that the "
        "curves of the other scales explain, with its interval."
    )
    return Drawing("collapse", "Effective learning rate", text, figure)


def _panel(axes: Axes, analysis: Analysis, curves: Curves, told: Collapse, power: int) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    plain(axes)
    style = style_of(analysis.study)
    worst = float(np.nanmax(curves.values))
    for i, (arm, scale) in enumerate(zip(scaled(analysis.study), curves.scales)):
        x = np.array(curves.rates) / scale**power
        runs = curves.values[:, i]
        y = np.exp(np.log(np.where(np.isnan(runs), worst, runs)).mean(0))
        color, dashes = style[arm.name]
        axes.plot(x, y, color=color, linestyle=dashes, linewidth=1.4, label=arm.name)
        lost = np.isnan(runs).any(0)
        axes.plot(x[~lost], y[~lost], "o", color=color, markersize=3)
        axes.plot(x[lost], y[lost], "o", color=color, markersize=3, fillstyle="none")
    axes.set(xscale="log", yscale="log", xlabel=POWERS[power])
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    share = told.by_effective if power else told.by_rate
    told_share = f"R² {_told(share.estimate)} ({_told(share.low)} to {_told(share.high)})"
    titled(axes, analysis.told(curves.condition), told_share)


def _told(share: float) -> str:
    return f"{share:.2f}" if math.isfinite(share) else "–"
