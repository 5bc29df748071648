"""What the copies of a token have along their gradients: the experts that it is sent to.

The results of k experts are added, ``y = sum_s y_s``, and all hear one gradient. So ``y_s g`` is the k-th part of what
the whole has, ``y g``, and a rest; the k rests sum to nothing. In front of the experts the copies are one token again:
what all have in common adds up, the rests cancel, and what each has found on its own way adds as independent numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fanin.theory.adjoint import radial
from fanin.theory.adjoint.cotangent import Cotangent, Part, identity
from fanin.theory.law import Law
from fanin.theory.records import replace


@dataclass(frozen=True, slots=True)
class Each:
    """A number that all copies of a token have."""

    name: int


@dataclass(frozen=True, slots=True)
class Rest:
    """A number of every copy, which sum to zero over those of a token."""

    name: int


def split(g: Cotangent, x: Law, part: Part) -> Part:
    """In front of a sum over a token's copies ``x``.

    Args:
        g: of the sum.
        part: what every copy gets.
    """
    copies = float(np.prod(x.shape)) / float(np.prod(g.law.shape))
    share = min(float(np.sqrt(g.law.second / x.second)) / copies, 1.0) if x.second > 0 else 1.0
    whole = {Each(name): share * value for name, value in radial.returned(g).items() if isinstance(name, int)}
    return replace(part, radial=whole | {Rest(identity()): float(np.sqrt(1 - share**2))})


def met(part: Part, copies: float, gain: float) -> Part:
    """The copies' parts as one token's, of ``gain`` times their mean square.

    Args:
        part: of the copies.
        copies: how many of them.
        gain: ``copies``, and more where their gradients agree.
    """
    if part.radial is None:
        return part
    found: dict[int, radial.Amount] = {}
    for name, value in part.radial.items():
        if isinstance(name, Each):
            found[name.name] = found.get(name.name, 0.0) + value * copies / float(np.sqrt(gain))
        elif isinstance(name, int):
            found[name] = found.get(name, 0.0) + value * float(np.sqrt(copies / gain))
    return replace(part, radial=found)
