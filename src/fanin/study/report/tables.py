"""A study as tables: every trial, every comparison, every chosen rate; as CSV, Parquet and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fanin.errors import MissingDependency, OutputError
from fanin.report.html import write
from fanin.study.analysis import Analysis, analyse, label, level
from fanin.study.outcome import STATUSES
from fanin.study.report.manifest import about, manifest, unused_trials
from fanin.study.results import Results, Trial
from fanin.study.spec import OUTCOMES
from fanin.study.statistics import Interval

Row = dict[str, Any]
FORMAT = 1
"""Of the JSON report; grows where a key changes its meaning."""


def trial_rows(results: Results) -> list[Row]:
    """A row a trial: where it stands, its seeds, what it gave, what was observed."""
    return [_trial(trial) for trial in results.trials]


def _trial(trial: Trial) -> Row:
    cell, out = trial.cell, trial.outcome
    row: Row = {f"factor.{name}": value for name, value in trial.condition}
    row |= {"arm": trial.arm, "purpose": "choose" if trial.choosing else "compare", "rate": cell.rate}
    row |= {"init_seed": cell.init_seed, "data_seed": cell.data_seed, "status": out.status}
    row |= {name: _number(out.numbers.get(name)) for name in OUTCOMES}
    row |= {"seconds": out.seconds, "way": out.way, "error": out.error}
    row |= {"steps": json.dumps(list(out.steps)), "curve": json.dumps([_number(v) for v in out.curve])}
    for when, seen in out.observed.items():
        row |= {f"{when}.{name}": _flat(value) for name, value in (seen or {}).items()}
    return row


def _flat(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, (list, tuple, dict)) else value


def _number(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def comparison_rows(analysis: Analysis) -> list[Row]:
    """A row a comparison: the condition's levels, then ``Comparison.row``."""
    by_task = {label(condition): dict(condition) for condition in analysis.results.conditions}
    return [{f"factor.{k}": v for k, v in by_task[c.task].items()} | c.row() for c in analysis.comparisons]


def choice_rows(analysis: Analysis) -> list[Row]:
    """A row for each rate that an arm could have had in a condition, with its score."""
    rows = []
    for (condition, arm), choice in analysis.results.choices.items():
        for rate, score in choice.scores.items():
            row = {f"factor.{k}": v for k, v in condition} | {"arm": arm, "rate": rate, "score": _number(score)}
            rows.append(row | {"chosen": rate == choice.rate, "edge": choice.edge if rate == choice.rate else None})
    return rows


def summary_rows(analysis: Analysis) -> list[Row]:
    """A row for each arm in each condition."""
    rows = []
    for s in analysis.summaries:
        row: Row = {f"factor.{k}": v for k, v in s.condition} | {"arm": s.arm, "rate": s.rate, "edge": s.edge}
        row |= {status: s.counts[status] for status in STATUSES} | {"seeds": len(s.values)}
        rows.append(row | _ends("mean", s.mean) | _ends("iqm", s.iqm))
    return rows


def overall_rows(analysis: Analysis) -> list[Row]:
    """A row for each arm over all conditions."""
    return [
        {"arm": o.arm, "baseline": o.baseline, "conditions": o.conditions}
        | _ends("difference", o.difference)
        | _ends("improvement", o.improvement)
        | {"pooled": o.pooled.comparison.row() | {"conditions": o.pooled.conditions} if o.pooled else None}
        for o in analysis.overall
    ]


def collapse_rows(analysis: Analysis) -> list[Row]:
    """A row for each condition whose arms differ in scale alone: what an effective learning rate explains."""
    return [
        {f"factor.{k}": v for k, v in curves.condition}
        | {"seeds": told.runs}
        | _ends("explained_by_rate", told.by_rate)
        | _ends("explained_by_effective_rate", told.by_effective)
        | _ends("best_power", told.power)
        | _ends("explained_by_best", told.best)
        for curves, told in analysis.collapses
    ]


def layer_rows(analysis: Analysis) -> list[Row]:
    """A row for each observer of layers, arm and condition: trained networks, the first layer and the trend."""
    return [
        {f"factor.{k}": v for k, v in found.condition}
        | {"arm": found.arm, "observed": found.name, "runs": found.runs, "means": json.dumps(found.means)}
        | _ends("first_minus_rest", found.first)
        | {"p_first": found.p_first}
        | _ends("rank_correlation", found.depth)
        | {"p_depth": found.p_depth}
        | _ends("rank_correlation_deeper", found.deeper)
        | {"p_deeper": found.p_deeper}
        for found in analysis.trends
    ]


