"""Commands about a model: check, init, plan, verify, identify, explain."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

import fanin
from fanin.cli import options
from fanin.cli.screen import color, remark, say, width, will_write, working, writing
from fanin.errors import OutputError, PlanError, TargetError
from fanin.report import Report
from fanin.signals import json_safe
from fanin.targets import Target
from fanin.targets.resolve import parse_overrides

FORMATS = ("text", "json", "sarif", "github")


@click.command(short_help="What the signal and the gradient do, and what is wrong.")
@options.model_options
@click.option("--predict-only", is_flag=True, help="Theory alone: allocates no weight, runs nothing.")
@click.option("--surrogate", is_flag=True, help="Run operations without a rule on samples, and mark their rows.")
@click.option("--select", metavar="CODES", help="Only findings whose code begins so, such as FAN1,FAN203.")
@click.option("--ignore", metavar="CODES", help="No findings whose code begins so.")
@click.option(
    "--fail-on",
    type=click.Choice(["error", "warning", "info", "never"]),
    default="error",
    show_default=True,
    help="Exit with status 1 where there is a finding as grave as this.",
)
@click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True)
@click.option("--detail", is_flag=True, help="Show every tensor, not only the outputs that matter.")
@click.option("--html", type=click.Path(path_type=Path), help="Also write a page with interactive curves.")
def check(**given: Any) -> int:
    """Say what the signal and the gradient of TARGET do at initialization, and what is wrong."""
    will_write(given["html"])
    with working(f"building {given['target']}"):
        target = options.build(given, meta=given["predict_only"])
    with working(f"checking {target.label}"):
        report = fanin.check(
            target.model,
            target.batch,
            loss=target.loss,
            target=target.target,
            seed=given["seed"],
            predict_only=given["predict_only"],
            surrogate=given["surrogate"],
            select=options.codes(given["select"]),
            ignore=options.codes(given["ignore"]),
        )
    report = _labelled(report, target)
    say(_formatted(report, given["form"], given["detail"]))
    if given["html"]:
        report.to_html(given["html"])
        remark(f"wrote {given['html']}")
    return 0 if given["fail_on"] == "never" or not report.at_least(given["fail_on"]) else 1


@click.command(short_help="Draw every weight into safetensors files.")
@options.model_options
@options.recipe_options
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="FILE.safetensors, or a folder.")
@click.option("--max-shard-size", type=int, metavar="BYTES", help="Split into files of at most this size.")
def init(**given: Any) -> None:
    """Choose the distribution of every weight of TARGET, draw it, and write it.

    To one file, or to a folder of files with their index and the model's configuration, as transformers loads them. A
    run that was interrupted goes on where it stopped.
    """
    will_write(given["output"], folder=True)
    target = _shapes(given)
    with working("choosing distributions"):
        plan = fanin.plan(target.model, target.batch, recipe=given["recipe"], **parse_overrides(given["options"]))
    limit = {"max_shard_bytes": given["max_shard_size"]} if given["max_shard_size"] else {}
    with writing(f"drawing into {given['output']}") as progress:
        fanin.save(plan, target.model, given["output"], seed=given["seed"], progress=progress, **limit)
    remark(f"wrote {given['output']}: {len(plan.entries)} parameters, recipe {given['recipe']}, seed {given['seed']}")


@click.command(short_help="What every weight should be drawn from, and why.")
@options.model_options
@options.recipe_options
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the plan as JSON.")
def plan(**given: Any) -> None:
    """Say what every weight of TARGET should be drawn from, and why."""
    will_write(given["output"])
    target = _shapes(given)
    with working("choosing distributions"):
        made = fanin.plan(target.model, target.batch, recipe=given["recipe"], **parse_overrides(given["options"]))
    if given["output"]:
        _write(given["output"], made.to_json())
        remark(f"wrote {given['output']}")
    say(made.to_json() if given["form"] == "json" else _text(made))


@click.command(short_help="Do stored weights hold what plan and seed give?")
@click.argument("weights", type=click.Path(path_type=Path))
@click.argument("plan_file", metavar="PLAN", type=click.Path(path_type=Path))
@options.seed
def verify(weights: Path, plan_file: Path, seed: int) -> int:
    """Say whether the safetensors file WEIGHTS holds what the PLAN (JSON) and the seed give."""
    made = _read_plan(plan_file)
    if not weights.exists():
        raise TargetError(f"there is no file {weights}", remedy="give the safetensors file that fanin init wrote")
    with working(f"reading {weights}"):
        result = fanin.verify(weights, made, seed=seed)
    say(_text(result))
    return 0 if getattr(result, "ok", bool(result)) else 1


@click.command(short_help="How were these weights initialized?")
@options.model_options
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def identify(**given: Any) -> None:
    """Say how the weights of TARGET (or of a safetensors file) were initialized."""
    if given["target"].endswith(".safetensors"):
        model: Any = Path(given["target"])
    else:
        model = options.build(given, need_batch=False).model
    with working(f"identifying {given['target']}"):
        found = fanin.identify(model)
    say(_text(found) if given["form"] == "text" else _json(found))


@click.command(short_help="Why does a layer get what it gets?")
@options.model_options
@click.argument("name", required=False)
def explain(**given: Any) -> None:
    """Say why a layer of TARGET (NAME, or all) gets what it gets: normal or uniform, in numbers, for this model."""
    target = _shapes(given)
    say(str(fanin.explain(target.model, target.batch, given["name"])))


def _shapes(given: dict[str, Any]) -> Target:
    """The target on the meta device; with real weights where its factory cannot do without values."""
    with working(f"building {given['target']}"):
        try:
            return options.build(given, meta=True, need_batch=False)
        except TargetError:
            return options.build(given, need_batch=False)


def _labelled(report: Report, target: Target) -> Report:
    notes = [*target.notes, *report.facts.get("notes", ())]
    return replace(report, target=target.label, facts={**report.facts, "notes": notes})


def _formatted(report: Report, form: str, detail: bool) -> str:
    if form == "json":
        return report.to_json()
    if form == "text":
        return report.to_text(width=width(), color=color(), detail=detail)
    from fanin.report.github import to_github
    from fanin.report.sarif import to_sarif

    return to_sarif(report) if form == "sarif" else to_github(report)


def _read_plan(path: Path) -> Any:
    try:
        return fanin.Plan.from_json(path.read_text())
    except FileNotFoundError as error:
        raise PlanError(f"there is no file {path}", remedy="write one: fanin plan TARGET -o plan.json") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PlanError(f"{path} is not a plan: {error}", remedy="write one: fanin plan TARGET -o plan.json") from error


def _text(record: Any) -> str:
    return record.to_text() if hasattr(record, "to_text") else str(record)


def _json(record: Any) -> str:
    return record.to_json() if hasattr(record, "to_json") else json.dumps(json_safe(record.to_dict()), indent=2)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from error
