"""FAN4xx: the values of the weights themselves."""

from __future__ import annotations

import math
from collections.abc import Iterator

from fanin.checks.case import Case, listed, plural, std_of
from fanin.checks.rule import Seen
from fanin.graph import Kind, Node, Parameter
from fanin.graph.questions import ends_branch

HUGE, TINY = 1e5, 1e-20


def nonfinite(case: Case) -> Iterator[Seen]:
    """NaN or infinity among the values of a parameter or a floating-point buffer in use."""
    bad = {n: p.stats["nonfinite"] for n, p in case.weights.items() if p.stats.get("nonfinite")}
    if bad:
        name = next(iter(bad))
        size = case.weights[name].size
        yield Seen(
            name,
            f"{round(bad[name] * size)} of {size} values are NaN or infinite "
            f"({plural(len(bad), 'parameter')}: {listed(list(bad))})",
            bad[name],
            (0.0, 0.0),
            "a checkpoint that was broken, training that diverged, or memory that was never written",
            "load other weights, or draw them anew: fanin.init_(model, batch)",
        )


def garbage(case: Case) -> Iterator[Seen]:
    """Values that no initialization gives: what lay in memory."""
    bad = [p for p in case.weights.values() if _is_garbage(p)]
    if bad:
        p = bad[0]
        top = max(abs(p.stats["min"]), abs(p.stats["max"]))
        yield Seen(
            p.name,
            f"its largest value is {top:.3g} ({plural(len(bad), 'parameter')}: {listed([b.name for b in bad])})",
            top,
            (TINY, HUGE),
            "memory that was allocated (torch.empty, to_empty) and never written",
            "draw it: fanin.init_(model, batch), or call its module's reset_parameters()",
        )


def _is_garbage(p: Parameter) -> bool:
    top = max(abs(p.stats.get("min", 0.0)), abs(p.stats.get("max", 0.0)))
    return top > HUGE or 0 < top < TINY


def stops(case: Case) -> Iterator[Seen]:
    """Weights of zeros through which all signal has to pass."""
    found = [p for p, nodes in _zeros(case) if any(not _harmless(case, node) for node in nodes)]
    if found:
        yield Seen(
            found[0].name,
            f"all {found[0].size} values are zero, and nothing else carries the signal past it "
            f"({plural(len(found), 'weight')}: {listed([p.name for p in found])})",
            0.0,
            None,
            "never written, or zeroed: neither signal nor gradient passes, and the layers around it do not learn",
            "draw it: fanin.init_(model, batch)",
        )


def zero_branch(case: Case) -> Iterator[Seen]:
    """Zeros at the end of a residual branch or in the head: a choice, and a good one."""
    found = [p for p, nodes in _zeros(case) if nodes and all(_harmless(case, node) for node in nodes)]
    if found:
        yield Seen(
            found[0].name,
            f"{plural(len(found), 'weight')} of zeros at the end of a branch or in the head: "
            f"{listed([p.name for p in found])}",
            float(len(found)),
            None,
            "residual branches that start at zero (zero-gamma, SkipInit, Fixup) make the net start as the identity",
            "nothing to do if it is meant; layers inside the branch get their first gradient after one step",
        )


def _zeros(case: Case) -> Iterator[tuple[Parameter, list[Node]]]:
    """Weights of zeros that multiply the signal, with the nodes that use them."""
    for p in case.weights.values():
        if std_of(p) == 0.0 and (not p.stats or not p.stats.get("nonfinite")):
            yield p, [node for node in case.uses.get(p.name, ()) if _multiplies(case, p, node)]


def _multiplies(case: Case, p: Parameter, node: Node) -> bool:
    ids = {i for i, source in enumerate(node.inputs) if case.graph.by_id[source].attrs.get("parameter") == p.name}
    if node.kind in (Kind.DENSE, Kind.CONV, Kind.EMBED, Kind.NORM):
        return node.attrs.get("weight") in ids
    return node.kind in (Kind.MIX, Kind.PRODUCT)


def _harmless(case: Case, node: Node) -> bool:
    """Zeros end a branch, are the head, or stand in a sum of embeddings."""
    head = case.head is not None and node.id == case.head.node.id
    return head or ends_branch(case.graph, node) is not None


def symmetric(case: Case) -> Iterator[Seen]:
    """Layers whose units all have the same weights."""
    found = [(layer.weight, _how(layer.weight, layer.out_axis)) for layer in case.layers]
    bad = {p.name: (p, how) for p, how in found if how and p.trainable}
    if bad:
        p, how = next(iter(bad.values()))
        yield Seen(
            p.name,
            f"{how} ({plural(len(bad), 'weight')}: {listed(list(bad))})",
            p.stats.get("std", 0.0),
            None,
            "units that start alike get the same gradient and stay alike: the layer has the power of a single unit",
            "draw it at random: fanin.init_(model, batch)",
        )


def _how(p: Parameter, out_axis: int) -> str:
    constant = p.stats.get("std") == 0.0 if p.stats else p.law is not None and p.law.moments(p.shape)[1] == 0.0
    if p.shape[out_axis] < 2 or not std_of(p):
        return ""
    if constant:
        return f"all {p.size} values are {(p.stats.get('mean') if p.stats else std_of(p)):.3g}"
    same = p.stats.get(f"same_{out_axis}", 0.0)
    return f"all {p.shape[out_axis]} units have the same weights" if same else ""


def bias(case: Case) -> Iterator[Seen]:
    """Biases that outweigh the signal they are added to; a prior in the head is meant."""
    for layer in case.layers:
        out, size = case.rms(layer.node), std_of(layer.bias) if layer.bias else None
        head = case.head is not None and layer.node.id == case.head.node.id
        if not size or not out or head or size < 0.5:
            continue
        row = case.row(layer.node)
        rest = row.extra.get("spread", 0.0) if row else 0.0
        rest = rest or math.sqrt(max(out**2 - size**2, 0.0))
        if size > 3 * rest and size > 0.9 * out:
            yield Seen(
                layer.bias.name if layer.bias else layer.node.name,
                f"bias rms {size:.3g} in a layer whose weights add {rest:.3g}",
                size,
                (0.0, 3 * rest),
                "what all samples share outweighs what tells them apart",
                "start biases at zero: fanin.init_(model, batch) does it",
            )
            return
