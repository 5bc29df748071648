"""``Verification``: whether stored weights are what a plan and a seed say."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fanin.fill.formats import Format, decode
from fanin.fill.jobs import Job, run
from fanin.fill.laws import STRUCTURED

_AT_ONCE = 1 << 24  # values


class Claim(NamedTuple):
    """One tensor to compare: what the plan says, and what is stored (None for missing)."""

    name: str
    shape: tuple[int, ...]
    distribution: Any
    stored_shape: tuple[int, ...] | None
    format: Format | None
    read: Callable[[int, int], NDArray]  # (start, count) in storage numbers -> flat array


@dataclass(frozen=True)
class Difference:
    """Where a stored tensor is not what it should be. ``index`` is None where the whole tensor is wrong."""

    name: str
    reason: str
    index: tuple[int, ...] | None = None
    stored: float | None = None
    expected: float | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass(frozen=True)
class Verification:
    """Result of ``verify``.

    Attributes:
        ok: every tensor that the plan draws is there, bit for bit.
        checked: how many tensors were compared, the one that differs included.
        values: how many numbers were compared.
        first_difference: None where there is none.
    """

    ok: bool
    checked: int
    values: int
    first_difference: Difference | None = None

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        if self.ok:
            return f"all {self.checked} tensors ({self.values:,} values) are what the plan and the seed say"
        return f"tensor {self.checked} differs: {self.first_difference}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        first = self.first_difference
        return {
            "ok": self.ok,
            "checked": self.checked,
            "values": self.values,
            "first_difference": None if first is None else {**vars(first), "index": first.index and list(first.index)},
        }


def compare(claims: Iterable[Claim], seed: int) -> Verification:
    """Draw and compare tensor by tensor, in bounded memory, up to the first that differs."""
    checked = values = 0
    for claim in claims:
        checked += 1
        difference = _difference(claim, seed)
        if difference is not None:
            return Verification(False, checked, values, difference)
        values += math.prod(claim.shape)
    return Verification(True, checked, values)


def _difference(claim: Claim, seed: int) -> Difference | None:
    if claim.stored_shape is None:
        return Difference(claim.name, "it is missing")
    if claim.stored_shape != claim.shape:
        return Difference(claim.name, f"it has shape {claim.stored_shape}, the plan says {claim.shape}")
    if claim.format is None:
        return Difference(claim.name, "it has a dtype that nothing is drawn in")
    total = math.prod(claim.shape)
    step = total if claim.distribution.kind in STRUCTURED else _AT_ONCE
    for start in range(0, total, max(1, step)):
        found = _first(claim, claim.format, start, min(step, total - start), seed)
        if found is not None:
            return found
    return None


def _first(claim: Claim, format: Format, start: int, count: int, seed: int) -> Difference | None:
    expected = np.empty(count * format.parts, format.storage)
    run([Job(expected.ctypes.data, expected.size, *claim[:3], format, start)], seed)
    stored = claim.read(start * format.parts, expected.size)
    bits = f"u{format.storage.itemsize}"
    wrong = np.flatnonzero(expected.view(bits) != stored.view(bits))
    if not len(wrong):
        return None
    at = int(wrong[0])
    index = tuple(int(i) for i in np.unravel_index(start + at // format.parts, claim.shape)) if claim.shape else ()
    pair = [float(decode(x[at : at + 1], format._replace(parts=1))[0]) for x in (stored, expected)]
    reason = f"at {list(index)} it is {pair[0]:.9g}, the plan and the seed say {pair[1]:.9g}"
    return Difference(claim.name, reason, index, *pair)
