"""How a drawn number is stored: float64, float32, the 16-bit formats (rounded from float32), complex64."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fanin.errors import ArgumentError

f32, i32, u32 = np.float32, np.int32, np.uint32
_HALF = f32(0.5)


class Format(NamedTuple):
    """``storage`` holds the bits, ``working`` is what the formulas compute in; a complex value is two parts."""

    name: str
    storage: np.dtype
    working: np.dtype
    parts: int = 1


def bfloat16_bits(x: Any) -> Any:
    """float32 -> the bits of the nearest bfloat16, ties to even, as uint32; for finite x."""
    bits = f32(x).view(u32)
    return u32(u32(bits + u32(0x7FFF) + u32(u32(bits >> u32(16)) & u32(1))) >> u32(16))


def float16_bits(x: Any) -> Any:
    """float32 -> the bits of the nearest float16, ties to even, as int32; subnormals and overflow as IEEE 754 says."""
    bits = f32(x).view(i32)
    sign = i32(i32(bits >> 16) & 0x8000)
    size = i32(bits & 0x7FFFFFFF)
    normal = i32(i32(i32(size + i32(-0x37FFF001)) + i32(i32(size >> 13) & 1)) >> 13)  # rebias by -112, add 0xFFF
    inf = i32(i32(normal - 0x7C00) >> 31)  # -1 where it fits
    normal = i32((normal & inf) | (0x7C00 & i32(~inf)))
    tiny = i32(
        f32(i32(size).view(f32) + _HALF).view(i32) - 0x3F000000
    )  # the last bit of 0.5 is float16's smallest number
    is_tiny = i32(i32(size - 0x38800000) >> 31)
    return i32(sign | (tiny & is_tiny) | (normal & i32(~is_tiny)))


_SINGLE, _DOUBLE, _BITS = np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.uint16)
FORMATS = {
    format.name: format
    for format in (
        Format("float32", _SINGLE, _SINGLE),
        Format("float64", _DOUBLE, _DOUBLE),
        Format("bfloat16", _BITS, _SINGLE),
        Format("float16", _BITS, _SINGLE),
        Format("complex64", _SINGLE, _SINGLE, 2),
        Format("complex128", _DOUBLE, _DOUBLE, 2),
    )
}


def format_of(dtype: Any) -> Format:
    """The Format of a dtype's name or NumPy dtype. Errors: ArgumentError for anything that is not floating-point.

    Example:
        >>> format_of("bfloat16").working.name
        'float32'
    """
    name = dtype if isinstance(dtype, str) else getattr(dtype, "name", None) or np.dtype(dtype).name
    if name not in FORMATS:
        raise ArgumentError(
            f"dtype is {dtype!r}",
            cause="only floating-point numbers can be drawn",
            remedy=f"give one of {', '.join(FORMATS)}",
        )
    return FORMATS[name]


def encode(values: NDArray, format: Format) -> NDArray:
    """Working numbers (float32 or float64) -> storage, rounded to nearest even."""
    if format.name == "bfloat16":
        return bfloat16_bits(values).astype(np.uint16)
    if format.name == "float16":
        return float16_bits(values).astype(np.uint16)
    return values.astype(format.storage, copy=False)


def decode(stored: NDArray, format: Format) -> NDArray:
    """Storage -> an array that NumPy can compute with; bfloat16, which it lacks, becomes float32."""
    if format.name == "bfloat16":
        return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if format.name == "float16":
        return stored.view(np.float16)
    return stored.view({1: format.storage, 2: np.dtype(f"c{2 * format.storage.itemsize}")}[format.parts])
