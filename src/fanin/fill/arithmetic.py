"""From random bits to numbers: each formula once, in operations that IEEE 754 defines to the last bit.

The same lines run over NumPy arrays (the reference) and, compiled by Numba, over single numbers that LLVM then
vectorises. Only +, -, *, /, sqrt and conversions are used, each rounded once, no fused multiply-add and no
library function, so every machine gets the same bits. Numba widens int32 results to int64 and NumPy does not,
and Numba reads the bits of a number only right after a cast: hence the many ``i32(...)`` and ``f32(...)``.
A choice is made with masks, because branches do not vectorise.

The polynomials are minimax or Chebyshev fits made for this file in 40-digit arithmetic; the relative error of
each is beside it. They are evaluated by Estrin's scheme where latency counts, by Horner's elsewhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np

f32, i32, u32 = np.float32, np.int32, np.uint32

ONE, TWO, HALF, FIVE = f32(1), f32(2), f32(0.5), f32(5)
TO_UNIT_23, TO_UNIT_30, TO_UNIT_31 = f32(2.0**-23), f32(2.0**-30), f32(2.0**-31)
MINUS_TWO_LN2 = f32(-1.3862943611198906)
ROOT_HALF_BITS = i32(0x3F3504F3)  # sqrt(1/2), where the logarithm's mantissa interval begins
SHIFT_CENTRE, SHIFT_TAIL = f32(2.5), f32(3.5)
# fmt: off
LOG = tuple(map(f32, (  # -2 log(1 + f) / f on [sqrt(1/2) - 1, sqrt(2) - 1]; 2.6e-8
    -1.999999948, 0.9999997596, -0.6666837099, 0.5000414562, -0.3991367375, 0.331248407, -0.2990452167,
    0.2873334649, -0.1744435793)))
SIN = tuple(map(f32, (  # sin(pi t / 2) / t in t^2, |t| <= 1/2; 3.2e-9
    1.57079632170863864, -0.645963460255392924, 0.0796800330029833229, -0.00460165847186337003)))
COS = tuple(map(f32, (  # cos(pi t / 2) in t^2, |t| <= 1/2; 5.6e-11
    0.999999999943949563, -1.2337005395655192, 0.253669182610835694, -0.0208599361281755303, 0.000903363183850422423)))
CENTRE = tuple(map(f32, (  # sqrt(2) erfinv(y) / y in w - 2.5, w = -log(1 - y^2) <= 5; 9.4e-8
    2.123313567, 0.3488026598, -0.005908170989, -0.001773009926, 0.0003091502704, -6.218075251e-6, -4.990594462e-6,
    4.861117714e-7, 4.035765158e-8)))
TAIL = tuple(map(f32, (  # the same in sqrt(w) - 3.5, 5 <= w <= 21.6; 1.6e-8
    4.717089173, 1.424635189, 0.004632775652, -0.002925581036, 0.001555564581, -0.000929650096, 0.0005876535205,
    -0.0003728160669, 0.0001338358095, 3.490138576e-5, -3.132707208e-5)))
# fmt: on


def blend32(mask: Any, where_set: Any, elsewhere: Any) -> Any:
    """float32: ``where_set`` where the int32 ``mask`` is -1, ``elsewhere`` where it is 0."""
    return i32((f32(where_set).view(i32) & mask) | (f32(elsewhere).view(i32) & i32(~mask))).view(f32)


def split32(x: Any) -> tuple[Any, Any]:
    """x = 2^k (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)): (k, f), for normal positive float32."""
    bits = i32(f32(x).view(i32) - ROOT_HALF_BITS)
    return i32(bits >> 23), i32(i32(bits & 0x7FFFFF) + ROOT_HALF_BITS).view(f32) - ONE


def minus_two_log32(k: Any, f: Any) -> Any:
    """-2 log(2^k (1 + f))."""
    f2 = f * f
    f4 = f2 * f2
    low = (LOG[0] + LOG[1] * f) + (LOG[2] + LOG[3] * f) * f2
    high = (LOG[4] + LOG[5] * f) + (LOG[6] + LOG[7] * f) * f2
    return f * (low + (high + LOG[8] * f4) * f4) + f32(k) * MINUS_TWO_LN2


def radius32(word: Any) -> Any:
    """sqrt(-2 log u) with u = (m + 1/2) / 2^31, m the upper 31 bits: from 1.5e-5 to 6.66.

    Near u = 1 the logarithm is taken of the exact 1 - u, so that small radii keep their precision.
    """
    m = i32(word >> 1)
    k, f = split32(f32(m) + HALF)
    below_one = -((f32(i32(m ^ 0x7FFFFFFF)) + HALF) * TO_UNIT_31)
    k = i32(k - 31)
    return np.sqrt(minus_two_log32(k, blend32(i32(k >> 31), f, below_one)))


def turn32(word: Any) -> tuple[Any, Any]:
    """(cos a, sin a) with a = 2 pi b / 2^32, b the word as a signed integer; the quadrant is found in integers."""
    b = u32(word).view(i32)
    quadrant = i32(i32(b + i32(0x20000000)) >> 30)
    t = f32(i32(b - i32(quadrant << 30))) * TO_UNIT_30
    t2 = t * t
    t4 = t2 * t2
    sin = t * ((SIN[0] + SIN[1] * t2) + (SIN[2] + SIN[3] * t2) * t4)
    cos = (COS[0] + COS[1] * t2) + ((COS[2] + COS[3] * t2) + COS[4] * t4) * t4
    s, c, odd = f32(sin).view(i32), f32(cos).view(i32), i32(-i32(quadrant & 1))
    swap = i32((s ^ c) & odd)
    sign_sin, sign_cos = i32(i32(quadrant & 2) << 30), i32(i32(i32(quadrant + 1) & 2) << 30)
    return i32(c ^ swap ^ sign_cos).view(f32), i32(s ^ swap ^ sign_sin).view(f32)


def signed_unit32(word: Any) -> Any:
    """Uniform on (-1, 1): the middles of 2^24 equal intervals, so symmetric and never 0."""
    return (f32(i32(u32(word).view(i32) >> 8)) + HALF) * TO_UNIT_23


def sign32(word: Any) -> Any:
    """-1 or +1, by the word's first bit."""
    return i32(i32(u32(word).view(i32) & i32(-0x80000000)) | 0x3F800000).view(f32)


