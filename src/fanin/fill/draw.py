"""``draw``: any slice of any parameter's values, as a NumPy array."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fanin.errors import ArgumentError
from fanin.fill import engine
from fanin.fill.formats import Format, decode, encode, format_of
from fanin.fill.keys import check_seed, key
from fanin.fill.laws import law
from fanin.fill.structured import whole


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
    sizes, format = _shape(shape), format_of(dtype)
    out = np.empty(math.prod(sizes) * format.parts, format.storage)
    fill_slice(out, distribution, sizes, seed=seed, name=name, format=format, start=_offset(offset), sliced=offset != 0)
    return decode(out, format).reshape(sizes)


def fill_slice(
    out: NDArray,
    distribution: Any,
    shape: tuple[int, ...],
    *,
    seed: int,
    name: str,
    format: Format,
    start: int = 0,
    sliced: bool = False,
) -> None:
    """Values ``start`` .. of the tensor of this full ``shape`` into flat storage ``out``.

    With ``sliced``, ``shape`` is the slice's own and the full one is not known.
    """
    generator = law(distribution)
    stream = key(check_seed(seed), name)
    start *= format.parts
    if generator is not None:
        shift = generator.shift
        if format.parts == 2:
            generator = generator._replace(scale=generator.scale * math.sqrt(0.5), shift=0.0)
        engine.fill(out, generator, stream, start, format)
        if format.parts == 2 and shift:
            out[::2] += format.storage.type(shift)
        return
    if distribution.kind == "constant":
        out[...] = encode(np.full(1, distribution.value, format.working), format)
        if format.parts == 2:
            out[1::2] = 0
        return
    if format.parts == 2 or sliced:
        raise ArgumentError(
            f"{distribution} asked for {name!r} " + (f"from offset {start} on" if sliced else f"in {format.name}"),
            cause="its elements depend on each other" if sliced else "it is defined for real weights only",
            remedy="draw the full tensor and slice it" if sliced else "draw the real and imaginary parts by two names",
        )
    full = whole(distribution, shape, seed, name, format.working).reshape(-1)
    out[...] = encode(full[start : start + out.size], format)


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
