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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np

from fanin.graph import Kind, Node
from fanin.theory import jointly
from fanin.theory.descent import ROOT, Descent, renamed
from fanin.theory.law import Latent, Law, fresh_latent
from fanin.theory.records import replace
from fanin.theory.state import Known, Value

ROUNDING = 1e-12
REMEMBERED = 512  # nodes; repeated blocks follow each other
PURE = frozenset(
    (Kind.DENSE, Kind.CONV, Kind.POINTWISE, Kind.SUM, Kind.PRODUCT, Kind.NORM, Kind.SOFTMAX, Kind.MIX, Kind.ATTENTION,
     Kind.POOL, Kind.REDUCE)
)  # fmt: skip
"""Kinds whose rules read their arguments only; look-ups and routes are tied to the node itself."""


OF_PARTS = frozenset(("base", "second", "radial", "divided", "chosen", "given", "loads", "beside"))
"""What parts hold that is compared by names that go with each other."""
OF_LATENTS = ("id", "source", "mean_of", "length_of", "terms", "descent", "lineage", "heard")
"""Fields of a latent that name others."""


@dataclass
class Names:
    """Identities of the earlier node's latents (or bases) in terms of the new one's; one to one."""

    there: dict[int, int] = field(default_factory=dict)
    back: dict[int, int] = field(default_factory=dict)

    def agree(self, a: int, b: int) -> bool:
        return self.there.setdefault(a, b) == b and self.back.setdefault(b, a) == a


def same(a: Any, b: Any, names: Names) -> bool:
    """Whether two arguments are equal to rounding, up to identities of latents."""
    if isinstance(a, Latent) and isinstance(b, Latent):
        return _same_latent(a, b, names)
    if isinstance(a, Law) and isinstance(b, Law):
        own = all(same(getattr(a, f.name), getattr(b, f.name), names) for f in fields(a) if f.name != "given")
        return own and same_given(a.given, b.given, names)
    if isinstance(a, Known) and isinstance(b, Known):
        return a.key == b.key and _same_reading(a, b, names)
    if a is b:
        return True
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return _same_array(a, b)
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b) <= ROUNDING * max(1.0, abs(b)) if np.isfinite(a) else a == b
    if isinstance(a, tuple | list) and type(a) is type(b):
        return len(a) == len(b) and all(same(x, y, names) for x, y in zip(a, b, strict=True))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(v, b[k], names) for k, v in a.items())
    if callable(a) and callable(b):
        return _same_function(a, b)
    if is_dataclass(a) and type(a) is type(b):
        return all(same(getattr(a, f.name), getattr(b, f.name), names) for f in fields(a))
    return type(a) is type(b) and bool(a == b)


def same_given(a: Mapping, b: Mapping, names: Names) -> bool:
    """Whether the same is known given latents that go with each other."""
    if len(a) != len(b):
        return False
    pairs = zip(a.items(), b.items(), strict=True)
    return all(i[1:] == j[1:] and names.agree(i[0], j[0]) and same(g, h, names) for (i, g), (j, h) in pairs)


def _same_reading(a: Known, b: Known, names: Names) -> bool:
    """Results remember the known array that they were made of by the latent of its law, where it was read as one."""
    if "law" not in vars(a):
        return True
    return names.agree(a.law.latent.id, b.law.latent.id)


def _same_latent(a: Latent, b: Latent, names: Names) -> bool:
    """Ids are identities, also those of the latents that these came from; everything else is a number."""
    ids = list(zip(_ids(a), _ids(b), strict=True))
    if any((x is None) != (y is None) for x, y in ids):
        return False
    if not all(names.agree(x, y) for x, y in ids if x is not None and y is not None):
        return False
    rest = [f.name for f in fields(a) if f.name not in OF_LATENTS]
    kinds = [
        (
            c.source and replace(c.source, id=0, descent=()),
            c.mean_of and c.mean_of[1:],
            c.length_of and c.length_of[1:],
        )
        for c in (a, b)
    ]
    if not _same_descent(_descents(a), _descents(b), names):
        return False
    return same(kinds[0], kinds[1], names) and all(same(getattr(a, n), getattr(b, n), names) for n in rest)


def _descents(latent: Latent) -> Descent:
    """Of the latent and of its lengths, of keys that it remembers, and of channels that it heard."""
    of_keys = latent.source.descent if latent.source is not None else ()
    return (*latent.descent, *latent.lineage, *latent.heard, *of_keys)


def _same_descent(a: Descent, b: Descent, names: Names) -> bool:
    """The same shares of tensors that go with each other."""
    alike = (
        (i == ROOT) == (j == ROOT) and names.agree(i, j) and same(rest, others, names)
        for (i, *rest), (j, *others) in zip(a, b, strict=False)
    )
    return len(a) == len(b) and all(alike)


def _ids(latent: Latent) -> tuple[int | None, ...]:
    source, of = latent.source, (latent.mean_of, latent.length_of)
    return latent.id, source.id if source is not None else None, *(o[0] if o is not None else None for o in of)


