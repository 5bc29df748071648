"""FAN9xx: how far the prediction reaches."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from fanin.checks.case import Case, listed, plural
from fanin.checks.rule import Seen
from fanin.signals import Signal


def unmodelled(case: Case) -> Iterator[Seen]:
    """Operations without a rule: where the prediction first has none, counted by operation."""
    rows = [row for row in (case.predicted.rows if case.predicted else ()) if row.rms is None]
    if not rows:
        return
    missing = {row.name for row in rows}
    names = {node.id: node.name for node in case.graph.nodes}
    first = [
        node
        for node in case.graph.signals
        if node.name in missing and not any(names[i] in missing for i in node.inputs)
    ]
    ops = Counter(node.op for node in first)
    told = ", ".join(f"{op} ({count})" if count > 1 else op for op, count in ops.most_common(6))
    yield Seen(
        first[0].name if first else rows[0].name,
        f"{plural(len(rows), 'tensor')} without a prediction, behind {told or rows[0].op}",
        float(len(rows)),
        (0.0, 0.0),
        rows[0].note.removeprefix("unmodelled: "),
        "measured figures still hold; predicted ones stop here",
    )


def disagree(case: Case) -> Iterator[Seen]:
    """Tensors whose measured rms no single network of the predicted law would have."""
    off = []
    for node in case.graph.signals:
        predicted, measured = case.predicted_row(node), case.measured_row(node)
        if predicted and measured and predicted.rms and measured.rms and _apart(predicted, measured.rms):
            off.append((node, predicted, measured.rms))
    if off:
        node, predicted, measured = off[0]
        low, high = _interval(predicted)
        yield Seen(
            node.name,
            f"predicted rms {predicted.rms:.3g} ({low:.3g} to {high:.3g} in 95 % of networks), "
            f"measured {measured:.3g}; {plural(len(off), 'tensor')} so: {listed([n.name for n, _, _ in off])}",
            measured,
            (low, high),
            "these weights are not what independent draws give (trained, orthogonal, structured), "
            "or a rule is an approximation",
            "trust the measurement here",
        )


CERTAIN = 2.5  # half widths: five standard deviations, so that chance is out of the question for a million tensors
LEFT = 0.25  # in the logarithm, a judgement: what the theory's approximations may be off by on top of chance


def _interval(row: Signal) -> tuple[float, float]:
    """The 95 % interval of a single network; a factor of two where there is none."""
    rms = row.rms or 0.0
    if row.rms_low is None or row.rms_high is None or row.rms_low <= 0:
        return rms / 2, rms * 2
    return row.rms_low, row.rms_high


def _apart(row: Signal, measured: float) -> bool:
    low, high = _interval(row)
    if not (math.isfinite(low) and math.isfinite(high) and math.isfinite(measured)):
        return False
    middle, half = math.log(low * high) / 2, math.log(high / low) / 2
    return abs(math.log(measured) - middle) > CERTAIN * half + LEFT
