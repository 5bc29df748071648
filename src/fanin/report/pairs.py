"""Predicted and measured rows side by side, in the same units."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fanin.report.record import Report
from fanin.signals import Signal


@dataclass(frozen=True, slots=True)
class Pair:
    """One tensor, predicted and measured."""

    name: str
    predicted: Signal | None
    measured: Signal | None

    @property
    def row(self) -> Signal:
        """Either of the two; name, op and shape are the same."""
        found = self.measured or self.predicted
        assert found is not None  # a pair is made of at least one
        return found


@dataclass(frozen=True, slots=True)
class Scale:
    """What predicted gradients are multiplied by, and the tensor where they are made to meet the measured one."""

    factor: float = 1.0
    at: str = ""


def pairs(report: Report) -> list[Pair]:
    """All tensors in graph order."""
    factor = gradient_scale(report).factor
    predicted = {row.name: _scaled(row, factor) for row in report.predicted.rows} if report.predicted else {}
    measured = {row.name: row for row in report.measured.rows} if report.measured else {}
    first, second = (predicted, measured) if len(predicted) >= len(measured) else (measured, predicted)
    names = [*first, *(name for name in second if name not in first)]
    return [Pair(name, predicted.get(name), measured.get(name)) for name in names]


def gradient_scale(report: Report) -> Scale:
    """Predictions are for a cotangent of rms 1 on the output; a loss has another, which scales all gradients alike."""
    predicted, measured = report.predicted, report.measured
    if not predicted or not measured:
        return Scale()
    if predicted.facts.get("cotangent", "output") == measured.facts.get("cotangent", "output"):
        return Scale()
    for row in reversed(measured.rows):
        other = predicted[row.name].grad_rms if row.name in predicted else None
        if other and row.grad_rms:
            return Scale(row.grad_rms / other, row.name)
    return Scale()


def notes(report: Report) -> list[str]:
    """What a reader of the figures should know."""
    scale = gradient_scale(report)
    scaled = [f"predicted gradients are scaled to the loss's gradient at {scale.at}"] if scale.at else []
    depth = report.predicted.facts.get("depth", ()) if report.predicted is not None else ()
    return [*report.facts.get("notes", ()), *scaled, *(found["text"] for found in depth)]


def _scaled(row: Signal, factor: float) -> Signal:
    if factor == 1.0 or row.grad_rms is None:
        return row
    low, high = (None if v is None else v * factor for v in (row.grad_rms_low, row.grad_rms_high))
    return replace(row, grad_rms=row.grad_rms * factor, grad_rms_low=low, grad_rms_high=high)
