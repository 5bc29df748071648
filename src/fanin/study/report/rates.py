"""Heat map of learning rate x arm, a panel a condition: what the rates were chosen from."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from fanin.report.numbers import short
from fanin.study.analysis import Analysis, outcome_name
from fanin.study.grid import Condition
from fanin.study.report.canvas import INK, Drawing, ink_on, panels, plain, titled

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def rates(analysis: Analysis) -> Drawing | None:
    """None where no arm had a choice."""
    found = analysis.results.choices
    drawn = [c for c in analysis.results.conditions if any(len(_scores(found, c, a)) > 1 for a in _arms(analysis))]
    if not drawn:
        return None
    arms = len(analysis.study.arms)
    figure, grid = panels(len(drawn), most=3, height=0.75 + 0.3 * arms)
    for axes, condition in zip(grid, drawn):
        _panel(axes, analysis, condition)
    text = (
        f"Mean {outcome_name(analysis.study)} over the seeds on which rates are chosen, "
        "which no comparison uses. Framed: the chosen rate. ×: a run diverged. Colours are by panel, bright is good."
    )
    return Drawing("rates", "Learning rates", text, figure)


def _arms(analysis: Analysis) -> list[str]:
    return [arm.name for arm in analysis.study.arms]


def _scores(choices: Any, condition: Condition, arm: str) -> dict[float, float]:
    choice = choices.get((condition, arm))
    return dict(choice.scores) if choice else {}


def _panel(axes: Axes, analysis: Analysis, condition: Condition) -> None:
    choices, arms = analysis.results.choices, _arms(analysis)
    scores = {arm: _scores(choices, condition, arm) for arm in arms}
    columns = sorted({rate for row in scores.values() for rate in row})
    fine = [v for row in scores.values() for v in row.values() if math.isfinite(v)]
    plain(axes)
    axes.grid(visible=False)
    for y, arm in enumerate(arms):
        for rate, score in scores[arm].items():
            _cell(axes, columns.index(rate), y, score, fine)
        chosen = choices.get((condition, arm))
        if chosen and len(chosen.scores) > 1:
            _frame(axes, columns.index(chosen.rate), y)
    axes.set(xlim=(-0.55, len(columns) - 0.45), ylim=(len(arms) - 0.45, -0.55))
    axes.set_xticks(range(len(columns)), [f"{rate:g}" for rate in columns])
    axes.set_yticks(range(len(arms)), arms)
    axes.tick_params(length=0)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    titled(axes, analysis.told(condition) or "learning rate")


def _cell(axes: Axes, x: int, y: int, score: float, fine: list[float]) -> None:
    from matplotlib.patches import Rectangle

    if not math.isfinite(score):
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor="none", edgecolor=INK["line"], linewidth=0.8))
        axes.text(x, y, "×", ha="center", va="center", color=INK["muted"])
        return
    color = shade(score, min(fine), max(fine))
    axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=color, edgecolor="none"))
    axes.text(x, y, short(score), ha="center", va="center", color=ink_on(color), fontsize=8)


def _frame(axes: Axes, x: int, y: int) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(
        Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, facecolor="none", edgecolor=INK["text"], linewidth=2.2, zorder=3)
    )


def shade(value: float, low: float, high: float) -> Any:
    """A colour between the best (bright) and the worst (dark), by ratio where all values are positive."""
    from matplotlib import colormaps

    if low > 0:
        value, low, high = math.log(value), math.log(low), math.log(high)
    place = (value - low) / (high - low) if high > low else 0.0
    return colormaps["viridis"](0.95 - 0.85 * place)
