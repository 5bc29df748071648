"""SARIF 2.1.0: findings for code-scanning services."""

from __future__ import annotations

import json
from typing import Any

from fanin.checks.finding import Finding
from fanin.report.record import Report
from fanin.signals import json_safe

LEVELS = {"error": "error", "warning": "warning", "info": "note"}


def to_sarif(report: Report) -> str:
    """The findings as SARIF text; a tensor's name is its logical location."""
    from fanin import __version__

    rules = dict.fromkeys(finding.code for finding in report.findings)
    driver = {"name": "fanin", "version": __version__, "rules": [{"id": code} for code in rules]}
    run = {"tool": {"driver": driver}, "results": [_result(f, report) for f in report.findings]}
    schema = "https://json.schemastore.org/sarif-2.1.0.json"
    return json.dumps(json_safe({"$schema": schema, "version": "2.1.0", "runs": [run]}), indent=2)


def source_file(target: str) -> str | None:
    """The file of a ``file.py:factory`` target."""
    place = target.rpartition(":")[0]
    return place if place.endswith(".py") else None


def _result(finding: Finding, report: Report) -> dict[str, Any]:
    location: dict[str, Any] = {"logicalLocations": [{"fullyQualifiedName": finding.name, "kind": "member"}]}
    file = source_file(report.target)
    if file:
        location["physicalLocation"] = {"artifactLocation": {"uri": file}, "region": {"startLine": 1}}
    text = ". ".join(
        part.rstrip(".") for part in (f"{finding.name}: {finding.message}", finding.cause, finding.fix) if part
    )
    return {
        "ruleId": finding.code,
        "level": LEVELS[finding.severity],
        "message": {"text": text},
        "locations": [location],
        "properties": {"measured": finding.measured, "expected": finding.expected, "target": report.target},
    }
