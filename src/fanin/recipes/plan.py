"""Plan: what to draw for every parameter of a model, and why. Pure data: nothing is drawn, nothing is written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from fanin.axes import Fans
from fanin.distributions import Distribution
from fanin.errors import ArgumentError, PlanError

VERSION = 1


@dataclass(frozen=True)
class Entry:
    """What happens to one parameter.

    Attributes:
        name: as in ``named_parameters()``.
        shape: of the parameter.
        distribution: what it is drawn from; None keeps it as it is (and a tied one follows the name it is tied to).
        fans: of the weight, by the use that decided; None where there are none.
        gain: std * sqrt(fan_in) of what is drawn; None where there are no fans.
        reason: one sentence.
        tied_to: the name under which this tensor is drawn, where it is another name of one.
        rate: multiplier of the learning rate that goes with it (muP); 1 elsewhere.

    Example:
        >>> from fanin.distributions import Normal
        >>> Entry("fc.weight", (8, 100), Normal(0.1), Fans(100, 8), 1.0, "an example").std
        0.1
    """

    name: str
    shape: tuple[int, ...]
    distribution: Distribution | None
    fans: Fans | None = None
    gain: float | None = None
    reason: str = ""
    tied_to: str | None = None
    rate: float = 1.0

    @property
    def std(self) -> float | None:
        """Standard deviation of an element as drawn; None where nothing is drawn."""
        return None if self.distribution is None else self.distribution.moments(self.shape)[1]

    @property
    def rms(self) -> float | None:
        """Root mean square of an element as drawn; None where nothing is drawn."""
        if self.distribution is None:
            return None
        mean, std = self.distribution.moments(self.shape)
        return (mean**2 + std**2) ** 0.5

    @property
    def size(self) -> int:
        """Number of elements."""
        size = 1
        for n in self.shape:
            size *= n
        return size

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "distribution": None if self.distribution is None else self.distribution.to_dict(),
            "fans": None if self.fans is None else [self.fans.fan_in, self.fans.fan_out],
            "gain": self.gain,
            "reason": self.reason,
            "tied_to": self.tied_to,
            **({"rate": self.rate} if self.rate != 1 else {}),
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Entry:
        """The entry that ``to_dict`` wrote."""
        law, fans = data["distribution"], data["fans"]
        return Entry(
            name=str(data["name"]),
            shape=tuple(int(n) for n in data["shape"]),
            distribution=None if law is None else Distribution.from_dict(law),
            fans=None if fans is None else Fans(*fans),
            gain=None if data["gain"] is None else float(data["gain"]),
            reason=str(data["reason"]),
            tied_to=data["tied_to"],
            rate=float(data.get("rate", 1.0)),
        )


@dataclass(frozen=True)
class Plan:
    """What to draw for every parameter of a model.

    Attributes:
        entries: by parameter name, in the model's order; every parameter is there.
        recipe: name of the recipe, or the patterns it was composed of.
        options: of the recipe, as given.
        notes: what the recipe could not do, or had to assume.

    Example:
        >>> import torch, fanin
        >>> made = fanin.plan(torch.nn.Linear(100, 10), recipe="lecun")
        >>> made.entries["weight"].distribution
        Normal(std=0.1, mean=0.0)
        >>> fanin.Plan.from_json(made.to_json()) == made
        True
    """

    entries: Mapping[str, Entry]
    recipe: str | Mapping[str, str] = "custom"
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, entry in self.entries.items():
            if entry.name != name:
                raise PlanError(f"entry {entry.name!r} is filed under {name!r}", remedy="file it under its own name")
            if entry.tied_to is not None and entry.tied_to not in self.entries:
                raise PlanError(f"{name!r} is tied to {entry.tied_to!r}, which the plan does not have")
        for key in ("entries", "options"):
            object.__setattr__(self, key, MappingProxyType(dict(getattr(self, key))))
        if not isinstance(self.recipe, str):
            object.__setattr__(self, "recipe", dict(self.recipe))
        object.__setattr__(self, "notes", tuple(self.notes))

    def __getitem__(self, name: str) -> Entry:
        return self.entries[name]

    def __len__(self) -> int:
        return len(self.entries)

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    @property
    def drawn(self) -> dict[str, Entry]:
        """The entries that draw something."""
        return {n: e for n, e in self.entries.items() if e.distribution is not None and e.tied_to is None}

    @property
    def fingerprint(self) -> str:
        """BLAKE2 of what is drawn where: names, shapes, distributions and ties. Reasons do not enter."""
        rows = [
            [e.name, list(e.shape), None if e.distribution is None else e.distribution.to_dict(), e.tied_to]
            for e in sorted(self.entries.values(), key=lambda e: e.name)
        ]
        text = json.dumps([VERSION, rows], sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "fanin_plan": VERSION,
            "recipe": self.recipe,
            "options": dict(self.options),
            "notes": list(self.notes),
            "fingerprint": self.fingerprint,
            "entries": [entry.to_dict() for entry in self.entries.values()],
        }

    def to_json(self, *, indent: int | None = 2) -> str:
        """JSON text, from which ``from_json`` makes an equal plan."""
        try:
            return json.dumps(self.to_dict(), indent=indent, allow_nan=False)
        except TypeError as error:
            raise PlanError(
                f"the plan's options {dict(self.options)} are not plain values", cause=str(error)
            ) from error

    @staticmethod
    def from_json(text: str) -> Plan:
        """The plan that ``to_json`` wrote.

        Errors: PlanError where the text is no plan, or was changed by hand without its fingerprint.
        """
        try:
            data = json.loads(text)
            if data["fanin_plan"] != VERSION:
                raise PlanError(f"the plan has version {data['fanin_plan']!r}", remedy=f"this fanin reads {VERSION}")
            entries = [Entry.from_dict(row) for row in data["entries"]]
            made = Plan({e.name: e for e in entries}, data["recipe"], data["options"], tuple(data["notes"]))
            stored = data.get("fingerprint")
        except PlanError:
            raise
        except (ValueError, KeyError, TypeError, ArgumentError) as error:
            raise PlanError(
                f"this is not a stored plan: {type(error).__name__}: {error}",
                remedy="give what plan.to_json() wrote",
            ) from error
        if stored is not None and stored != made.fingerprint:
            raise PlanError(
                f"the plan's fingerprint is {made.fingerprint}, the stored one {stored}",
                cause="the file was edited",
                remedy='remove the "fingerprint" line if that was meant',
            )
        return made

    def diff(self, model: Any) -> Diff:
        """What applying this plan to the model would change; nothing is applied.

        Args:
            model: a model, a mapping of names to arrays or tensors, or the path of a safetensors file.
        """
        from fanin.recipes.difference import difference

        return difference(self, model)

    def to_text(self, *, width: int = 120, full: bool = False) -> str:
        """A table; repeated blocks are one row unless ``full``."""
        from fanin.recipes.table import to_text

        return to_text(self, width=width, full=full)

    def __str__(self) -> str:
        return self.to_text()

    def _repr_html_(self) -> str:
        from fanin.recipes.table import to_html

        return to_html(self)

    def __repr__(self) -> str:
        drawn = f"{len(self.drawn)} of {len(self.entries)} parameters drawn"
        return f"<Plan: recipe {self.recipe!r}, {drawn}, {self.fingerprint[:8]}>"


@dataclass(frozen=True)
class Change:
    """One parameter in a Diff: what it has now and what the plan would give it; None where unknown or absent."""

    name: str
    change: str  # draw | keep | missing | extra | shape
    shape: tuple[int, ...]
    std_now: float | None = None
    std_planned: float | None = None
    rms_now: float | None = None
    rms_planned: float | None = None


@dataclass(frozen=True)
class Diff:
    """What a plan would change: one Change a parameter.

    ``change`` is "draw", "keep", "missing" (in the plan, not in the model), "extra" (in the model, not in the plan) or
    "shape" (another shape than the plan says).
    """

    changes: tuple[Change, ...]

    @property
    def fits(self) -> bool:
        """Whether the plan can be applied: the same names and shapes."""
        return all(c.change in ("draw", "keep") for c in self.changes)

    def of(self, change: str) -> list[str]:
        """Names with this kind of change."""
        return [c.name for c in self.changes if c.change == change]

    def __getitem__(self, name: str) -> Change:
        return next(c for c in self.changes if c.name == name)

    def __str__(self) -> str:
        from fanin.recipes.table import diff_text

        return diff_text(self)
