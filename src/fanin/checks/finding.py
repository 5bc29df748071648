"""Finding: one thing that is wrong at one place, with its number, its cause and its cure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["info", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "error")


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule has to say.

    Attributes:
        code: stable rule code, such as ``FAN101``; never reused for another rule.
        severity: ``"info"``, ``"warning"`` or ``"error"``.
        name: the tensor or parameter it is about.
        message: what was seen, in one sentence with its number.
        measured: the number that was seen, or None.
        expected: interval (low, high) in which the number should lie, or None.
        cause: why this is so.
        fix: what to do about it.
        doc: anchor of the rule's section in docs/checks.md.
    """

    code: str
    severity: Severity
    name: str
    message: str
    measured: float | None = None
    expected: tuple[float, float] | None = None
    cause: str = ""
    fix: str = ""
    doc: str = ""

    def to_dict(self) -> dict[str, Any]:
        """A plain dict that json can write."""
        return {name: getattr(self, name) for name in self.__slots__}
