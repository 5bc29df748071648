"""Recipes by pattern: {"*.head": "zero", "blocks.*": "he"}. The first pattern that matches a name decides."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Mapping
from typing import Any

from fanin.errors import ArgumentError
from fanin.recipes.plan import Entry, Plan
from fanin.recipes.shared import kept


def compose(side: Any, model: Any, batch: Any, patterns: Mapping[str, str], options: Mapping[str, Any]) -> Plan:
    """A plan whose entries come from the recipe of the first pattern that matches; what none matches is kept.

    Args:
        patterns: pattern of a parameter or of a module that holds it -> name of a recipe.
        options: each goes to the recipes that take it.

    Errors: ArgumentError for a pattern that matches nothing, and an option that none of the recipes takes.
    """
    from fanin.recipes.make import look_up, make_plan

    rows = {name: look_up(name) for name in patterns.values()}
    stray = [name for name in options if not any(name in row.options for row in rows.values())]
    if stray:
        raise ArgumentError(
            f"none of the recipes {', '.join(rows)} has an option {stray[0]!r}",
            remedy="leave it out, or add a recipe that has it",
        )
    records = {name: record for name, (record, _, _) in side.weights_of(model).items()}
    chosen = {name: next((p for p in patterns if matches(p, name)), None) for name in records}
    _all_used(patterns, records)
    plans = {
        name: make_plan(side, model, batch, name, {k: v for k, v in options.items() if k in row.options})
        for name, row in rows.items()
    }
    entries: dict[str, Entry] = {}
    for name, record in records.items():
        pattern = chosen[name]
        if record.name != name:
            entries[name] = Entry(
                name, record.shape, None, reason=f"the same tensor as {record.name}", tied_to=record.name
            )
        else:
            entries[name] = (
                kept(record, "no pattern matches it") if pattern is None else plans[patterns[pattern]].entries[name]
            )
    notes = dict.fromkeys(note for made in plans.values() for note in made.notes)
    return Plan(entries, dict(patterns), dict(options), tuple(notes))


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern is that of a parameter, or of a module that it is in.

    Example:
        >>> matches("*.head", "model.head.weight"), matches("*.head", "head.bias"), matches("head", "heads.0.weight")
        (True, True, False)
    """
    parts = name.split(".")
    heads = [".".join(parts[: i + 1]) for i in range(len(parts))]
    return any(fnmatch.fnmatchcase(head, pattern) or fnmatch.fnmatchcase("." + head, pattern) for head in heads)


def _all_used(patterns: Mapping[str, str], names: Mapping[str, Any]) -> None:
    for pattern in patterns:
        if not any(matches(pattern, name) for name in names):
            near = difflib.get_close_matches(pattern, names, n=1, cutoff=0.3)
            raise ArgumentError(
                f"pattern {pattern!r} matches no parameter",
                cause=f"the nearest name is {near[0]!r}" if near else None,
                remedy="give a name as in named_parameters() or named_modules(); * stands for any text",
            )
