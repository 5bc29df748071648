"""What a recipe is: a row with its source and options, and a function from weights to entries (rows: ``named``)."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fanin.axes import Fans
from fanin.errors import ArgumentError
from fanin.graph import Graph, Parameter
from fanin.recipes.plan import Entry
from fanin.recipes.structure import Structure, Use

WEIGHTS = ("dense", "conv", "matrix", "experts", "recurrent")
"""Roles that have fans and a scale to choose."""


@dataclass(frozen=True)
class Weight:
    """One parameter as a recipe sees it.

    Attributes:
        parameter: its record.
        role: as in ``structure.Use``, and "recurrent"; "" where nothing is known.
        fans: by the use that decides.
        uses: in the graph; empty without a batch, and where this batch does not reach it.
        unused: True where there is a graph and it is not in it.
    """

    parameter: Parameter
    role: str
    fans: Fans | None = None
    uses: tuple[Use, ...] = ()
    unused: bool = False

    @property
    def name(self) -> str:
        return self.parameter.name

    @property
    def shape(self) -> tuple[int, ...]:
        return self.parameter.shape


@dataclass(frozen=True)
class Weights:
    """Every parameter of a model once, in order; with the structure of its graph where there was a batch."""

    by_name: Mapping[str, Weight]
    structure: Structure | None = None


def read_weights(records: Mapping[str, tuple[Parameter, str, Any]], graph: Graph | None) -> Weights:
    """Roles and fans from the graph where there is one, from the classes of the modules elsewhere."""
    structure = Structure(graph) if graph is not None else None
    found: dict[str, Weight] = {}
    for name, (record, role, fans) in records.items():
        if record.name != name:
            continue
        uses = tuple(structure.uses.get(name, ())) if structure is not None else ()
        if uses and structure is not None and (uses[0].role != "other" or not role):
            found[name] = Weight(record, uses[0].role, structure.fans(uses[0]) or fans, uses)
        else:
            found[name] = Weight(record, role, fans, uses, unused=structure is not None and not uses)
    return Weights(found, structure)


@dataclass(frozen=True)
class Option:
    """An option of a recipe: its default, and which values it may take; a word as default stands for a number."""

    default: Any
    choices: tuple[str, ...] = ()
    low: float = -math.inf
    high: float = math.inf

    def check(self, recipe: str, name: str, value: Any) -> Any:
        """The value, or an ArgumentError that says what is allowed."""
        if self.choices:
            if value in self.choices:
                return value
            near = difflib.get_close_matches(str(value), self.choices, n=1)
            raise ArgumentError(
                f"recipe {recipe!r}: {name} is {value!r}",
                cause=f"did you mean {near[0]!r}?" if near else None,
                remedy=f"one of {', '.join(self.choices)}",
            )
        if isinstance(self.default, bool):
            if isinstance(value, bool):
                return value
            raise ArgumentError(f"recipe {recipe!r}: {name} is {value!r}", remedy="give True or False")
        word = self.default if isinstance(self.default, str) else None
        if word is not None and value == word:
            return value
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not number or not self.low < value < self.high:
            raise ArgumentError(
                f"recipe {recipe!r}: {name} is {value!r}",
                remedy=(f"give {word!r} or " if word else "give ")
                + (
                    f"a number above {self.low:g}"
                    if math.isinf(self.high)
                    else f"a number between {self.low:g} and {self.high:g}"
                ),
            )
        return float(value)


IID = ("normal", "uniform", "truncated_normal", "rademacher")
DISTRIBUTIONS = (*IID, "orthogonal", "delta_orthogonal")
MODES = ("fan_in", "fan_out", "fan_avg", "fan_geo")
Made = tuple[dict[str, Entry], list[str]]


@dataclass(frozen=True)
class Recipe:
    """A row of the table.

    Attributes:
        name: what users call it.
        make: weights and options to entries (of what it decides) and notes.
        source: paper or code.
        options: by name.
        needs_batch: whether it reads the graph.
    """

    name: str
    make: Callable[[Weights, Mapping[str, Any]], Made]
    source: str
    options: Mapping[str, Option] = field(default_factory=dict)
    needs_batch: bool = False
