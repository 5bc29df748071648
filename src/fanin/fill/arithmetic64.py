"""``arithmetic`` in double precision: 53-bit uniforms made of two words each, and longer polynomials.

Words 0 and 1 of a counter make one 64-bit word, words 2 and 3 another, so a counter gives two float64 values.
The rules of ``arithmetic`` hold here too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

f64, i64 = np.float64, np.int64

MINUS_TWO_LN2 = -1.3862943611198906188
ROOT_HALF_BITS = 0x3FE6A09E667F3BCD
MANTISSA = 0xFFFFFFFFFFFFF
# fmt: off
ATANH = (  # -4 atanh(s) / s in s^2, s^2 <= 0.02944; 1.1e-18
    -4.0, -1.33333333333335305, -0.799999999985969538, -0.571428575228727663, -0.444443939576798222,
    -0.363672711981144602, -0.306248607328849239, -0.296213378827138026)
SIN = (  # sin(pi t / 2) / t in t^2, |t| <= 1/2; 3.3e-18
    1.57079632679489661, -0.645964097506244242, 0.0796926262460395753, -0.00468175413228267678,
    0.000160441150293667358, -3.59864176167915641e-6, 5.63372198207075211e-8)
COS = (  # cos(pi t / 2) in t^2, |t| <= 1/2; 3.6e-20
    1.0, -1.23370055013616981, 0.253669507901046574, -0.020863480763308001, 0.000919260274146744938,
    -0.0000252020365580635353, 4.71060357726313916e-7, -6.32055689711475075e-9)
CENTRE = (  # sqrt(2) erfinv(y) / y in w - 3.125, w = -log(1 - y^2) <= 6.25; 7.8e-18
    2.33862071002659329, 0.339634958701138918, -0.00853289917726734382, -0.00104751156948561696,
    0.000264082049540616716, -0.0000196328528636964409, -1.93106502752988068e-6, 5.98889486127731827e-7,
    -4.11117416055044533e-8, -5.81618016767148523e-9, 1.48665435690836252e-9, -7.65698113492014941e-11,
    -1.83548025775593893e-11, 3.72012672095353287e-12, -1.14154271373908957e-13, -5.65968707306181088e-14,
    9.22255829672462588e-15, -5.57226748086414891e-17, -1.72755197905271777e-16, 2.19355653524845763e-17,
    8.59141909497500056e-19, -4.9122416603404585e-19, 2.82738059095786557e-20, 4.51702010660484978e-21,
    -5.08155626321750377e-22)
TAIL = (  # the same in sqrt(w) - 4.25, 6.25 <= w <= 36.9; 1.6e-16
    5.78727786601232914, 1.42832497726365111, 0.00100798067786823879, -0.000859691977775125481,
    0.000300063186409881142, -0.0000911032890959583674, 0.0000310845891329557104, -0.0000144216557819900598,
    8.21274062376354635e-6, -4.54128036738291908e-6, 2.10737490168019992e-6, -7.28580195457994748e-7,
    1.32004731710905424e-7, 3.6089212218759584e-8, -4.26957541081811694e-8, 1.91139560811336514e-8,
    -4.29345155521416644e-9, -3.32806448501617414e-10, 6.34573212912935799e-10, -2.37694847611456377e-10,
    5.37926078393702228e-11, -3.97342841372413529e-12, -6.89065342305162045e-12, 3.73877719257497792e-12,
    -3.21872433850854838e-13, -2.09703530717505784e-13, 4.2668871783917458e-14)
# fmt: on


def join(high: Any, low: Any) -> Any:
    """Two 32-bit words as one signed 64-bit integer."""
    return i64(i64(high) << 32) | i64(low)


def blend64(mask: Any, where_set: Any, elsewhere: Any) -> Any:
    """float64: ``where_set`` where the int64 ``mask`` is -1, ``elsewhere`` where it is 0."""
    return i64((f64(where_set).view(i64) & mask) | (f64(elsewhere).view(i64) & ~mask)).view(f64)


def split64(x: Any) -> tuple[Any, Any]:
    """x = 2^k (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)): (k, f), for normal positive float64."""
    bits = f64(x).view(i64) - ROOT_HALF_BITS
    return bits >> 52, i64((bits & MANTISSA) + ROOT_HALF_BITS).view(f64) - 1.0


def minus_two_log64(k: Any, f: Any) -> Any:
    """-2 log(2^k (1 + f)), by log(1 + f) = 2 atanh(f / (2 + f))."""
    s = f / (2.0 + f)
    z = s * s
    value = ATANH[7]
    for i in range(6, -1, -1):
        value = value * z + ATANH[i]
    return s * value + f64(k) * MINUS_TWO_LN2


def radius64(bits: Any) -> Any:
    """sqrt(-2 log u) with u = (m + 1/2) / 2^53, m the upper 53 bits: up to 8.65."""
    m = (bits >> 11) & 0x1FFFFFFFFFFFFF
    k, f = split64(f64(m) + 0.5)
    below_one = -((f64(m ^ 0x1FFFFFFFFFFFFF) + 0.5) * 2.0**-53)
    k = k - 53
    return np.sqrt(minus_two_log64(k, blend64(k >> 63, f, below_one)))


def turn64(bits: Any) -> tuple[Any, Any]:
    """(cos a, sin a) with a = 2 pi b / 2^64, b the signed integer."""
    quadrant = i64(bits + 0x2000000000000000) >> 62
    t = f64(i64(bits - i64(quadrant << 62))) * 2.0**-62
    t2 = t * t
    sin, cos = SIN[6], COS[7]
    for i in range(5, -1, -1):
        sin = sin * t2 + SIN[i]
    for i in range(6, -1, -1):
        cos = cos * t2 + COS[i]
    s, c, odd = f64(t * sin).view(i64), f64(cos).view(i64), -(quadrant & 1)
    swap = (s ^ c) & odd
    sign_sin, sign_cos = (quadrant & 2) << 62, ((quadrant + 1) & 2) << 62
    return i64(c ^ swap ^ sign_cos).view(f64), i64(s ^ swap ^ sign_sin).view(f64)


def signed_unit64(bits: Any) -> Any:
    """Uniform on (-1, 1): the middles of 2^53 equal intervals."""
    return (f64(bits >> 11) + 0.5) * 2.0**-52


def sign64(bits: Any) -> Any:
    """-1 or +1, by the first bit."""
    return i64((bits & -0x8000000000000000) | 0x3FF0000000000000).view(f64)


def quantile64(bits: Any, edge: Any, tail: Any, bound: Any, far: Any) -> Any:
    """Standard normal truncated to [-bound, bound]; see ``arithmetic.quantile32``."""
    m = (bits >> 11) & 0x1FFFFFFFFFFFFF
    below_one = tail + (f64(m) + 0.5) * 2.0**-53 * edge
    k, f = split64(below_one * (2.0 - below_one))
    w = 0.5 * minus_two_log64(k, f)
    ratio = _centre64(w - 3.125)
    if far:
        value = _tail64(np.sqrt(w) - 4.25)
        ratio = blend64(f64(w - 6.25).view(i64) >> 63, ratio, value)
    z = ratio * (1.0 - below_one)
    z = blend64(f64(z - bound).view(i64) >> 63, z, bound)
    return i64(f64(z).view(i64) ^ i64((bits & 1) << 63)).view(f64)


def _six(x: Any, c0: Any, c1: Any, c2: Any, c3: Any, c4: Any, c5: Any) -> Any:
    return ((((c5 * x + c4) * x + c3) * x + c2) * x + c1) * x + c0


def _centre64(x: Any) -> Any:
    """CENTRE in blocks of six, which LLVM vectorises where it leaves a loop over 25 coefficients alone."""
    c, x2 = CENTRE, x * x
    x6 = x2 * x2 * x2
    high = (_six(x, c[18], c[19], c[20], c[21], c[22], c[23]) + c[24] * x6) * x6
    high = (_six(x, c[12], c[13], c[14], c[15], c[16], c[17]) + high) * x6
    high = (_six(x, c[6], c[7], c[8], c[9], c[10], c[11]) + high) * x6
    return _six(x, c[0], c[1], c[2], c[3], c[4], c[5]) + high


def _tail64(x: Any) -> Any:
    c, x2 = TAIL, x * x
    x6 = x2 * x2 * x2
    high = (_six(x, c[18], c[19], c[20], c[21], c[22], c[23]) + ((c[26] * x + c[25]) * x + c[24]) * x6) * x6
    high = (_six(x, c[12], c[13], c[14], c[15], c[16], c[17]) + high) * x6
    high = (_six(x, c[6], c[7], c[8], c[9], c[10], c[11]) + high) * x6
    return _six(x, c[0], c[1], c[2], c[3], c[4], c[5]) + high
