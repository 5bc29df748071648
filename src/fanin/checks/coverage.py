"""FAN9xx: how far the prediction reaches."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from fanin.checks.case import Case, listed, plural
from fanin.checks.rule import Seen


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
    """Tensors whose measured rms is twice or half the predicted one."""
    off = []
    for node in case.graph.signals:
        predicted, measured = case.predicted_row(node), case.measured_row(node)
        if predicted and measured and predicted.rms and measured.rms and _apart(predicted.rms, measured.rms):
            off.append((node, predicted.rms, measured.rms))
    if off:
        node, predicted, measured = off[0]
        yield Seen(
            node.name,
            f"predicted rms {predicted:.3g}, measured {measured:.3g}; {plural(len(off), 'tensor')} so: "
            f"{listed([n.name for n, _, _ in off])}",
            measured,
            (predicted / 2, predicted * 2),
            "these weights are not what independent draws give (trained, orthogonal, structured), the net is narrow, "
            "or a rule is an approximation",
            "trust the measurement here",
        )


def _apart(predicted: float, measured: float) -> bool:
    if not (math.isfinite(predicted) and math.isfinite(measured)):
        return False
    return abs(math.log(predicted / measured)) > math.log(2)