def quantile32(word: Any, edge: Any, tail: Any, bound: Any, far: Any) -> Any:
    """Standard normal truncated to [-bound, bound], by the inverse of its distribution function.

    ``edge`` = erf(bound / sqrt(2)), ``tail`` = 1 - edge; ``far`` says that bound > 2.9, where the second polynomial
    comes in. With q uniform on (0, 1): 1 - |y| = tail + q edge, z = sqrt(2) erfinv(y), as a function of
    w = -log(1 - y^2).

    Source: Giles 2010, Approximating the erfinv function, doi:10.1016/B978-0-12-385963-1.00010-1 (the form in w).
    """
    below_one = tail + (f32(i32(word >> 1)) + HALF) * TO_UNIT_31 * edge
    k, f = split32(below_one * (TWO - below_one))
    w = HALF * minus_two_log32(k, f)
    ratio = _centre32(w - SHIFT_CENTRE)
    if far:
        ratio = blend32(i32(f32(w - FIVE).view(i32) >> 31), ratio, _tail32(np.sqrt(w) - SHIFT_TAIL))
    z = ratio * (ONE - below_one)
    z = blend32(i32(f32(z - bound).view(i32) >> 31), z, bound)  # rounding may step over the bound
    return i32(f32(z).view(i32) ^ i32(i32(word & 1) << 31)).view(f32)


def _centre32(w: Any) -> Any:
    w2 = w * w
    w4 = w2 * w2
    low = (CENTRE[0] + CENTRE[1] * w) + (CENTRE[2] + CENTRE[3] * w) * w2
    high = (CENTRE[4] + CENTRE[5] * w) + (CENTRE[6] + CENTRE[7] * w) * w2
    return low + (high + CENTRE[8] * w4) * w4


def _tail32(w: Any) -> Any:
    value = TAIL[10]
    for i in range(9, -1, -1):
        value = value * w + TAIL[i]
    return value
