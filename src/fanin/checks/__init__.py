"""Signals + Graph -> findings: one rule a function and a table row, with stable codes.

FAN1xx the signal, FAN2xx the gradient, FAN3xx units and activations, FAN4xx weights, FAN5xx the loss, FAN9xx how far
the prediction reaches. docs/checks.md has a section for each.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fanin.checks.case import Case
from fanin.checks.finding import Finding
from fanin.checks.loss import expected_loss, loss_facts
from fanin.checks.rule import Rule
from fanin.checks.table import RULES
from fanin.errors import ArgumentError
from fanin.graph import Graph
from fanin.signals import Signals

__all__ = ["RULES", "Finding", "Rule", "expected_loss", "find", "loss_facts"]

Codes = str | Iterable[str] | None


def find(
    graph: Graph,
    predicted: Signals | None,
    measured: Signals | None = None,
    *,
    target: Any = None,
    select: Codes = None,
    ignore: Codes = None,
) -> list[Finding]:
    """Try every rule.

    Args:
        graph: the model.
        predicted, measured: its signals; measured is None where nothing was run.
        target: what the loss compares the output with; class ids tell how large it should be.
        select, ignore: codes or their beginnings, one or several ("FAN1", ["FAN203", "FAN3"]).

    Returns:
        the findings, in the order of the table; one for each root cause.

    Raises:
        ArgumentError: a code that begins no rule's.
    """
    case = Case(graph, predicted, measured, target)
    found: dict[str, list[Finding]] = {}
    for rule in chosen(select, ignore):
        if not any(found.get(code) for code in rule.unless):
            found[rule.code] = rule.findings(case)
    return [finding for findings in found.values() for finding in findings]


def chosen(select: Codes, ignore: Codes) -> list[Rule]:
    """The rules that were asked for.

    Example:
        >>> [rule.code for rule in chosen("FAN2", "FAN203,FAN204")]
        ['FAN201', 'FAN202']
    """
    wanted, unwanted = prefixes("select", select), prefixes("ignore", ignore)
    kept = [rule for rule in RULES if select is None or rule.code.startswith(wanted)]
    return [rule for rule in kept if not unwanted or not rule.code.startswith(unwanted)]


def prefixes(what: str, codes: Codes) -> tuple[str, ...]:
    """Codes as a tuple of upper-case prefixes, each the beginning of some rule's code."""
    if codes is None:
        return ()
    if not isinstance(codes, str) and not isinstance(codes, Iterable):
        raise ArgumentError(f"{what} is {codes!r}", remedy='give a code such as "FAN101", its beginning, or a list')
    parts = codes.split(",") if isinstance(codes, str) else [str(code) for code in codes]
    given = tuple(part.strip().upper() for part in parts if part.strip())
    for prefix in given:
        if not any(rule.code.startswith(prefix) for rule in RULES):
            known = ", ".join(sorted(rule.code for rule in RULES))
            raise ArgumentError(f"{what}: no rule's code begins with {prefix!r}", remedy=f"there are {known}")
    return given
