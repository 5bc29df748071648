"""``draw``: any slice of any parameter's values, as a NumPy array."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fanin.errors import ArgumentError
from fanin.fill.formats import decode, format_of
from fanin.fill.jobs import Job, run
from fanin.fill.keys import check_seed
from fanin.fill.laws import STRUCTURED


def draw(
    shape: int | Sequence[int], distribution: Any, *, seed: int, name: str, dtype: Any = "float32", offset: int = 0
) -> NDArray:
    """The values of one parameter, or a slice of them; value i depends on (seed, name, i) and the distribution alone.

    Args:
        shape: of the array to return.
        distribution: one of ``fanin.distributions``.
        seed: 0 <= seed < 2**64.
        name: the parameter's fully qualified name.
        dtype: "float32", "float64", "float16", "bfloat16" (returned as float32, rounded: NumPy has no bfloat16),
            "complex64" or "complex128" (std^2 is split evenly over the two parts).
        offset: index, in the row-major order of the full tensor, of the first value to return.

    Errors: ArgumentError for a wrong shape, seed, name, dtype or offset, and for an ``offset`` with laws whose
    elements depend on each other (orthogonal, sparse, identity): their slices are cut from the full tensor.

    Example:
        >>> from fanin.distributions import Normal
        >>> full = draw((4, 1000), Normal(0.02), seed=0, name="fc.weight")
        >>> bool((draw(1000, Normal(0.02), seed=0, name="fc.weight", offset=2000) == full[2]).all())
        True
    """
    sizes, format, start = _shape(shape), format_of(dtype), _offset(offset)
    if start and getattr(distribution, "kind", None) in (*STRUCTURED, "stacked"):
        raise ArgumentError(
            f"{distribution} asked for {name!r} from offset {start} on",
            cause="its elements depend on each other, or on their place in the full tensor",
            remedy="draw the full tensor and slice it",
        )
    out = np.empty(math.prod(sizes) * format.parts, format.storage)
    run([Job(out.ctypes.data, out.size, name, sizes, distribution, format, start)], check_seed(seed))
    return decode(out, format).reshape(sizes)


def _shape(shape: Any) -> tuple[int, ...]:
    try:
        sizes = tuple(operator.index(n) for n in (shape if isinstance(shape, Sequence) else (shape,)))
    except TypeError:
        sizes = (-1,)
    if min(sizes, default=0) < 0:
        raise ArgumentError(f"shape is {shape!r}", remedy="give whole numbers of 0 or more")
    return sizes


def _offset(offset: Any) -> int:
    try:
        value = -1 if isinstance(offset, bool) else operator.index(offset)
    except TypeError:
        value = -1
    if not 0 <= value < 2**62:
        raise ArgumentError(f"offset is {offset!r}", remedy="give the flat index of the first value, 0 or more")
    return value