def _same_array(a: np.ndarray, b: np.ndarray) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.kind != "f":
        return bool(np.array_equal(a, b))
    with np.errstate(invalid="ignore"):
        return bool(np.all((np.abs(a - b) <= ROUNDING * np.abs(b)) | (a == b)))


def _same_function(a: Callable, b: Callable) -> bool:
    """Functions that a front end gave the same key, or the same code on the same numbers."""
    key = getattr(a, "key", None)
    if key is not None:
        return key == getattr(b, "key", None)
    if getattr(a, "__code__", 0) != getattr(b, "__code__", 1):
        return False
    cells = [[c.cell_contents for c in f.__closure__ or ()] + list(f.__defaults__ or ()) for f in (a, b)]
    return same(cells[0], cells[1], Names())


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
            factor = _factor(before[2].parts, g.parts, names, bases)
            if factor is not None:
                self.reused += 1
                old, new = (
                    [*laws, *(y for p in parts for y in p.beside)]
                    for laws, parts in ((before[1], before[2].parts), (inputs, g.parts))
                )
                return _again(before[3], names, bases, factor, {id(a): b for a, b in zip(old, new, strict=True)})
        result = solve()
        bare = lambda parts: [replace(p) for p in parts]  # without mean squares place by place  # noqa: E731
        self._keep(hint, (node, inputs, replace(g, parts=tuple(bare(g.parts))), [bare(one) for one in result]))
        return result

    def _keep(self, hint: tuple, entry: tuple) -> None:
        self.solved[hint] = entry
        self.solved.move_to_end(hint)
        if len(self.solved) > REMEMBERED:
            self.solved.popitem(last=False)


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


def _factor(old: tuple, new: tuple, names: Names, bases: Names) -> float | None:
    """By what all mean squares of the new parts are larger than those of the old; None where they are not alike."""
    if len(old) != len(new) or not old:
        return None
    factor = _ratio(old, new)
    for a, b in zip(old, new, strict=True):
        fixed = a.base < 0 or b.base < 0  # a function of the latent alone: no base to be renamed or scaled
        if (a.base != b.base or factor != 1.0) if fixed else not bases.agree(a.base, b.base):
            return None
        if not _same_array(a.second * factor, b.second):
            return None
        rest = [f.name for f in fields(a) if f.name not in OF_PARTS]
        if not all(same(getattr(a, n), getattr(b, n), names) for n in rest) or not _same_radial(a, b, bases):
            return None
        if not same_given(a.given, b.given, names) or not _same_roots(a, b, names, bases):
            return None
        if not _same_divided(a.divided, b.divided, names) or not _same_chosen(a.chosen, b.chosen, names, bases):
            return None
    return factor


def _same_roots(a: Any, b: Any, names: Names, bases: Names) -> bool:
    """Sums of bases that go with each other, beside factors whose latents do."""
    if len(a.loads) != len(b.loads) or len(a.beside) != len(b.beside):
        return False
    loads = zip(a.loads.items(), b.loads.items(), strict=True)
    factors = zip(a.beside, b.beside, strict=True)
    return all(bases.agree(i, j) and abs(x - y) <= ROUNDING for (i, x), (j, y) in loads) and all(
        names.agree(x.latent.id, y.latent.id) for x, y in factors
    )


def _same_divided(a: Any, b: Any, names: Names) -> bool:
    """Divided by the variances of latents that go with each other."""
    if a is None or b is None:
        return a is b
    return names.agree(a.latent, b.latent) and same(replace(a, latent=0), replace(b, latent=0), names)


def _same_chosen(a: Any, b: Any, names: Names, bases: Names) -> bool:
    """Made of the same rows, with values whose numbers go with each other."""
    if a is None or b is None:
        return a is b
    one, other = (replace(c, values=replace(c.values, name=0)) for c in (a, b))
    return bases.agree(a.values.name, b.values.name) and same(one, other, names)


def _same_radial(a: Any, b: Any, bases: Names) -> bool:
    """Equal coefficients on numbers whose identities go with each other, as those of bases do."""
    if a.radial is None or b.radial is None:
        return a.radial is b.radial
    pairs = list(zip(a.radial.items(), b.radial.items(), strict=False))
    alike = all(_agree(i, j, bases) and _close(x, y) for (i, x), (j, y) in pairs)
    return alike and len(a.radial) == len(b.radial)


def _close(x: Any, y: Any) -> bool:
    """Whether two numbers, or numbers by positions, are equal but for rounding."""
    if x is y:
        return True
    return np.shape(x) == np.shape(y) and bool(np.all(np.abs(x - y) <= ROUNDING * np.maximum(1.0, np.abs(y))))


def _agree(a: Any, b: Any, bases: Names) -> bool:
    if is_dataclass(a) or is_dataclass(b):  # of copies (``adjoint.copies``)
        return type(a) is type(b) and bases.agree(a.name, b.name)  # type: ignore[union-attr]
    return bases.agree(a, b)


def _ratio(old: tuple, new: tuple) -> float:
    sizes = [sum(float(np.mean(p.second)) for p in parts) for parts in (old, new)]
    return sizes[1] / sizes[0] if sizes[0] > 0 else 1.0


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
