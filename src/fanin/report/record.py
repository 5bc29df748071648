"""Report: the findings of a check, and the signals that they rest on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fanin.checks.finding import SEVERITIES, Finding, Severity
from fanin.errors import ArgumentError, ReportFailed
from fanin.signals import Signals, json_safe


@dataclass(frozen=True, slots=True)
class Report:
    """What a check found.

    Attributes:
        findings: what is wrong, the gravest first.
        predicted: signals that theory gives; None where the model could not be traced.
        measured: signals of a run; None where nothing was run.
        target: what was checked, in the user's words.
        facts: figures of the whole: ``loss`` and ``accuracy`` measured, ``predicted_loss`` with
            ``predicted_loss_spread`` between networks, ``predicted_accuracy``, ``predicted_logit_rms``,
            ``expected_loss`` (of knowing nothing: ln C for a cross-entropy), ``parameters``, ``seconds``, ``notes``,
            ``versions``; all may be missing.

    Example:
        >>> report = Report((Finding("FAN101", "error", "fc", "rms 1e-9", fix="use He"),), None, None, "net")
        >>> report.ok
        False
        >>> report.raise_if("error")
        Traceback (most recent call last):
        fanin.errors.ReportFailed: 1 finding at or above error in net:
          FAN101 fc: rms 1e-9; fix: use He
    """

    findings: tuple[Finding, ...] = ()
    predicted: Signals | None = None
    measured: Signals | None = None
    target: str = "model"
    facts: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        ordered = sorted(self.findings, key=lambda f: -SEVERITIES.index(f.severity))
        object.__setattr__(self, "findings", tuple(ordered))

    @property
    def ok(self) -> bool:
        """True where no finding is an error."""
        return not self.at_least("error")

    @property
    def signals(self) -> Signals:
        """The measured signals where there are some, else the predicted ones."""
        return self.measured or self.predicted or Signals([])

    def at_least(self, severity: Severity) -> tuple[Finding, ...]:
        """The findings of this severity and graver ones."""
        if severity not in SEVERITIES:
            raise ArgumentError(f"there is no severity {severity!r}", remedy=f"use one of {', '.join(SEVERITIES)}")
        return tuple(f for f in self.findings if SEVERITIES.index(f.severity) >= SEVERITIES.index(severity))

    def raise_if(self, severity: Severity = "error") -> None:
        """Raise `ReportFailed`, which lists the findings of this severity and above, if there are any."""
        found = self.at_least(severity)
        if found:
            lines = [f"  {f.code} {f.name}: {f.message}" + (f"; fix: {f.fix}" if f.fix else "") for f in found]
            count = f"{len(found)} finding{'s' if len(found) > 1 else ''}"
            raise ReportFailed("\n".join([f"{count} at or above {severity} in {self.target}:", *lines]))

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts and lists: what `to_json` writes."""
        return {
            "target": self.target,
            "ok": self.ok,
            "findings": [finding.to_dict() for finding in self.findings],
            "facts": dict(self.facts),
            "predicted": self.predicted.to_dict() if self.predicted is not None else None,
            "measured": self.measured.to_dict() if self.measured is not None else None,
        }

    def to_json(self, *, indent: int | None = 2) -> str:
        """JSON text; infinities and NaN are the strings "inf", "-inf" and "nan"."""
        return json.dumps(json_safe(self.to_dict()), indent=indent, allow_nan=False, default=str)

    def to_text(self, *, width: int = 110, color: bool = False, detail: bool = False) -> str:
        """The report as it stands in a terminal: findings, curves against depth, table of tensors.

        Args:
            width: columns; where they do not suffice, whole columns of the table are left out, never digits.
            color: with terminal colours.
            detail: every tensor, also those that a move of elements or the inside of a leaf module makes.
        """
        from fanin.report.terminal import to_text

        return to_text(self, width=width, color=color, detail=detail)

    def to_html(self, path: str | Path) -> Path:
        """Write one self-contained page that needs no network.

        Raises:
            OutputError: the file cannot be written; nothing half-written is left behind.
        """
        from fanin.report.html import page, write

        return write(path, page([self]))

    def _repr_html_(self) -> str:
        from fanin.report.html import embedded

        return embedded(self)

    def __repr__(self) -> str:
        counts = ", ".join(f"{n} {s}" for s in SEVERITIES[::-1] if (n := sum(f.severity == s for f in self.findings)))
        return f"<Report on {self.target}: {counts or 'no findings'}, {len(self.signals)} tensors>"
