"""What flows along the edges of the graph while it is interpreted: laws, known arrays, and what cannot be said."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from weakref import WeakValueDictionary

import numpy as np

from fanin.theory.law import FEATURE, Atom, Axis, Law, constant
from fanin.theory.records import cached_property

SAMPLE, POSITION = "sample", "position"
_counter = itertools.count()


@dataclass(frozen=True, eq=False)
class Known:
    """An array that does not depend on any weight: the batch, masks, positions. It is evaluated, not modelled.

    Attributes:
        padding: of ids, where they are padding that a mask leaves out (see ``padding``).
    """

    array: np.ndarray
    axes: tuple[Axis, ...]
    from_batch: bool = False
    padding: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @cached_property
    def key(self) -> tuple:
        """Equal for equal arrays on the same axes."""
        array = np.ascontiguousarray(self.array)
        digest = hashlib.sha256(array.data if array.size else b"").digest()  # which processors have an instruction for
        padding = b"" if self.padding is None else self.padding.tobytes()
        return digest, array.dtype.str, array.shape, self.axes, self.from_batch, padding

    @cached_property
    def law(self) -> Law:
        """The array as a law without randomness; made once, since masks and rotary tables are read by every layer."""
        return constant(self.shape, self.axes, self.array)


def reshaped(value: Known, shape: tuple[int, ...], axes: tuple[Axis, ...]) -> Known:
    """The same numbers in the same order: neither copied nor read again."""
    padding = None if value.padding is None else value.padding.reshape(shape)
    found = Known(value.array.reshape(shape), axes, value.from_batch, padding)
    digest, dtype, *_, padded = value.key
    vars(found)["key"] = digest, dtype, shape, axes, value.from_batch, padded
    return found


_met: WeakValueDictionary[tuple, Known] = WeakValueDictionary()


def once(value: Known) -> Known:
    """The known array that was met first with these numbers: each layer makes its own mask and rotary table."""
    return _met.setdefault(value.key, value)


@dataclass(frozen=True)
class Ranked:
    """Of places that were picked by rank: what was ranked along which axis, and from which end.

    Attributes:
        of: the latent and its views of what was ranked, and whether that rises with its latent.
    """

    of: tuple
    axis: int
    largest: bool


@dataclass(frozen=True)
class Hidden:
    """Integers or booleans that depend on weights (the experts a router picks): shape and axes, values unknown.

    Attributes:
        ranked: of places, the ranks that they are of, best first.
    """

    shape: tuple[int, ...]
    axes: tuple[Axis, ...]
    ranked: Ranked | None = None


@dataclass(frozen=True)
class Unmodelled:
    """A tensor about which the theory says nothing; ``why`` names the first operation without a rule."""

    shape: tuple[int, ...]
    why: str


Value = Law | Known | Hidden | Unmodelled
Modelled = Law | Known | Hidden
"""What a rule is asked about: the interpreter does not get to one where an input is unmodelled."""


def batch_axes(shape: tuple[int, ...]) -> tuple[Axis, ...]:
    """Axes of a tensor of the batch: the first tells samples apart, others positions until a weight uses them up."""
    return tuple((Atom(n, SAMPLE if i == 0 else POSITION),) for i, n in enumerate(shape))


def free_axes(shape: tuple[int, ...]) -> tuple[Axis, ...]:
    """Axes of a constant: groups of their own, which take the name of the axis they first meet."""
    stem = next(_counter)
    return tuple((Atom(n, f"free{stem}.{i}"),) for i, n in enumerate(shape))


def feature_axes(shape: tuple[int, ...]) -> tuple[Axis, ...]:
    """Axes of a weight: every element is drawn on its own."""
    return tuple((Atom(n, FEATURE),) for n in shape)


def as_law(value: Value) -> Law:
    """A known array as a law without randomness; a law stays what it is; of anything else there is none."""
    if isinstance(value, Law):
        return value
    if isinstance(value, Known):
        return value.law
    raise NotImplementedError(f"values of shape {value.shape} that depend on weights in a way that has no rule")


def is_free(group: str) -> bool:
    """Whether a group belongs to a constant and has not met a signal yet."""
    return group.startswith("free")
