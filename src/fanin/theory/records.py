"""Frozen records with other fields, without running their constructors again, and what they work out once.

``dataclasses.replace`` reads, checks and sets every field one by one: a twentieth of the theory's time on deep models.
``functools.cached_property`` takes a lock before Python 3.12, which costs more than much of what is worked out.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar

R = TypeVar("R")


def replace(record: R, **changes: Any) -> R:
    """The record with these fields changed; what it had worked out from its fields is left behind.

    Example:
        >>> from fanin.theory.adjoint.cotangent import fresh
        >>> replace(fresh(0.0, {}), white=0.5).white
        0.5
    """
    kind: Any = type(record)
    found = _fields(kind)
    if found is None:
        return dataclasses.replace(record, **changes)  # pyright: ignore[reportArgumentType, reportType]
    names, known, read = found
    if not known.issuperset(changes):
        raise TypeError(f"{kind.__name__} has no field {', '.join(sorted(changes.keys() - known))}")
    new = object.__new__(kind)
    held = new.__dict__
    held.update(zip(names, read(record.__dict__), strict=True))
    held.update(changes)
    return new


F = TypeVar("F", bound=Callable)


def remembered(fn: F) -> F:
    """A function of a frozen record and of keys, worked out once for each: every reader of a tensor asks again.

    Arguments are given by position; nothing may be written to what is returned.
    """
    name = f"{fn.__module__}.{fn.__qualname__}"

    @functools.wraps(fn)
    def once(record, *keys):
        found = record.__dict__.get(name)
        if found is None:
            found = record.__dict__[name] = {}
        if keys not in found:
            found[keys] = fn(record, *keys)
        return found[keys]

    return once  # pyright: ignore[reportReturnType]


if TYPE_CHECKING:
    from functools import cached_property
else:

    class cached_property(functools.cached_property):
        """``functools.cached_property`` without a lock: two threads may work out the same number twice."""

        def __get__(self, instance, owner=None):
            if instance is None:
                return self
            found = instance.__dict__[self.attrname] = self.func(instance)
            return found


@lru_cache(maxsize=64)
def _fields(kind: type) -> tuple[tuple[str, ...], frozenset[str], Callable[[dict], tuple]] | None:
    """Fields of records whose constructors do nothing but keep them, and what reads several at once; None of others."""
    plain = not hasattr(kind, "__post_init__") and not hasattr(kind, "__slots__")
    fields = dataclasses.fields(kind)
    names = tuple(f.name for f in fields)
    if not plain or len(names) < 2 or not all(f.init for f in fields):
        return None
    return names, frozenset(names), itemgetter(*names)


__all__ = ["cached_property", "remembered", "replace"]
