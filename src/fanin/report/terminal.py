"""The report in a terminal: findings first, then curves against depth, then the tensors by module."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from typing import Any

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fanin.checks.finding import Finding
from fanin.report.numbers import NONE, count, percent, short, span, sparkline
from fanin.report.pairs import Pair, notes, pairs
from fanin.report.record import Report
from fanin.report.tree import Line, findings_by_name, lines, main_path

STYLES = {"error": "bold red", "warning": "yellow", "info": "cyan"}
MARKS = {"error": "✗", "warning": "!", "info": "i"}
MOST_LINES, MOST_OF_A_CODE = 150, 3


def to_text(report: Report, *, width: int = 110, color: bool = False, detail: bool = False) -> str:
    """The report as text, with terminal colours where ``color`` is true."""
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        highlight=False,
    )
    console.print(renderable(report, width, detail))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def renderable(report: Report, width: int = 110, detail: bool = False) -> RenderableType:
    """What rich prints."""
    parts: list[RenderableType] = [_heading(report, width), *_findings(report)]
    if len(report.signals):
        parts += [_curves(report, width), _table(report, width, detail)]
    parts += [Text(f"note: {note}", style="dim") for note in notes(report)]
    return Group(*parts)


def _heading(report: Report, width: int) -> Text:
    facts, tensors = report.facts, len(pairs(report))
    parts = []
    if facts.get("parameters") is not None:
        parts.append(f"{count(facts['parameters'])} parameters")
    parts.append(f"{tensors} tensor{'' if tensors == 1 else 's'}")
    parts += [text for text in (_loss(facts), _accuracy(facts)) if text]
    if facts.get("seconds") is not None:
        parts.append(f"{facts['seconds']:.1f} s")
    figures = " · ".join(parts)
    gap = "  " if cell_len(report.target) + cell_len(figures) + 2 <= width else "\n"
    return Text.assemble((report.target, "bold"), gap, (figures, "dim"))


def _loss(facts: Mapping[str, Any]) -> str:
    """Measured, predicted, and what knowing nothing costs."""
    said = {"predicted": facts.get("predicted_loss"), "expected": facts.get("expected_loss")}
    rest = [f"{word} {value:.4g}" for word, value in said.items() if value is not None]
    if facts.get("loss") is None:
        return f"loss {', '.join(rest)}" if rest else ""
    return f"loss {facts['loss']:.4g}" + (f" ({', '.join(rest)})" if rest else "")


def _accuracy(facts: Mapping[str, Any]) -> str:
    measured, predicted = facts.get("accuracy"), facts.get("predicted_accuracy")
    if measured is None:
        return "" if predicted is None else f"accuracy predicted {predicted:.1%}"
    return f"accuracy {measured:.1%}" + ("" if predicted is None else f" (predicted {predicted:.1%})")


def _findings(report: Report) -> Iterator[RenderableType]:
    if not report.findings:
        yield Text("no findings: the signal and the gradient start right\n", style="green")
        return
    yield Text("")
    by_code: dict[tuple[str, str], list[Finding]] = {}
    for finding in report.findings:
        by_code.setdefault((finding.severity, finding.code), []).append(finding)
    for same in by_code.values():
        said: set[tuple[str, str]] = set()  # the same cause and cure once
        for finding in same[:MOST_OF_A_CODE]:
            yield from _finding(finding, said)
        if len(same) > MOST_OF_A_CODE:
            yield Padding(Text(_others(same[MOST_OF_A_CODE:]), style=STYLES[same[0].severity]), (0, 0, 0, 2))
    yield Text("")


def _others(rest: list[Finding]) -> str:
    names = [finding.name for finding in rest]
    listed = ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:2])}, … {names[-1]}"
    return f"and {len(names)} more {rest[0].code}: {listed}"


def _finding(finding: Finding, said: set[tuple[str, str]]) -> Iterator[RenderableType]:
    name = finding.name or "the model"
    yield Text.assemble((finding.severity, STYLES[finding.severity]), " ", (f"{finding.code} {name}", "bold"))
    details = [("seen", finding.message), ("why", finding.cause), ("fix", finding.fix)]
    if finding.expected is not None:
        low, high = finding.expected
        details.insert(1, ("expected", f"{short(low)} to {short(high)}, got {short(finding.measured)}"))
    for word, text in details:
        if text and (word, text) not in said:
            yield _detail(word, text)
    said.update(details)


def _detail(word: str, text: str) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=8, justify="right", style="dim")
    grid.add_column()
    grid.add_row(word, Text(text))
    return Padding(grid, (0, 0, 0, 2))


def _curves(report: Report, width: int) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    rows = main_path(report)
    curves = {
        "rms": [row.rms for row in rows],
        "between samples": [row.extra.get("spread") for row in rows],
        "gradient rms": [row.grad_rms for row in rows],
    }
    for word, values in curves.items():
        known = [v for v in values if v is not None]
        if known:
            ends = f"{short(known[0])} → {short(known[-1])}"
            grid.add_row(
                Text(word, style="dim"), Text(sparkline(values, max(20, width - 46)), style="blue"), Text(ends)
            )
    return Padding(grid, (0, 0, 1, 0))


def _table(report: Report, width: int, detail: bool) -> RenderableType:
    """As many columns as fit: shape goes first, then what is predicted of the gradient, then the op; never a digit."""
    shown = lines(report, detail=detail)
    by_name = findings_by_name(report)
    columns = [("", "mark"), ("tensor", "label"), ("op", "op"), ("shape", "shape"), *_columns(report)]
    rows = [[_cell(line, kind, by_name) for _, kind in columns] for line in shown[:MOST_LINES]]
    widths = [
        max(*map(cell_len, word.split("\n")), *(cell.cell_len for cell in cells))
        for (word, _), cells in zip(columns, zip(*rows))
    ]
    kept = set(range(len(columns)))
    for kind in ("shape", "error.grad_rms", "predicted.grad_rms", "op", "predicted.rms"):
        if sum(widths[i] + 2 for i in kept) > width:
            kept -= {i for i in kept if columns[i][1] == kind}
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False, pad_edge=False)
    for i in sorted(kept):
        word, kind = columns[i]
        table.add_column(
            word,
            justify="right" if "." in kind else "left",
            no_wrap=True,
            overflow="ellipsis",
            min_width=0 if kind == "label" else widths[i],
        )
    for row in rows:
        table.add_row(*(row[i] for i in sorted(kept)))
    if len(shown) > MOST_LINES:
        return Group(table, Text(f"… {len(shown) - MOST_LINES} more lines; --html shows all", style="dim"))
    return table


def _columns(report: Report) -> list[tuple[str, str]]:
    """Heading and kind of each column of numbers; one that would be empty is left out."""
    both = report.predicted is not None and report.measured is not None
    columns = []
    for field, word in (("rms", "rms"), ("grad_rms", "gradient")):
        sides = []
        for side, signals in (("predicted", report.predicted), ("measured", report.measured)):
            rows = signals.rows if signals is not None else ()
            if any(getattr(row, field) is not None for row in rows):
                sides.append(side)
        columns += [(f"{word}\n{side}" if both else word, f"{side}.{field}") for side in sides]
        if len(sides) == 2:
            columns.append(("off\nby", f"error.{field}"))
    return columns


def _cell(line: Line, kind: str, by_name: dict[str, list[Finding]]) -> Text:
    if kind == "mark":
        return _mark([f for pair in line.pairs for f in by_name.get(pair.name, ())])
    if kind == "label":
        label = Text("  " * line.depth + line.label, style="" if line.pairs else "dim")
        return label.append(f"  ×{line.repeats}", style="magenta") if line.repeats > 1 else label
    if not line.pairs:
        return Text("")
    row = line.pairs[0].row
    if kind in ("op", "shape"):
        return Text(row.op if kind == "op" else "×".join(map(str, row.shape)), style="dim")
    return _number(line.pairs, kind)


def _mark(found: list[Finding]) -> Text:
    for severity in STYLES:  # the gravest first
        if any(finding.severity == severity for finding in found):
            return Text(MARKS[severity], style=STYLES[severity])
    return Text("")


def _number(found: tuple[Pair, ...], kind: str) -> Text:
    side, _, field = kind.partition(".")
    if side == "error":
        return _error(found, field)
    rows = [getattr(pair, side) for pair in found]
    values = [getattr(row, field) for row in rows if row is not None]
    ruleless = sum(value is None for value in values) if kind == "predicted.rms" else 0
    if ruleless:
        return Text("no rule" if ruleless == len(values) else f"{span(values)}, {ruleless} no rule", style="yellow")
    if any(value is not None and not math.isfinite(value) for value in values):
        return Text(span(values), style=STYLES["error"])
    inexact = side == "predicted" and any(not row.exact for row in rows if row is not None)
    return Text(("~" if inexact else "") + span(values))


def _error(found: tuple[Pair, ...], field: str) -> Text:
    """The largest error of the line."""
    sides = [(getattr(p.predicted, field, None), getattr(p.measured, field, None)) for p in found]
    known = [(p, m) for p, m in sides if p and m]
    if not known:
        return Text(NONE)
    predicted, measured = max(known, key=lambda pm: max(pm[0] / pm[1], pm[1] / pm[0]))
    ratio = max(measured / predicted, predicted / measured)
    return Text(percent(predicted, measured), style="red" if ratio > 1.1 else "dim")
