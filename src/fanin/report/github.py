"""GitHub workflow commands: findings as annotations of a run."""

from __future__ import annotations

from fanin.checks.finding import Finding
from fanin.report.record import Report
from fanin.report.sarif import source_file

COMMANDS = {"error": "error", "warning": "warning", "info": "notice"}


def to_github(report: Report) -> str:
    """One annotation a finding.

    Example:
        >>> print(to_github(Report((Finding("FAN101", "error", "fc", "rms 0\\nnow", fix="use He"),), target="n.py:f")))
        ::error file=n.py,title=FAN101 fc::rms 0%0Anow%0Afix: use He
    """
    return "\n".join(_annotation(finding, source_file(report.target)) for finding in report.findings)


def _annotation(finding: Finding, file: str | None) -> str:
    title = f"title={_property(f'{finding.code} {finding.name}')}"
    place = f"file={_property(file)}," if file else ""
    message = "\n".join([finding.message, *([f"why: {finding.cause}"] if finding.cause else [])])
    message += f"\nfix: {finding.fix}" if finding.fix else ""
    return f"::{COMMANDS[finding.severity]} {place}{title}::{_escape(message)}"


def _escape(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _escape(text).replace(":", "%3A").replace(",", "%2C")
