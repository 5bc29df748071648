"""A rule: one row of the table, and a short function from the case to what it sees."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fanin.checks.case import Case
from fanin.checks.finding import Finding, Severity


@dataclass(frozen=True, slots=True)
class Seen:
    """What a rule's function reports: a Finding without what the row of the table adds.

    ``severity`` overrides the row's; the other fields are those of Finding.
    """

    name: str
    message: str
    measured: float | None = None
    expected: tuple[float, float] | None = None
    cause: str = ""
    fix: str = ""
    severity: Severity | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table.

    Attributes:
        code: stable, never used for anything else.
        severity: unless the function says otherwise.
        title: a few words; the heading of its section in docs/checks.md, whose anchor is the code in small letters.
        summary: one line: what the rule looks at, and when it speaks.
        look: the function; it yields nothing where all is well.
        unless: codes of findings that already tell the same story from its root.
    """

    code: str
    severity: Severity
    title: str
    summary: str
    look: Callable[[Case], Iterable[Seen]]
    unless: tuple[str, ...] = ()

    @property
    def anchor(self) -> str:
        """Anchor of the section in docs/checks.md."""
        return self.code.lower()

    def findings(self, case: Case) -> list[Finding]:
        """What the rule has to say about a case."""
        return [self._finding(seen) for seen in self.look(case)]

    def _finding(self, s: Seen) -> Finding:
        severity = s.severity or self.severity
        return Finding(self.code, severity, s.name, s.message, s.measured, s.expected, s.cause, s.fix, self.anchor)
