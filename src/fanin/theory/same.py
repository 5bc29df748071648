"""Whether what a rule was asked of is the same again: equal to rounding, up to the identities of latents and bases.

Laws have the same values, levels and correlations, and latents that are tied to each other in the same way, whatever
their identities. Cotangents may differ by a factor of their mean squares, in which backward rules are linear.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np

from fanin.theory.descent import ROOT, Descent
from fanin.theory.law import Latent, Law
from fanin.theory.records import replace
from fanin.theory.state import Known

ROUNDING = 1e-12
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


def factor_of(old: tuple, new: tuple, names: Names, bases: Names) -> float | None:
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


__all__ = ["Names", "factor_of", "same"]
