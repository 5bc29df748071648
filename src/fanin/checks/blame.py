"""Why the signal or the gradient changes with depth: the weights whose scale does not fit, in one sentence."""

from __future__ import annotations

import math

from fanin.checks.case import Case, plural
from fanin.checks.fit import Fit, fits, scheme_of
from fanin.graph import Kind
from fanin.graph.questions import signal_inputs


def blame(case: Case, how: str) -> str:
    """The likeliest cause of a signal that ``how`` ("shrinks" or "grows") with depth."""
    misfits = [f for f in fits(case) if (f.factor < 0.97 if how == "shrinks" else f.factor > 1.03)]
    if misfits:
        return describe(misfits)
    joins = branches(case)
    if how == "grows" and joins > 3:
        return f"{joins} sums add branches to the trunk, each as large as the trunk itself, and nothing normalizes it"
    if how == "grows":
        return "each layer multiplies the rms by more than one, and nothing normalizes it"
    return "each layer multiplies what tells samples apart by less than one; biases that are large beside it do, too"


def describe(misfits: list[Fit]) -> str:
    """``30 layers have std 0.034, Xavier's (gain 1); relu needs 0.048 (gain 1.41)``."""
    first = misfits[0]
    scheme = scheme_of(first.layer, first.std)
    named = f", {scheme}," if scheme else ""
    kind = plural(len(misfits), "layer") + (" has" if len(misfits) == 1 else " have")
    return (
        f"{kind} weights of gain {first.gain:.3g} (std {first.std:.3g}{named} fan_in {first.layer.fans.fan_in:g}) "
        f"where {first.name} needs {first.needed:.3g}"
    )


def branches(case: Case) -> int:
    """Residual sums on the trunk."""
    return sum(node.kind is Kind.SUM and len(signal_inputs(case.graph, node)) == 2 for node in case.trunk)


def remedy(case: Case, rate: float, how: str = "shrinks") -> str:
    """What to multiply the weights by."""
    misfits, joins = fits(case), branches(case)
    if how == "grows" and joins > 3 and not any(f.factor > 1.03 for f in misfits):
        return (
            f"multiply the last weight of each of the {joins} branches by 1/sqrt({joins}) = {joins**-0.5:.2g}, or by 0 "
            "(SkipInit, Fixup): fanin.init_(model, batch)"
        )
    factor = 1 / rate if rate > 0 else 0.0
    if misfits:
        factor = math.exp(-sum(math.log(f.factor) for f in misfits) / len(misfits))
    if not 0 < factor < math.inf or abs(math.log(factor)) < 0.02:
        return "fanin.init_(model, batch) draws weights that keep it"
    return f"multiply the std of these weights by {factor:.3g}: fanin.init_(model, batch) does it"
