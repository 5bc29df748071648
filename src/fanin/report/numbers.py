"""How numbers are written for people."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

NONE = "–"


def short(value: float | None) -> str:
    """Three digits, exponents without padding.

    Example:
        >>> [short(x) for x in (0.99871, 1234.5, 3.25e-9, 0.0, float("inf"), None)]
        ['0.999', '1.23e3', '3.25e-9', '0', 'inf', '–']
    """
    if value is None:
        return NONE
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if 1e-3 <= abs(value) < 1e3:
        return f"{value:.3g}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def span(values: Sequence[float | None]) -> str:
    """Several values as one: ``first → last`` where they run one way, else ``least … most``.

    Example:
        >>> span([1.0, 0.5, 0.1]), span([1.0, 3.0, 0.9]), span([1.0, 1.0]), span([None, None])
        ('1 → 0.1', '0.9 … 3', '1', '–')
        >>> span([1.0, float("nan"), 2.0])
        '1 → 2, 1 nan'
    """
    known = [v for v in values if v is not None and not math.isnan(v)]
    lost = sum(v is not None and math.isnan(v) for v in values)
    if lost:
        return f"{span(known)}, {lost} nan" if known else "nan"
    if not known:
        return NONE
    first, last = short(known[0]), short(known[-1])
    if len({short(v) for v in known}) == 1:
        return first
    low, high = min(known[0], known[-1]), max(known[0], known[-1])
    slack = 1.02
    if all(low / slack <= v <= high * slack for v in known) and first != last:
        return f"{first} → {last}"
    return f"{short(min(known))} … {short(max(known))}"


def percent(predicted: float | None, measured: float | None) -> str:
    """Relative error of a prediction; a factor where it is past 100 %.

    Example:
        >>> percent(1.0, 1.02), percent(1.0, 4.0), percent(None, 1.0), percent(1.0, 1e-6)
        ('+2.0 %', '×4', '–', '×1.00e-6')
    """
    if predicted is None or measured is None or not predicted or not math.isfinite(measured / predicted):
        return NONE
    ratio = measured / predicted
    return f"{100 * (ratio - 1):+.1f} %" if 0.5 <= ratio <= 2 else f"×{short(ratio)}"


def count(number: int) -> str:
    """Example:
    >>> count(124439808), count(999), count(46_700_000_000)
    ('124.4 M', '999', '46.7 G')
    """
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= size:
            return f"{number / (1e3 if unit == 'k' else size):.1f} {unit}"
    return str(number)


def sparkline(values: Sequence[float | None], width: int = 60) -> str:
    """Log-scaled bars against depth; ``·`` where there is no number, ``!`` where it is not finite, ``_`` where zero.

    Example:
        >>> sparkline([1.0, 0.1, 0.01, None, 0.0, float("nan")])
        '█▄▁·_!'
    """
    buckets = _buckets(values, width)
    logs = [math.log(v) for v in buckets if v and math.isfinite(v)]
    if not logs:
        return "".join(_mark(v) for v in buckets)
    low, high = min(logs), max(logs)
    low, high = (low, high) if high - low > math.log(1.5) else ((low + high) / 2 - 1, (low + high) / 2 + 1)
    return "".join(_mark(v) or _BARS[round(7 * (math.log(v) - low) / (high - low))] for v in buckets)  # type: ignore[arg-type]


_BARS = "▁▂▃▄▅▆▇█"


def _mark(value: float | None) -> str:
    if value is None:
        return "·"
    return "!" if not math.isfinite(value) else "_" if value == 0 else ""


def _buckets(values: Sequence[float | None], width: int) -> list[float | None]:
    """At most ``width`` values: geometric means of neighbours, so that a bad one is not hidden."""
    if len(values) <= width:
        return list(values)
    edges = [round(i * len(values) / width) for i in range(width + 1)]
    return [_together(values[a:b]) for a, b in itertools.pairwise(edges)]


def _together(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    bad = [v for v in known if not math.isfinite(v)]
    if bad or not known:
        return bad[0] if bad else None
    positive = [v for v in known if v > 0]
    return math.exp(sum(map(math.log, positive)) / len(positive)) if positive else 0.0
