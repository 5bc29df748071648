"""How many pairs a question needs, and what a number of pairs can show: before anything is run.

Power is that of the t tests, in closed form for the difference and as one integral for equivalence. The sign-flip test
has nearly the same for nearly normal differences from about eight pairs on; below, what counts is how few flips there
are, and that is part of the answer here (``floor``). A family of m comparisons is planned at alpha / m,
which is Holm's first step: every further step is easier, so the power holds whichever of the effects are real.

Sources: Owen, "A Special Case of a Bivariate Non-Central t-Distribution"; Phillips, "Power of the Two One-Sided Tests
Procedure in Bioequivalence".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import gammainc, gammaincinv, nctdtr, ndtr, stdtrit

from fanin.errors import ArgumentError
from fanin.study.statistics.interval import check_choice, check_level
from fanin.study.statistics.paired import ALTERNATIVES, pairs_for, smallest_p
from fanin.study.statistics.quadrature import legendre

MOST_PAIRS = 1_000_000


def difference_power(
    effect: float,
    spread: float,
    n: int,
    *,
    alpha: float = 0.05,
    comparisons: int = 1,
    alternative: str = "two-sided",
    floor: bool = True,
) -> float:
    """Probability that n pairs show a difference.

    With delta = effect sqrt(n) / spread and t the critical value, P(T' > t) + P(T' < -t), T' noncentral t of n - 1
    degrees of freedom and noncentrality delta.

    Args:
        effect: true mean difference; its sign matters for a one-sided test.
        spread: standard deviation of the paired differences.
        comparisons: size of the family that Holm's correction will be applied to.
        floor: 0 if a sign-flip test of n pairs cannot reach the level at all.

    Example:
        >>> round(difference_power(0.5, 1.0, 34), 3), difference_power(0.5, 1.0, 5)
        (0.808, 0.0)
    """
    level = check_design(spread, n, alpha, comparisons)
    check_choice("alternative", alternative, ALTERNATIVES)
    if n < 2 or (floor and smallest_p(n, alternative) > level):
        return 0.0
    delta = effect * math.sqrt(n) / spread
    if alternative == "two-sided":
        t = stdtrit(n - 1, 1 - level / 2)
        return above(t, n, delta) + above(t, n, -delta)
    return above(stdtrit(n - 1, 1 - level), n, delta if alternative == "greater" else -delta)


def above(t: float, n: int, delta: float) -> float:
    """P(T' > t) of noncentral t with n - 1 degrees of freedom; beyond 35 from t it is 0 or 1 to double precision."""
    if abs(delta - t) > 35 * (1 + abs(t) / math.sqrt(2 * n)):
        return float(delta > t)
    return float(1 - nctdtr(n - 1, delta, t))


def equivalence_power(
    margin: float,
    spread: float,
    n: int,
    *,
    effect: float = 0.0,
    alpha: float = 0.05,
    comparisons: int = 1,
    floor: bool = True,
) -> float:
    """Probability that n pairs show equivalence within +- margin, if the true mean difference is ``effect``.

    Both one-sided t tests reject if |mean| < margin - t s / sqrt(n). Given s the mean is normal, so that

        power = int_0^{s_max} [Phi(u(s)) - Phi(l(s))] dF(s),   s_max = margin sqrt(n) / t,

    integrated over the quantiles of s by Gauss and Legendre: Owen's Q in a form that does not cancel.

    Example:
        >>> round(equivalence_power(1.0, 1.0, 12), 3), equivalence_power(1.0, 1.0, 4)
        (0.889, 0.0)
    """
    level = check_design(spread, n, alpha, comparisons)
    if not margin > 0:
        raise ArgumentError(f"margin is {margin!r}", remedy="give a positive number")
    if n < 2 or (floor and smallest_p(n, "greater") > level):
        return 0.0
    t, root, half = stdtrit(n - 1, 1 - level), math.sqrt(n) / spread, (n - 1) / 2
    top = gammainc(half, half * (margin * root / t) ** 2)  # P(s < s_max): (n - 1) s^2 / spread^2 is chi-squared
    nodes, weights = legendre(200)
    q = top * (nodes + 1) / 2
    s = np.sqrt(gammaincinv(half, q) / half)  # in units of the spread
    reach = margin * root - t * s
    inside = ndtr(reach - effect * root) - ndtr(-reach - effect * root)
    return float(top * (weights * inside).sum() / 2)


def shown_power(effect: float, spread: float, n: int, *, margin: float | None = None, **terms: Any) -> float:
    """Of a difference, or with a margin of equivalence; ``alternative`` is of the former alone.

    Example:
        >>> shown_power(0.5, 1.0, 34) == difference_power(0.5, 1.0, 34)
        True
    """
    if margin is None:
        return difference_power(effect, spread, n, **terms)
    return equivalence_power(margin, spread, n, effect=effect, **{k: v for k, v in terms.items() if k != "alternative"})


def pairs_needed(
    effect: float,
    spread: float,
    *,
    margin: float | None = None,
    power: float = 0.8,
    alpha: float = 0.05,
    comparisons: int = 1,
    alternative: str = "two-sided",
) -> int:
    """The fewest pairs that show a difference with this probability; never fewer than the exact test needs at all.

    Args:
        margin: pairs that show equivalence within +- margin instead, where ``effect`` is the true difference.

    Example:
        >>> pairs_needed(0.5, 1.0), pairs_needed(0.5, 1.0, comparisons=12), pairs_needed(10.0, 1.0)
        (34, 60, 6)
        >>> pairs_needed(0.0, 1.0, margin=0.5), pairs_needed(0.25, 1.0, margin=0.5)
        (36, 101)
    """
    if margin is None and effect == 0:
        raise ArgumentError("effect is 0", remedy="give the smallest difference worth finding, or plan equivalence")
    if margin is not None and abs(effect) >= margin:
        raise ArgumentError(
            f"an effect of {effect:g} is not within the margin {margin:g}", remedy="widen the margin; no n shows it"
        )
    terms = {"alpha": alpha, "comparisons": comparisons, "alternative": alternative}
    return _fewest(
        lambda n: shown_power(effect, spread, n, margin=margin, **terms),
        check_level("power", power),
        pairs_for(check_design(spread, 2, alpha, comparisons), alternative if margin is None else "greater"),
    )


def detectable(
    n: int,
    spread: float,
    *,
    equivalence: bool = False,
    effect: float = 0.0,
    power: float = 0.8,
    alpha: float = 0.05,
    comparisons: int = 1,
    alternative: str = "two-sided",
) -> float:
    """The smallest difference that n pairs show with this probability; infinite if they can show none.

    Args:
        equivalence: the smallest margin within which they show that there is none, where ``effect`` is the true one.

    Example:
        >>> round(detectable(10, 1.0), 3), detectable(5, 1.0)
        (0.996, inf)
        >>> round(detectable(12, 1.0, equivalence=True), 3), detectable(4, 1.0, equivalence=True)
        (0.903, inf)
    """
    sign = -1.0 if alternative == "less" else 1.0
    terms = {"alpha": alpha, "comparisons": comparisons, "alternative": alternative}

    def shown(size: float) -> float:
        true, margin = (effect, size) if equivalence else (sign * size, None)
        return shown_power(true, spread, n, margin=margin, **terms)

    return _smallest(shown, check_level("power", power), spread)


def check_design(spread: float, n: int, alpha: float, comparisons: int) -> float:
    """The level of one comparison, alpha / comparisons, of a design that makes sense."""
    if not 0 < spread < math.inf:
        raise ArgumentError(
            f"spread is {spread!r}",
            cause="all differences of the pilot were equal" if spread == 0 else None,
            remedy="give the standard deviation of the paired differences, from a pilot or an earlier study",
        )
    if n < 1 or comparisons < 1:
        raise ArgumentError(f"{n} pairs, {comparisons} comparisons", remedy="give at least one of each")
    return check_level("alpha", alpha) / comparisons


def _fewest(shown: Callable[[int], float], wanted: float, least: int) -> int:
    """Smallest n with shown(n) >= wanted, by doubling and bisection: power grows with n."""
    low, high = max(least, 2) - 1, max(least, 2)
    while shown(high) < wanted:
        if high >= MOST_PAIRS:
            raise ArgumentError(f"more than {MOST_PAIRS:,} pairs", remedy="look for a larger effect, or a wider margin")
        low, high = high, min(2 * high, MOST_PAIRS)
    while high - low > 1:
        guess = (low + high) // 2
        low, high = (low, guess) if shown(guess) >= wanted else (guess, high)
    return high


def _smallest(shown: Callable[[float], float], wanted: float, unit: float) -> float:
    """Smallest size with shown(size) >= wanted, to five digits; infinite beyond a million units."""
    low, high = 0.0, unit * 1e-3
    while shown(high) < wanted:
        if high > 1e6 * unit:
            return math.inf
        low, high = high, 2 * high
    while high - low > 1e-6 * high:
        guess = (low + high) / 2
        low, high = (low, guess) if shown(guess) >= wanted else (guess, high)
    return high
