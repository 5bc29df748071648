"""Phase diagram: what trains, over two numeric axes (depth and gain, say), with the theory's line.

Axes are numeric factors, and ``scale`` where arms differ in it alone. More factors than two give a panel each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fanin.report.numbers import short
from fanin.study.analysis import Analysis, Summary, label, outcome_name
from fanin.study.report.canvas import INK, Drawing, ink_on, panels, plain, titled
from fanin.study.report.rates import shade
from fanin.study.report.theory import critical_scale
from fanin.study.spec import Arm, Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Theory = Callable[[Mapping[str, Any], Arm], Mapping[str, float]]
"""(levels, arm) -> {axis: value at which theory draws its line}."""
FIRST = ("scale", "gain", "std")
"""Axes that lie along x where there is a choice."""
MOST_NUMBERS = 90
"""Cells of a panel that still hold their number."""


@dataclass(frozen=True)
class Point:
    """One arm in one condition: where it stands on the axes, in which panel, and how it fared."""

    x: float
    y: float
    panel: str
    levels: Mapping[str, Any]
    arm: Arm
    summary: Summary


def phase(analysis: Analysis, theory: Theory = critical_scale) -> Drawing | None:
    """None where the study has no two numeric axes.

    Args:
        theory: where it draws a line, for the levels of a panel.
    """
    names = axes_of(analysis.study)
    if names is None:
        return None
    points = list(_points(analysis, *names))
    titles = list(dict.fromkeys(point.panel for point in points))
    figure, grid = panels(len(titles), most=3, height=3.0)
    fine = [value for point in points if math.isfinite(value := _median(point.summary))]
    for axes, title in zip(grid, titles):
        _panel(axes, [p for p in points if p.panel == title], names, fine, theory)
        titled(axes, title or "all runs")
    text = (
        f"Median {outcome_name(analysis.study)} at the chosen learning rate; bright is good. "
        "×: half of the runs or more stalled, diverged or failed. Dashed: where theory has the signal keep its size "
        "from layer to layer, if it says so for the panel."
    )
    return Drawing("phase", f"{names[1]} × {names[0]}", text, figure)


def axes_of(study: Study) -> tuple[str, str] | None:
    """Two numeric axes: x, then y; None where there are fewer."""
    found = [name for name, levels in study.factors.items() if len(levels) > 1 and all(map(_is_number, levels))]
    if _scaled(study):
        found.append("scale")
    if len(found) < 2:
        return None
    found.sort(key=lambda name: FIRST.index(name.rpartition(".")[2]) if name.rpartition(".")[2] in FIRST else 9)
    return found[0], found[1]


def _is_number(level: Any) -> bool:
    return isinstance(level, (int, float)) and not isinstance(level, bool)


def _scaled(study: Study) -> bool:
    """Whether some arms differ in their scale alone."""
    groups = [_start(arm) for arm in study.arms]
    return len({arm.scale for arm in study.arms}) > 1 and len(set(groups)) < len(groups)


def _start(arm: Arm) -> str:
    """What an arm is, its name and scale aside."""
    return str(sorted(replace(arm, scale=1.0).start.items()))


def _points(analysis: Analysis, x: str, y: str) -> Iterator[Point]:
    study = analysis.study
    several = len({_start(arm) for arm in study.arms}) > 1
    for s in analysis.summaries:
        if not s.values:
            continue
        arm, levels = study.arm(s.arm), dict(s.condition)
        case = study.cases.get(str(levels.get("case")), {})
        if "scale" in (x, y):
            levels.setdefault("scale", arm.scale)
            named = (arm.recipe or arm.name) if several else ""
        else:
            named = arm.name if len(study.arms) > 1 else ""
        rest = label(tuple((k, v) for k, v in levels.items() if k not in (x, y)))
        panel = ", ".join(part for part in (str(named), rest) if part)
        yield Point(float(levels[x]), float(levels[y]), panel, {**study.task.levels, **case, **levels}, arm, s)


def _panel(axes: Axes, points: Sequence[Point], names: tuple[str, str], fine: Sequence[float], theory: Theory) -> None:
    plain(axes)
    axes.grid(visible=False)
    xs, ys = (sorted({getattr(point, side) for point in points}) for side in "xy")
    for point in points:
        place = (xs.index(point.x), ys.index(point.y))
        _cell(axes, place, _median(point.summary), fine, _lost(point.summary), len(points) <= MOST_NUMBERS)
    axes.set(xlim=(-0.5, len(xs) - 0.5), ylim=(-0.5, len(ys) - 0.5), xlabel=names[0], ylabel=names[1])
    axes.set_xticks(range(len(xs)), [f"{value:g}" for value in xs])
    axes.set_yticks(range(len(ys)), [f"{value:g}" for value in ys])
    _line(axes, points, names, (xs, ys), theory)


def _median(s: Summary) -> float:
    ordered = sorted(math.inf if math.isnan(value) else value for value in s.values.values())
    return ordered[(len(ordered) - 1) // 2]


def _lost(s: Summary) -> bool:
    return 2 * (s.trials - s.counts["trained"]) >= s.trials


def _cell(axes: Axes, place: tuple[int, int], value: float, fine: Sequence[float], lost: bool, numbers: bool) -> None:
    from matplotlib.patches import Rectangle

    x, y = place
    known = math.isfinite(value)
    color = shade(value, min(fine), max(fine)) if known else "none"
    axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=color, edgecolor="none" if known else INK["line"]))
    told = (short(value) if numbers and known else "") + (" ×" if lost and known and numbers else "×" if lost else "")
    if told:
        behind = {"facecolor": color, "edgecolor": "none", "pad": 1.5}  # so that the theory's line does not cross it
        ink = ink_on(color) if known else INK["muted"]
        axes.text(x, y, told, ha="center", va="center", fontsize=8, color=ink, bbox=behind, zorder=5)


def _line(
    axes: Axes,
    points: Sequence[Point],
    names: tuple[str, str],
    grids: tuple[Sequence[float], Sequence[float]],
    theory: Theory,
) -> None:
    """The theory's line through the panel, placed between the grid's values by their logarithms."""
    said = theory(points[0].levels, points[0].arm)
    for name, grid, draw in zip(names, grids, (axes.axvline, axes.axhline)):
        at = said.get(name.removeprefix("arm."), math.nan)
        if grid[0] <= at <= grid[-1]:
            place = float(np.interp(_log(at), [_log(v) for v in grid], range(len(grid))))
            draw(place, color="#ffffff", linewidth=3.2, alpha=0.8)
            draw(place, color="#111111", linewidth=1.6, linestyle="--")


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -1e9
