"""What a batch norm takes away along its signal, of every two places.

Behind a norm over N places ``g - b x^`` is left, ``b = (1/N) sum_q g_q x^_q``, so of two places

    E[(g_p - b x^_p)(g_p' - b x^_p')] = E[g_p g_p'] - 2 C(p, p') + E[b^2] E[x^_p x^_p'],
    C(p, p') = E[g_p b x^_p'] = (1/N) sum_q E[g_p g_q] E[x^_p' x^_q].

Where gradients of places are independent C is ``E[b^2] E[x^_p x^_p']``, and one such term is taken away. Where all
places of a sample hear the same (a mean behind) C hardly depends on which of them p' is: they stay as alike as before.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from math import prod

from fanin.theory.law import FEATURE, Groups

Pair = Callable[[Groups], float]

SAME = frozenset()


def crossed(
    g: Pair, x: Pair, sizes: dict[str, float], together: Callable[[Groups], float | None] = lambda s: None
) -> Pair:
    """``C`` of two places of a statistic by the groups in which they differ.

    Args:
        g, x: pair moments of the gradient and of the normalized signal; the mean square for none.
        sizes: number of places along each group of the statistic; of features g is independent.
        together: mean over pairs that differ in these groups of the product of both, where it is not that of the means.
    """
    places = {t: n for t, n in sizes.items() if t != FEATURE and n > 1}
    count = prod(sizes.values())

    def between(s: Groups) -> float:
        total = 0.0
        for one in product(*(_third(n, t in s) for t, n in places.items())):
            many = prod(m for m, _, _ in one)
            if many > 0:
                of_g, of_x = (
                    frozenset(t for t, differs in zip(places, which, strict=True) if differs)
                    for which in ([a for _, a, _ in one], [b for _, _, b in one])
                )
                both = together(of_g) if of_g == of_x and not s else None
                total += many * (g(of_g) * x(of_x) if both is None else both)
        return total / count

    return between


def _third(n: float, differ: bool) -> tuple[tuple[float, bool, bool], ...]:
    """How often a third place differs from the one and from the other along a group of n places."""
    if not differ:
        return (1, False, False), (n - 1, True, True)
    return (1, False, True), (1, True, False), (n - 2, True, True)


__all__ = ["crossed"]