def _ends(name: str, found: Interval | None) -> Row:
    values = (found.estimate, found.low, found.high) if found else (None, None, None)
    return dict(zip((name, f"{name}_low", f"{name}_high"), map(_number, values)))


def to_json(analysis: Analysis, facts: Mapping[str, Any]) -> str:
    """The whole report for programs. Numbers that are unknown or infinite are null."""
    study, results = analysis.study, analysis.results
    whole = {
        "format": FORMAT,
        "name": study.name,
        "question": study.question,
        "verdict": analysis.verdict,
        "warnings": list(analysis.warnings),
        "outcome": study.compare.outcome,
        "baseline": study.baseline,
        "margin": str(study.compare.margin),
        "alpha": study.compare.alpha,
        "trials": len(results.trials),
        "missing": analysis.missing,
        "unused": unused_trials(results, facts),
        "comparisons": comparison_rows(analysis),
        "arms": summary_rows(analysis),
        "overall": overall_rows(analysis),
        "choices": choice_rows(analysis),
        "collapse": collapse_rows(analysis),
        "layers": layer_rows(analysis),
        "failures": [_trial(trial) for trial in results.failures()],
        "manifest": manifest(results, facts),
    }
    return json.dumps(whole, indent=2, allow_nan=False, default=str)


def to_csv(rows: Sequence[Row]) -> str:
    """All columns that any row has, in the order in which they first come."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def export(store: str | Path, folder: str | Path, *, parquet: bool | None = None, draws: int = 10_000) -> list[Path]:
    """Write ``trials.csv``, ``comparisons.csv``, ``choices.csv``, ``arms.csv`` and ``manifest.json`` into a folder.

    Also ``collapse.csv`` where arms differ in scale alone, and ``layers.csv`` where layers were observed.

    Args:
        store: of the study, finished or not.
        folder: made where it is not there.
        parquet: also ``trials.parquet`` and ``comparisons.parquet``; by default where pyarrow is installed.

    Returns:
        the files.

    Errors: OutputError where the folder cannot be written; MissingDependency for Parquet without pyarrow.
    """
    from fanin.study.running import load

    arrow = _arrow(parquet)
    results, facts = load(store), about(store)
    analysis = analyse(results, draws=draws)
    place = _folder(folder)
    tables = {
        "trials": trial_rows(results),
        "comparisons": comparison_rows(analysis),
        "choices": choice_rows(analysis),
        "arms": summary_rows(analysis),
        "collapse": collapse_rows(analysis),
        "layers": layer_rows(analysis),
    }
    tables = {name: rows for name, rows in tables.items() if rows or name not in ("collapse", "layers")}
    files = [write(place / f"{name}.csv", to_csv(rows)) for name, rows in tables.items()]
    for name in ("trials", "comparisons") if arrow else ():
        files.append(_parquet(arrow, place / f"{name}.parquet", tables[name]))
    text = json.dumps(manifest(results, facts), indent=2, allow_nan=False, default=str)
    return [*files, write(place / "manifest.json", text + "\n")]


def _folder(folder: str | Path) -> Path:
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {error.strerror}", remedy="give another folder") from error
    return Path(folder)


def _arrow(parquet: bool | None) -> Any:
    """pyarrow, where it is wanted and there."""
    if parquet is False:
        return None
    try:
        import pyarrow
        import pyarrow.parquet

        return pyarrow
    except ImportError:
        if parquet:
            raise MissingDependency("Parquet needs pyarrow", remedy='pip install "fanin[parquet]"') from None
        return None


def _parquet(arrow: Any, path: Path, rows: Sequence[Row]) -> Path:
    """Columns of one kind each: levels that are of several kinds become text."""
    columns = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name) for row in rows]
        kinds = {type(value) for value in values if value is not None} - {int, float}
        mixed = len(kinds) > 1 or (kinds and any(type(value) in (int, float) for value in values))
        columns[name] = [None if v is None else level(v) for v in values] if mixed else values
    try:
        arrow.parquet.write_table(arrow.table(columns), path)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error}", remedy="give a folder that may be written to"
        ) from error
    return path
