"""Repeated blocks are not solved again: a rule's result is used anew where its inputs repeat.

Two nodes are alike if kind, numbers and shapes agree and their inputs are equal to rounding: laws with the same values,
levels and correlations, whose latents are tied to each other in the same way, whatever their identities. The result is
then the earlier one with latents (and, backward, bases) renamed: those of the inputs to those of the new inputs, others
to fresh ones. Backward rules are linear in the mean squares of the bases, so cotangents may differ by a factor, which
the result gets: a chain at its fixed point is solved once, however its gradient grows.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, is_dataclass
from typing import Any

import numpy as np

from fanin.graph import Kind, Node
from fanin.theory import jointly
from fanin.theory.descent import renamed
from fanin.theory.law import Law, fresh_latent
from fanin.theory.records import replace
from fanin.theory.same import Names, factor_of, same
from fanin.theory.state import Value

REMEMBERED = 512  # nodes; repeated blocks follow each other
PURE = frozenset(
    (Kind.DENSE, Kind.CONV, Kind.POINTWISE, Kind.SUM, Kind.PRODUCT, Kind.NORM, Kind.SOFTMAX, Kind.MIX, Kind.ATTENTION,
     Kind.POOL, Kind.REDUCE)
)  # fmt: skip
"""Kinds whose rules read their arguments only; look-ups and routes are tied to the node itself."""


def _alike(a: Node, b: Node) -> bool:
    return (a.kind, a.op, a.shape, a.dtype) == (b.kind, b.op, b.shape, b.dtype) and same(a.attrs, b.attrs, Names())


def _near(a: tuple[Value, ...], b: tuple[Value, ...]) -> bool:
    """Whether laws have equal correlations between places, which tell layers apart, before all else is compared."""
    laws = (
        (x.latent.corr, y.latent.corr) for x, y in zip(a, b, strict=False) if isinstance(x, Law) and isinstance(y, Law)
    )
    return all(x is y or same(x, y, Names()) for x, y in laws)


def _hint(node: Node, inputs: tuple[Value, ...], more: tuple = ()) -> tuple:
    """Equal for nodes that may be alike; much cheaper than comparing them."""
    laws = [v for v in inputs if isinstance(v, Law)]
    few = tuple((v.level.size, v.moments.hint) for v in laws)
    return node.kind, node.op, node.shape, few, more


@dataclass
class Memory:
    """What was solved lately, forward or backward."""

    solved: OrderedDict[tuple, tuple] = field(default_factory=OrderedDict)
    reused: int = 0

    def law(self, node: Node, inputs: tuple[Value, ...], solve: Callable[[], Value]) -> Value:
        """The law that ``solve`` would find."""
        if node.kind not in PURE:
            return solve()
        hint = _hint(node, inputs)
        before, names = self.solved.get(hint), Names()
        if (
            before is not None
            and _near(before[1], inputs)
            and _alike(before[0], node)
            and same(before[1], inputs, names)
        ):
            again = next((new for old, new in zip(before[1], inputs, strict=True) if old is before[2]), None)
            if again is not None or not (_skips(node, before[1]) or _skips(node, inputs)):
                self.reused += 1
                return again if again is not None else _renamed(before[2], names, before[1], inputs)
        result = solve()
        if isinstance(result, Law):
            self._keep(hint, (node, inputs, result))
        return result

    def parts(self, node: Node, g: Any, inputs: tuple[Value, ...], solve: Callable[[], list[list]]) -> list[list]:
        """The parts that ``solve`` would send to each input of a node with cotangent ``g``."""
        if node.kind not in PURE:
            return solve()
        hint = _hint(node, (*inputs, g.law), (*(p.values is None for p in g.parts), *g.meets))
        before, names, bases = self.solved.get(hint), Names(), Names()
        if (
            before is not None
            and _near((*before[1], before[2].law), (*inputs, g.law))
            and _alike(before[0], node)
            and same((*before[1], before[2].law), (*inputs, g.law), names)
        ):
            factor = factor_of(before[2].parts, g.parts, names, bases)
            if factor is not None:
                self.reused += 1
                old, new = (
                    [*laws, *(y for p in parts for y in p.beside)]
                    for laws, parts in ((before[1], before[2].parts), (inputs, g.parts))
                )
                return _again(before[3], names, bases, factor, {id(a): b for a, b in zip(old, new, strict=True)})
        result = solve()
        self._keep(hint, (node, inputs, replace(g, parts=tuple(_bare(g.parts))), [_bare(one) for one in result]))
        return result

    def _keep(self, hint: tuple, entry: tuple) -> None:
        self.solved[hint] = entry
        self.solved.move_to_end(hint)
        if len(self.solved) > REMEMBERED:
            self.solved.popitem(last=False)


def _bare(parts: Iterable[Any]) -> list[Any]:
    """Parts without what was worked out of them: mean squares place by place."""
    return [replace(p) for p in parts]


def _skips(node: Node, inputs: tuple[Value, ...]) -> bool:
    """Whether summands have something in common, which no other argument of the rule says."""
    laws = [v for v in inputs if isinstance(v, Law)]
    if len(laws) != 2:
        return False
    return jointly.met(*laws) or (node.kind is Kind.SUM and laws[0].latent.in_common(laws[1].latent) != 0)


def _terms(
    law: Law, name: Callable[[int], int], before: tuple[Value, ...], now: tuple[Value, ...]
) -> dict[tuple, float]:
    """What the new result is a sum of: of inputs what these are made of, in the shares of the earlier result."""
    left, found = dict(law.latent.terms), {}
    for old, new in zip(before, now, strict=True):
        if isinstance(old, Law) and isinstance(new, Law):
            if old.latent.id == law.latent.id:
                return dict(new.latent.terms)
            made_of = old.latent.made_of
            most = max(made_of, key=lambda key: abs(made_of[key]))
            share = left.get(most, 0.0) / made_of[most]
            for key in made_of:
                left.pop(key, None)
            for key, c in new.latent.made_of.items() if share else ():
                found[key] = found.get(key, 0.0) + share * c
    return found | {(name(key[0]), *key[1:]): c for key, c in left.items()}


def _renamed(law: Law, names: Names, before: tuple[Value, ...], now: tuple[Value, ...]) -> Law:
    """The law on the new inputs' latent, or on a fresh one; what was worked out of its values stays."""
    unknown: dict[int, int] = {}

    def name(old: int) -> int:
        if old in names.there:
            return names.there[old]
        return unknown.setdefault(old, fresh_latent({}).id)

    old, new = law.latent, copy.copy(law)
    latent = replace(
        old,
        id=name(old.id),
        source=old.source and replace(old.source, id=name(old.source.id), descent=renamed(old.source.descent, name)),
        descent=renamed(old.descent, name),
        lineage=renamed(old.lineage, name),
        heard=renamed(old.heard, name),
        mean_of=old.mean_of and (name(old.mean_of[0]), *old.mean_of[1:]),
        length_of=old.length_of and (name(old.length_of[0]), *old.length_of[1:]),
        terms=_terms(law, name, before, now),
    )
    object.__setattr__(new, "latent", latent)
    if law.given:
        object.__setattr__(new, "given", {(name(key[0]), *key[1:]): g for key, g in law.given.items()})
    return new


