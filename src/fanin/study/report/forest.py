"""Forest plot: every difference from the baseline with its interval, and the band of those that do not matter."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fanin.study.analysis import Analysis, outcome_name
from fanin.study.report.canvas import INK, Drawing, new, plain, style_of
from fanin.study.statistics import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROW = 0.24
"""Inches."""
GAP = 5 * "\u00a0"


@dataclass(frozen=True)
class Line:
    """One line of the plot: a comparison, or a condition's heading."""

    text: str
    comparison: Comparison | None = None
    scale: float = 1.0

    @property
    def values(self) -> tuple[float, float, float]:
        """Estimate, low, high, in the unit of the axis."""
        assert self.comparison is not None
        d = self.comparison.difference
        return d.estimate / self.scale, d.low / self.scale, d.high / self.scale


def forest(analysis: Analysis) -> Drawing | None:
    """None where nothing is compared."""
    lines = list(_lines(analysis))
    if not lines:
        return None
    study, margin = analysis.study, analysis.margin
    size = 100 * margin.size if margin.relative else margin.size
    figure = new(11.5, ROW * len(lines) + 0.95)
    axes, side = figure.subplots(1, 2, width_ratios=(1, 0.46), sharey=True)
    side.set_axis_off()
    side.set_xlim(0, 1)
    plain(axes)
    axes.grid(axis="y", visible=False)
    axes.axvspan(-size, size, color=INK["grid"], linewidth=0)
    axes.axvline(0, color=INK["muted"], linewidth=0.8)
    limits = _limits(lines, size)
    colors = style_of(study)
    for y, line in enumerate(lines):
        if line.comparison is not None:
            _interval(axes, y, line, colors[line.comparison.arm][0], limits)
            side.text(0, y, _told(line, margin.relative), va="center", color=INK["text"])
            side.text(1, y, line.comparison.verdict, va="center", ha="right", color=INK["muted"])
    axes.set(xlim=limits, ylim=(len(lines) - 0.4, -0.6))
    axes.set_yticks(range(len(lines)), [line.text if line.comparison is not None else "" for line in lines])
    for y, line in enumerate(lines):
        if line.comparison is None:  # a heading may be longer than any name: it stands inside
            axes.text(0.008, y, line.text, transform=axes.get_yaxis_transform(), va="center", color=INK["muted"])
    axes.tick_params(axis="y", length=0, labelcolor=INK["text"])
    unit = f" in % of {study.baseline}'s" if margin.relative else f", difference from {study.baseline}"
    axes.set_xlabel(f"← better{GAP}{outcome_name(study)}{unit}{GAP}worse →")
    return Drawing("differences", f"Difference from {study.baseline}", _text(analysis), figure)


def _text(analysis: Analysis) -> str:
    confidence = 100 * (1 - analysis.study.compare.alpha)
    return (
        f"Paired differences with {confidence:g} % intervals, each alone. Filled: shown after Holm's correction to "
        f"differ, or to be equivalent; hollow: neither. The band is the margin, {analysis.margin}, within which a "
        "difference does not matter. Arrows leave the plot."
    )


def _lines(analysis: Analysis) -> Iterator[Line]:
    """With one arm a condition is a line, with several it is a heading above its arms."""
    single = len(analysis.study.arms) == 2
    last = None
    for c in analysis.comparisons:
        if not single and c.task and c.task != last:
            yield Line(c.task)
        last = c.task
        yield Line((c.task or c.arm) if single else f"{c.arm}", c, _scale(analysis, c))


def _scale(analysis: Analysis, c: Comparison) -> float:
    """What one unit of the axis is: a hundredth of the baseline's outcome where the margin is relative."""
    if not analysis.margin.relative:
        return 1.0
    if c.difference.estimate and math.isfinite(c.relative_difference):
        return abs(c.difference.estimate / c.relative_difference) / 100
    base = next(s for s in analysis.summaries if s.label == c.task and s.arm == c.baseline)
    fine = [value for value in base.values.values() if math.isfinite(value)]
    return (abs(float(np.mean(fine))) or 1.0) / 100 if fine else 1.0


def _limits(lines: list[Line], margin: float) -> tuple[float, float]:
    """Far enough for the estimates and most intervals; a few enormous ones must not flatten the rest."""
    known = [line.values for line in lines if line.comparison is not None]
    middles = [abs(middle) for middle, _, _ in known if math.isfinite(middle)] or [0.0]
    ends = sorted(max(abs(low), abs(high)) for _, low, high in known)
    half = ends[(len(ends) - 1) // 2]
    usual = max(3 * margin, 1.5 * float(np.quantile(middles, 0.95)), 1.2 * half if math.isfinite(half) else 0.0)
    left, right = (max(2 * margin, min(usual, max(side))) for side in ([-v[1] for v in known], [v[2] for v in known]))
    return -1.08 * left, 1.08 * right


def _interval(axes: Axes, y: int, line: Line, color: str, limits: tuple[float, float]) -> None:
    c = line.comparison
    assert c is not None
    middle, low, high = line.values
    left, right = max(low, limits[0]), min(high, limits[1])
    if left < right:
        axes.plot([left, right], [y, y], color=color, linewidth=1.8, solid_capstyle="butt")
    for end, mark in ((limits[0], "<"), (limits[1], ">")):
        if low < end < high:
            axes.plot([end], [y], marker=mark, color=color, markersize=6, clip_on=False)
    if limits[0] <= middle <= limits[1]:
        face = color if c.verdict in ("better", "worse", "equivalent") else "none"
        axes.plot([middle], [y], marker="o", markersize=5.5, color=color, markerfacecolor=face, markeredgewidth=1.4)


def _told(line: Line, relative: bool) -> str:
    middle, low, high = (f"{value:+.0f}" if 100 <= abs(value) < 1e6 else f"{value:+.3g}" for value in line.values)
    if not math.isfinite(line.values[0]):
        return "diverged"
    return f"{middle}{' %' if relative else ''} ({low} to {high})"
