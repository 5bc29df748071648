"""Which law the weights are drawn from: the one under which single networks stray least, where that matters at all.

Every law of one standard deviation gives the same mean signal. How far one network is from that mean is the theory of
finite width: along narrow and deep chains the logarithm of the signal's mean square spreads by about 5/n a ReLU layer
under independent weights, and for odd activations nearly not at all under orthogonal ones. In wide or normalized
models the laws cannot be told apart, and the normal law is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from fanin.distributions import Distribution
from fanin.recipes.plan import Entry
from fanin.recipes.shared import sized
from fanin.recipes.structure import Structure
from fanin.theory.adjoint import backward
from fanin.theory.law import Law
from fanin.theory.state import Value
from fanin.theory.threads import one_thread
from fanin.theory.width import Widths, interval

KINDS = ("normal", "uniform", "truncated_normal", "orthogonal")
MATTERS = 0.25
"""Standard deviation of log rms over networks from which on it counts: 95 % of networks within a factor of 2.7."""
BETTER = 0.9
"""A law is taken for its spread only where that is smaller by a tenth."""


def steadiest(
    structure: Structure, values: Mapping[str, Value], entries: Mapping[str, Entry], solved: Iterable[str]
) -> tuple[str, str]:
    """The kind of law for the solved weights, and a sentence that says why.

    Args:
        structure: of the model's graph.
        values: the predicted laws at every node, which are the same for all kinds.
        entries: of the plan, with normal weights.
        solved: names of the weights whose law is to be chosen.
    """
    laws = {name: e.distribution for name, e in entries.items() if e.distribution is not None}
    names = [name for name in solved if name in laws]
    spreads: dict[str, float] = {}
    where = ""
    for kind in KINDS:
        found = _spread(structure, values, laws | {n: _as(kind, entries[n]) for n in names})
        if found is None:
            return "normal", ""
        spreads[kind], at = found
        where = where or at
        if spreads["normal"] < MATTERS:
            break
    if spreads["normal"] < MATTERS:
        return "normal", (
            f"normal, uniform, truncated or orthogonal makes no difference here: {where} strays by "
            f"{spreads['normal']:.1%} over networks, and nothing more"
        )
    best = min(KINDS, key=lambda k: spreads[k])
    kind = best if spreads[best] < BETTER * spreads["normal"] else "normal"
    told = ", ".join(f"{k.replace('_', ' ')} {spreads[k]:.2g}" for k in KINDS)
    return kind, f"{kind.replace('_', ' ')} weights: over networks the log of {where} has std {told}"


def reshaped(entries: Mapping[str, Entry], names: Iterable[str], kind: str) -> dict[str, Entry]:
    """The entries with these weights drawn from laws of this kind and the same standard deviations."""
    return dict(entries) | {name: replace(entries[name], distribution=_as(kind, entries[name])) for name in names}


def _as(kind: str, entry: Entry) -> Distribution:
    assert entry.distribution is not None
    return sized(kind, entry.distribution.moments(entry.shape)[1], entry.shape)


@one_thread()
@np.errstate(all="ignore")
def _spread(
    structure: Structure, values: Mapping[str, Value], laws: Mapping[str, Distribution]
) -> tuple[float, str] | None:
    """The largest standard deviation of log rms of what weights give, or of its gradient, and where it is.

    Outputs are left out: few of them stray by their number. Gradients count along chains only, since norms and
    residual sums keep them from piling up.
    """
    widths = Widths(structure.graph, dict(values), laws)
    widths.forward()
    inner = [n for n in structure.weighted if n.id not in structure.heads and isinstance(values.get(n.id), Law)]
    rows = {f"the rms at {n.name}": delta for n in inner if (delta := widths.of(n.id)) is not None}
    if structure.chain > 2:
        backward(structure.graph, widths.values, None, widths.behind.watch)
        found = widths.behind.found
        rows |= {f"the gradient at {n.name}": found[n.id] for n in inner if n.id in found}
    if not rows:
        return None
    deviations = np.sqrt(interval.log_cumulants(np.stack(list(rows.values())))[1]) / 2
    largest = int(np.argmax(deviations))
    return float(deviations[largest]), list(rows)[largest]
