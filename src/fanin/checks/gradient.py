"""FAN2xx: the gradient on its way back."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from fanin.checks.blame import blame, remedy
from fanin.checks.case import Case, listed, plural
from fanin.checks.depth import Run, normed, run, stations
from fanin.checks.rule import Seen
from fanin.checks.signal import GRAVE, SLIGHT, STEADY
from fanin.graph import Kind, Node
from fanin.graph.questions import ancestors, normalizes

SKIP = "add skip connections, or put fewer norms on the path: no scale of the weights changes what a norm does"


def vanishes(case: Case) -> Iterator[Seen]:
    """From the last layer to the first."""
    found = _judged(case)
    if found is None:
        return
    back, ratio = found
    if ratio < 1 / SLIGHT and back.rate < 1 / STEADY:
        yield _seen(case, back, ratio, down=True)


def explodes(case: Case) -> Iterator[Seen]:
    """From the last layer to the first."""
    found = _judged(case)
    if found is None:
        return
    back, ratio = found
    if ratio > SLIGHT * _slack(case) and back.rate > STEADY:
        yield _seen(case, back, ratio, down=False)


def _slack(case: Case) -> float:
    """Layers that a norm makes scale-free take larger gradients: a weight that grows lowers its own gradient."""
    layers = [node for node in stations(case) if node.kind is not Kind.SUM]
    return 10.0 if layers and sum(normed(case, node) for node in layers) > len(layers) / 2 else 1.0


def _seen(case: Case, back: Run, ratio: float, down: bool) -> Seen:
    verb, word = ("falls", "half of it gone") if down else ("grows", "doubled")
    return Seen(
        back.start(down).name,
        f"gradient rms {verb} from {back.values[0]:.3g} at {back.nodes[0].name} to {back.values[-1]:.3g} at "
        f"{back.nodes[-1].name}, {back.layers} layers earlier: {back.rate:.3g} a layer, "
        f"{word} every {back.halving:.2g} layers",
        ratio,
        (1 / SLIGHT, SLIGHT * _slack(case)),
        _cause(case, down),
        remedy(case, back.rate, "shrinks" if down else "grows") if down or _slack(case) == 1 else SKIP,
        "error" if ratio < 1 / GRAVE or ratio > GRAVE * _slack(case) else "warning",
    )


def _cause(case: Case, down: bool) -> str:
    norms = sum(node.kind is Kind.NORM and node.attrs.get("batch", False) for node in case.trunk)
    if not down and norms > 3:
        return f"{norms} batch normalizations on the path: behind a ReLU each raises the gradient by about 1.21"
    return blame(case, "shrinks" if down else "grows")


def _judged(case: Case) -> tuple[Run, float] | None:
    """The gradient from the last station back to the first, and the ratio of first to last that is nearer to one.

    A width or size that changes along the way changes the rms of a gradient that is as large as ever, or its length:
    only what both agree on counts.
    """
    back = run(list(reversed(_places(case))), lambda node: _gradient(case, node))
    if back is None or back.values[0] <= 0:
        return None
    sizes = [math.sqrt(np.prod(node.shape)) for node in (back.nodes[-1], back.nodes[0])]
    ratios = (back.ratio, back.ratio * sizes[0] / sizes[1])
    return back, min(ratios, key=lambda r: abs(math.log(r)) if r > 0 else math.inf)


def _places(case: Case) -> list[Node]:
    """Stations; one that a norm makes scale-free is replaced by the norm behind it."""
    places, wanted = [], {node.id for node in stations(case)}
    pending = False
    for node in case.trunk:
        if node.id in wanted:
            pending = normed(case, node)
            if not pending:
                places.append(node)
        elif pending and normalizes(case.graph, node) is not None:
            places.append(node)
            pending = False
    return places


def _gradient(case: Case, node: Node) -> float | None:
    row = case.measured_row(node)
    if row is None or row.grad_rms is None:
        row = case.predicted_row(node)
    return row.grad_rms if row is not None else None


def nonfinite(case: Case) -> Iterator[Seen]:
    """Parameters whose gradient is NaN or infinite."""
    rows = case.measured.parameters if case.measured is not None else {}
    bad = [name for name, row in rows.items() if not math.isfinite(row.get("grad_rms", 0.0))]
    if bad:
        yield Seen(
            bad[-1],
            f"the gradient of {plural(len(bad), 'parameter')} is not finite: {listed(bad[::-1])}",
            float(len(bad)),
            (0.0, 0.0),
            "an overflow on the way back, or a root, log or division at zero",
            "add an eps below roots and in denominators; start from smaller weights: fanin.init_(model, batch)",
        )


def unused(case: Case) -> Iterator[Seen]:
    """Trainable parameters on which no output depends."""
    reached = ancestors(case.graph, list(case.graph.outputs))
    used = {n.attrs["parameter"] for n in case.graph.nodes if n.kind is Kind.PARAMETER and n.id in reached}
    idle = [name for name, p in case.weights.items() if p.trainable and name not in used and not set(p.tied) & used]
    if idle:
        yield Seen(
            idle[0],
            f"{plural(len(idle), 'trainable parameter')} no output depends on: {listed(idle)}",
            float(len(idle)),
            (0.0, 0.0),
            "a layer that forward does not use, or whose result is dropped; it will never learn",
            "use it, remove it, or set requires_grad=False (distributed training stops on unused parameters)",
        )
