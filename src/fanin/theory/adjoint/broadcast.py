"""Backward through broadcasting: an operand that was repeated gets the sum over its copies."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fanin.theory.adjoint.cotangent import Part, base_of_sum, fresh, summed_out, translated
from fanin.theory.law import FEATURE, Law, subsets
from fanin.theory.records import replace
from fanin.theory.rules.route import ROW, SLOT
from fanin.theory.statistic import pair_counts


def unbroadcast(part: Part, out: Law, x: Law) -> Part:
    """Sum over the axes along which the operand was repeated; otherwise the part as it is, in the operand's words."""
    lead = len(out.shape) - len(x.shape)
    spread = tuple(i for i, n in enumerate(out.shape) if n > 1 and (i < lead or x.shape[i - lead] == 1))
    names = {s: translated(s, x.axes, out.axes) for s in subsets(x.groups)}
    if not spread:
        ratio = {s: part.ratio.get(t, 0.0) for s, t in names.items()}
        ratio |= {s: _of_any(out, x, s, part.ratio) for s in ratio if s == {ROW}}
        second = part.second.reshape(part.second.shape[lead:]) if lead else part.second
        return replace(part, second=second, ratio=ratio, balanced=part.balanced & x.groups)
    groups = frozenset(a.group for i in spread for a in out.axes[i] if a.size > 1)
    gain = _multiplicity(out, spread, groups, lambda s: part.ratio.get(s, 0.0))
    second = summed_out(part.second, out.shape, tuple(i for i in range(len(out.shape)) if i not in spread)) * gain
    second = second.reshape(second.shape[lead:])
    ratio = {s: _between(out, spread, t, part.ratio) / gain if gain else 0.0 for s, t in names.items()}
    if part.values is None and not groups & x.groups:  # of copies, such as heads that share keys
        kept = part.balanced & x.groups
        summed = replace(fresh(second, ratio, matrix=part.matrix, balanced=kept), radial=part.radial, met=part.met)
        return replace(summed, base=base_of_sum(part.base, groups), awaited=True) if part.awaited else summed
    return fresh(second, ratio, part.values)  # copies are of one element: its function is that of their sum


def _of_any(out: Law, x: Law, differ, ratio) -> float:
    """Correlation of any two places along the axes that x tells apart by one name: of pairs however they differ."""
    lead = len(out.shape) - len(x.shape)
    axes = tuple(i + lead for i, axis in enumerate(x.axes) if {a.group for a in axis} == differ)
    pairs = [(groups, p) for groups, p in pair_counts(out, axes) if groups]
    return sum(p * ratio.get(groups, 0.0) for groups, p in pairs if groups != {SLOT}) / sum(p for _, p in pairs)


def _multiplicity(out: Law, spread: tuple[int, ...], groups, ratio: Callable) -> float:
    """Sum of the correlations of one place with all places along ``spread``: n if they are alike, 1 if independent."""
    n = float(np.prod([out.shape[i] for i in spread]))
    total = 0.0
    for differ, p in pair_counts(out, spread):
        total += n * p * (1.0 if not differ else 0.0 if FEATURE in differ else ratio(differ))
    return max(total, 0.0)


def _between(out: Law, spread: tuple[int, ...], differ, ratio) -> float:
    n = float(np.prod([out.shape[i] for i in spread]))
    total = 0.0
    for inner, p in pair_counts(out, spread):
        total += n * p * (0.0 if FEATURE in inner else ratio.get(frozenset(inner | differ), 0.0))
    return total
