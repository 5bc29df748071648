"""A study as one HTML file that needs no network: verdict, warnings, figures, tables, manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from fanin.report.html import asset
from fanin.report.numbers import NONE, short
from fanin.study.analysis import Analysis, Summary, label, outcome_name
from fanin.study.grid import Condition
from fanin.study.layers import LayerTrend
from fanin.study.outcome import STATUSES
from fanin.study.planning import plan_power
from fanin.study.remarks import cause
from fanin.study.report.canvas import inline, style_sheet
from fanin.study.report.figures import drawings
from fanin.study.report.manifest import manifest, unused_trials
from fanin.study.report.text import interval_text, known_power, p_text, percent_text, signed
from fanin.study.statistics import VERDICTS, Collapse, Comparison

WORDS = {"cannot be shown": "none"}
"""Class of a verdict in the style, where it is not the word itself."""


def page(analysis: Analysis, facts: Mapping[str, Any]) -> str:
    """The page's text. Errors: MissingDependency without matplotlib."""
    from fanin import __version__

    whole = manifest(analysis.results, facts)
    return _template().render(
        version=__version__,
        style=Markup(asset("page.css") + style_sheet()),
        own=Markup(_own("study.css")),
        study=analysis.study,
        size=facts.get("size"),
        analysis=analysis,
        unused=unused_trials(analysis.results, facts),
        tiles=_tiles(analysis),
        drawings=[
            {"name": d.name, "title": d.title, "text": d.text, "svg": Markup(inline(d))} for d in drawings(analysis)
        ],
        trained=all(s.counts["trained"] == s.trials for s in analysis.summaries),
        outcome=outcome_name(analysis.study),
        comparisons=[_comparison(c) for c in analysis.comparisons],
        overall=[
            (
                o.arm,
                o.conditions,
                o.pooled.comparison.verdict if o.pooled else NONE,
                interval_text(o.difference, percent=True),
                interval_text(o.improvement, percent=True),
            )
            for o in analysis.overall
        ],
        collapses=[_collapse(curves.condition, told) for curves, told in analysis.collapses],
        layers=[_layers(found) for found in analysis.trends],
        arms=[_arm(s) for s in analysis.summaries],
        power=str(plan_power(analysis.study)),
        failures=_failures(analysis),
        manifest=json.dumps({k: v for k, v in whole.items() if k != "keys"}, indent=2, default=str),
        keys=len(whole["keys"]),
    )


def _tiles(analysis: Analysis) -> list[tuple[str, str, str]]:
    """Word, number, class."""
    results, comparisons = analysis.results, analysis.comparisons
    tiles = [("trials", str(len(results.trials)), "")]
    tiles += [("still to run", str(analysis.missing), "bad")] if analysis.missing else []
    tiles += [("arms", str(len(analysis.study.arms)), ""), ("conditions", str(len(results.conditions)), "")]
    tiles += [("pairs of seeds", str(analysis.study.seeds.compare), "")]
    for word in VERDICTS:
        count = sum(c.verdict == word for c in comparisons)
        tiles += [(word, str(count), WORDS.get(word, word))] if count else []
    failed = len(results.failures())
    return tiles + ([("failed", str(failed), "bad")] if failed else [])


def _comparison(c: Comparison) -> dict[str, str]:
    d = c.difference
    return {
        "condition": c.task,
        "arm": c.arm,
        "n": str(c.n),
        "difference": signed(d.estimate) + (" median" if c.statistic == "median" else ""),
        "interval": f"{signed(d.low)} to {signed(d.high)}",
        "relative": percent_text(c.relative_difference),
        "p": p_text(c.p_holm),
        "equal": p_text(c.tost_p_holm),
        "chance": interval_text(c.improvement, percent=True),
        "detectable": short(c.detectable) if c.detectable == c.detectable else NONE,
        "verdict": c.verdict,
        "kind": WORDS.get(c.verdict, c.verdict),
        "reason": c.reason,
    }


def _arm(s: Summary) -> dict[str, str]:
    return {
        "condition": s.label,
        "arm": s.arm,
        "rate": NONE if s.rate is None else f"{s.rate:g}",
        "edge": s.edge or "",
        "mean": interval_text(s.mean),
        "iqm": interval_text(s.iqm),
        "counts": ", ".join(f"{s.counts[status]} {status}" for status in STATUSES if s.counts[status]),
    }


def _collapse(condition: Condition, told: Collapse) -> tuple[str, ...]:
    return (label(condition), *map(interval_text, (told.by_rate, told.by_effective, known_power(told), told.best)))


def _layers(found: LayerTrend) -> tuple[str, ...]:
    told = zip((found.first, found.depth, found.deeper), (found.p_first, found.p_depth, found.p_deeper))
    cells = (text for interval, p in told for text in (interval_text(interval), p_text(p)))
    return (label(found.condition), found.arm, found.name.replace("_", " "), str(found.runs), *cells)


def _failures(analysis: Analysis) -> list[tuple[str, str]]:
    """One traceback for each cause."""
    found = {cause(trial.outcome.error): trial.outcome.error or "" for trial in analysis.results.failures()}
    return list(found.items())


@cache
def _own(name: str) -> str:
    return files("fanin.study.report").joinpath("assets", name).read_text(encoding="utf-8")


@cache
def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(
        _own("study.html.jinja")
    )
