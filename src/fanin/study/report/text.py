"""A study's report in a terminal: the verdict first, then warnings, comparisons, arms."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from fanin.report.numbers import NONE, short
from fanin.study.analysis import Analysis, Summary, label, outcome_name
from fanin.study.report.manifest import unused_trials
from fanin.study.statistics import Collapse, Comparison, Interval

STYLES = {"better": "green", "worse": "red", "equivalent": "cyan", "undecided": "yellow", "cannot be shown": "dim"}
STATUS_STYLES = {"stalled": "yellow", "diverged": "red", "failed": "bold red"}


def to_text(analysis: Analysis, facts: Mapping[str, Any], *, width: int = 110, color: bool = False) -> str:
    """The report as text, with terminal colours where ``color`` is true."""
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        highlight=False,
    )
    console.print(Group(*_parts(analysis, facts)))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def _parts(analysis: Analysis, facts: Mapping[str, Any]) -> Iterator[RenderableType]:
    yield _heading(analysis, facts)
    if analysis.study.question:
        yield Text(analysis.study.question, style="italic")
    yield Padding(Text(analysis.verdict), (1, 0))
    for warning in analysis.warnings:
        grid = Table.grid(padding=(0, 1))
        grid.add_row(Text("!", style="yellow"), Text(warning))
        yield grid
    if analysis.comparisons:
        yield Padding(_comparisons(analysis), (1 if analysis.warnings else 0, 0, 0, 0))
    if analysis.overall:
        yield Padding(_overall(analysis), (1, 0, 0, 0))
    if analysis.collapses:
        yield Padding(_collapses(analysis), (1, 0, 0, 0))
    yield Padding(_arms(analysis), (1, 0, 0, 0))


def _heading(analysis: Analysis, facts: Mapping[str, Any]) -> Text:
    study, results = analysis.study, analysis.results
    done = len(results.trials)
    seconds = sum(trial.outcome.seconds for trial in results.trials)
    figures = [f"{done} of {done + analysis.missing} trials" if analysis.missing else f"{done} trials"]
    figures += [f"{len(study.arms)} arms", f"{study.seeds.compare} seeds", f"{seconds:.0f} s of training"]
    figures += [f"{unused} stored trials not used"] if (unused := unused_trials(results, facts)) else []
    size = f" ({facts['size']})" if facts.get("size") else ""
    return Text.assemble((study.name + size, "bold"), "  ", (" · ".join(figures), "dim"))


def _table(*columns: tuple[str, str]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False, pad_edge=False)
    for word, justify in columns:
        table.add_column(word, justify=justify, no_wrap=word != "condition", overflow="fold")  # type: ignore[arg-type]
    return table


class Grouped:
    """A table whose rows stand in groups, each below a line of its own: a condition may be longer than any column.

    Args:
        table: of one line a row, with a header.
        groups: label of each row.
    """

    def __init__(self, table: Table, groups: Sequence[str]):
        self.table, self.groups = table, groups

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        header, *rows = console.render_lines(self.table, options, pad=False)
        last = ""
        for group, line in zip(("", *self.groups), (header, *rows)):
            if group != last:
                yield Text(f"{group}:", style="dim")
            last = group
            yield from line
            yield Segment.line()


def _comparisons(analysis: Analysis) -> Grouped:
    """Differences from the baseline."""
    columns = [(f"against {analysis.study.baseline}", "left"), ("pairs", "right")]
    columns += [(outcome_name(analysis.study), "right"), ("interval", "left"), ("", "right")]
    table = _table(*columns, ("p", "right"), ("p equal", "right"), ("", "left"))
    for c in analysis.comparisons:
        table.add_row(*_comparison(c))
    return Grouped(table, [c.task for c in analysis.comparisons])


def _comparison(c: Comparison) -> list[Text]:
    d = c.difference
    median = " median" if c.statistic == "median" else ""
    return [
        Text(c.arm),
        Text(str(c.n)),
        Text(signed(d.estimate) + median),
        Text(f"{signed(d.low)} to {signed(d.high)}", style="dim"),
        Text(percent_text(c.relative_difference)),
        Text(p_text(c.p_holm)),
        Text(p_text(c.tost_p_holm)),
        Text(c.verdict, style=STYLES[c.verdict]),
    ]


def _overall(analysis: Analysis) -> Table:
    baseline = analysis.study.baseline
    table = _table(
        ("over all conditions", "left"),
        ("verdict", "left"),
        ("difference of IQM", "right"),
        (f"chance to beat {baseline}", "right"),
    )
    for o in analysis.overall:
        verdict = o.pooled.comparison.verdict if o.pooled else NONE
        chance = interval_text(o.improvement, percent=True)
        table.add_row(o.arm, verdict, interval_text(o.difference, percent=True), chance)
    return table


def _collapses(analysis: Analysis) -> Table:
    """What explains the outcomes of all scales: the learning rate, or the effective one."""
    columns = [("condition", "left")] if analysis.labelled else []
    columns += [("R² of rate", "left"), ("of rate/scale²", "left"), ("best power of scale", "left")]
    table = _table(*columns)
    for curves, told in analysis.collapses:
        cells = [interval_text(found) for found in (told.by_rate, told.by_effective, known_power(told))]
        table.add_row(*([Text(label(curves.condition), style="dim")] if analysis.labelled else []), *cells)
    return table


def known_power(told: Collapse) -> Interval | None:
    """None where no power explains anything."""
    return told.power if told.best.estimate > 0 else None


def _arms(analysis: Analysis) -> Grouped:
    table = _table(("arm", "left"), ("rate", "right"), ("mean", "right"), ("IQM", "right"), ("", "left"))
    for s in analysis.summaries:
        table.add_row(Text(s.arm), _rate(s), Text(interval_text(s.mean)), Text(interval_text(s.iqm)), _counts(s))
    return Grouped(table, [s.label for s in analysis.summaries])


def _rate(s: Summary) -> Text:
    if s.rate is None:
        return Text(NONE)
    mark = {"lowest": "<", "highest": ">"}.get(s.edge or "", "")
    return Text(f"{mark}{s.rate:g}", style="yellow" if mark else "")


def _counts(s: Summary) -> Text:
    """What did not train."""
    told = [(f"{s.counts[status]} {status}", style) for status, style in STATUS_STYLES.items() if s.counts[status]]
    return Text(", ").join(Text(text, style=style) for text, style in told)


# --- numbers --------------------------------------------------------------------------------------------------------


def signed(value: float) -> str:
    """Example:
    >>> signed(0.01234), signed(-2.0), signed(float("inf")), signed(0.0)
    ('+0.0123', '-2', '+inf', '0')
    """
    return ("+" if value > 0 else "") + short(value)


def percent_text(fraction: float) -> str:
    """Example:
    >>> percent_text(0.412), percent_text(-3.471), percent_text(0.00123), percent_text(float("nan"))
    ('+41 %', '-347 %', '+0.12 %', '–')
    """
    value = 100 * fraction
    if math.isnan(value):
        return NONE
    return f"{value:+.0f} %" if 100 <= abs(value) < 1e6 else f"{value:+.2g} %"


def p_text(p: float) -> str:
    """Example:
    >>> p_text(0.03125), p_text(0.00002), p_text(float("nan"))
    ('0.031', '<.0001', '–')
    """
    if math.isnan(p):
        return NONE
    return "<.0001" if p < 1e-4 else f"{p:.2g}"


def interval_text(found: Interval | None, *, percent: bool = False) -> str:
    """``0.3 (0.28 to 0.32)``, or percentages."""
    if found is None:
        return NONE
    values = (found.estimate, found.low, found.high)
    if percent:
        middle, low, high = (f"{100 * value:.3g}" for value in values)
        return f"{middle} % ({low} to {high})"
    middle, low, high = map(short, values)
    return f"{middle} ({low} to {high})"