def _again(
    sent: list[list], names: Names, bases: Names, factor: float, laws: Mapping[int, Any] | None = None
) -> list[list]:
    from fanin.theory.adjoint.cotangent import fresh

    fresh_bases: dict[int, int] = {}

    def base(old: Any) -> Any:
        if is_dataclass(old):  # of copies (``adjoint.copies``)
            return replace(old, name=base(old.name))  # type: ignore[type-var]
        if old < 0:
            return old
        if old in bases.there:
            return bases.there[old]
        return fresh_bases.setdefault(old, fresh(np.zeros(()), {}).base)

    def named(radial: Mapping[int, float] | None) -> Mapping[int, float] | None:
        return radial if radial is None else {base(i): value for i, value in radial.items()}

    def divided(p: Any) -> Any:
        return p.divided and replace(p.divided, latent=names.there.get(p.divided.latent, p.divided.latent))

    def chosen(p: Any) -> Any:
        return p.chosen and replace(p.chosen, values=replace(p.chosen.values, name=base(p.chosen.values.name)))

    def given(p: Any) -> Any:
        return {(names.there.get(key[0], key[0]), *key[1:]): g for key, g in p.given.items()}

    def again(p: Any) -> Any:
        of, size = tuple(again(one) for one in p.same), p.second * factor
        told = {"radial": named(p.radial), "divided": divided(p), "chosen": chosen(p), "given": given(p)}
        if p.loads or p.beside:
            told["loads"] = {base(i): value for i, value in p.loads.items()}
            told["beside"] = tuple((laws or {}).get(id(y), y) for y in p.beside)
        return replace(p, base=base(p.base), second=size, same=of, **told)

    return [[again(p) for p in one] for one in sent]


__all__ = ["Memory", "same"]
