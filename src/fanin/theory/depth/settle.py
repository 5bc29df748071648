"""Where a block would settle if it were repeated for ever: fixed points of variance and correlation, depth scales.

The rules of the block's own nodes are a map from law to law. It is iterated from what the first block hands on, at one
and a half times its scale, so that the approach to the fixed point can be seen.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fanin.theory.depth.blocks import Stack, between
from fanin.theory.law import Law
from fanin.theory.records import replace
from fanin.theory.state import SAMPLE, Value

if TYPE_CHECKING:
    from fanin.theory.engine import Interpreter

ROUNDS, NODES = 200, 1500  # blocks at most, and nodes in all
NEAR = 0.97  # cosines beyond which Mehler's sum, cut at a degree, no longer resolves the approach to one
SETTLED, NOISE = 1e-9, 1e-6  # steps (in the logarithm) at which iteration stops, and below which no rate is read


@dataclass(frozen=True, slots=True)
class Settled:
    """The fixed point of a block.

    Attributes:
        q: mean square that its output settles at, whatever it starts from; None where there is none: the block keeps
            what it is given, or grows or shrinks it for ever.
        growth: factor a block on the mean square, at the end of the iteration.
        c: cosine of two samples that it settles at; None with a single sample.
        xi_q, xi_c: blocks in which the distance to them falls by e; infinite where it falls slower than exponentially,
            None where none was seen.
    """

    q: float | None
    growth: float
    c: float | None
    xi_q: float | None
    xi_c: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return {name: getattr(self, name) for name in self.__slots__}

    def text(self) -> str:
        """A sentence."""
        if self.q is None and abs(self.growth - 1) < NOISE:
            parts = ["repeated for ever, a block keeps whatever mean square it is given"]
        elif self.q is None:
            parts = [f"repeated for ever, a block multiplies the mean square by {self.growth:.4g}"]
        else:
            parts = [f"repeated for ever, the mean square settles at {self.q:.4g}{_scale(self.xi_q)}"]
        if self.c is not None:
            parts.append(f"the cosine of two samples at {self.c:.4g}{_scale(self.xi_c)}")
        return ", ".join(parts)


def _scale(xi: float | None) -> str:
    if xi is None:
        return ""
    return f" (depth scale {xi:.3g} blocks)" if math.isfinite(xi) else " (slower than exponentially)"


def settle(interpreter: Interpreter, stack: Stack) -> Settled | None:
    """Iterate the last block of a stack.

    Args:
        interpreter: one that has run over the graph.
        stack: of that graph.

    Returns:
        None where the block is not modelled, or its output cannot be its input.
    """
    start, end = stack.ends[-2:]
    first, last = interpreter.values[stack.ends[0]], interpreter.values[end]
    if not isinstance(first, Law) or not isinstance(last, Law) or first.shape != last.shape:
        return None
    nodes = between(interpreter.graph, start, end)
    repeated = replace(interpreter, values=dict(interpreter.values))
    law: Value = first.with_values(1.5 * first.values)
    logs, angles = [], []
    for _ in range(max(12, min(ROUNDS, NODES // max(len(nodes), 1)))):
        repeated.values[start] = law
        for node in nodes:
            repeated.values[node.id] = repeated._value(node)
        law = repeated.values[end]
        if not isinstance(law, Law) or not 0 < law.second < math.inf:
            return None
        logs.append(math.log(law.second))
        angles.append(law.pair({SAMPLE}) / law.second if SAMPLE in law.groups else 1.0)
        if _still(logs) and _still(angles):
            break
    samples = SAMPLE in first.groups
    started = math.log(2.25 * first.second)
    kept = abs(logs[-1] - logs[-2]) < NOISE and abs(logs[-1] - started) > 1e-3
    rate = _scale_of(angles)
    return Settled(
        q=math.exp(logs[-1]) if kept else None,
        growth=math.exp(logs[-1] - logs[-2]),
        c=_limit(angles, rate) if samples else None,
        xi_q=_scale_of(logs) if kept else None,
        xi_c=rate if samples and abs(angles[-1]) < NEAR else None,
    )


def _still(series: list[float]) -> bool:
    return len(series) > 3 and abs(series[-1] - series[-2]) < SETTLED


def _limit(series: list[float], xi: float | None) -> float:
    """The last value, or where a slow approach is bound for: cosines that creep towards one."""
    last, step = series[-1], series[-1] - series[-2]
    if abs(step) < NOISE or not xi:
        return last
    ahead = (
        step * len(series) / 2 if math.isinf(xi) else step / (math.exp(1 / xi) - 1)
    )  # c* - c falls as l^-2, or by xi
    return min(max(last + ahead, -1.0), 1.0)


def _scale_of(series: list[float]) -> float | None:
    """Blocks for a factor e in the steps, read off the last two steps above the noise."""
    steps = [abs(b - a) for a, b in itertools.pairwise(series)]
    clear = [i for i in range(1, len(steps)) if steps[i] > NOISE and steps[i - 1] > NOISE]
    if not clear:
        return None
    rate = steps[clear[-1]] / steps[clear[-1] - 1]
    late = clear[-1] > 50  # still on its way: at a power l^-2 of the depth steps fall by 1 - 3 / l
    return math.inf if rate >= 1 or (late and rate > 1 - 4 / clear[-1]) else -1 / math.log(rate)
