"""Signals: what a tensor carries, forward and backward; the same record whether it was predicted or measured.

Units, once for all: ``rms`` is the root mean square over all elements of the tensor (not centred), ``mean`` the mean
over all elements, ``grad_rms`` the root mean square of the cotangent (the gradient with respect to the tensor).
``*_low``/``*_high`` bound 95 % of single networks. Everything is float64 and dimensionless.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, Literal

from fanin.errors import ArgumentError, MissingDependency

Source = Literal["predicted", "measured"]


@dataclass(frozen=True, slots=True)
class Signal:
    """One tensor of the model.

    Attributes:
        name: fully qualified name of the module whose output this is; a functional op adds ``/<op>`` or ``/<op>_<k>``.
        op: kind of the operation in the front end's words, such as ``conv2d`` or ``add``.
        shape: shape of the tensor, batch included.
        rms: root mean square over all elements; None where the op has no rule (never a silent pass-through).
        mean: mean over all elements.
        grad_rms: root mean square of the cotangent; None where not asked for or not known.
        source: ``"predicted"`` or ``"measured"``.
        exact: False where the rule is an approximation; ``note`` says which.
        module: the innermost module the op ran in; "" is the model itself.
        extra: further figures of a measurement: fraction of zeros, of saturated and of non-finite elements, ...
    """

    name: str
    op: str
    shape: tuple[int, ...]
    rms: float | None = None
    rms_low: float | None = None
    rms_high: float | None = None
    mean: float | None = None
    grad_rms: float | None = None
    grad_rms_low: float | None = None
    grad_rms_high: float | None = None
    source: Source = "predicted"
    exact: bool = True
    note: str = ""
    module: str = ""
    extra: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    def to_dict(self) -> dict[str, Any]:
        """A plain dict that json can write; non-finite numbers stay floats and are written as text by to_json."""
        row = {name: getattr(self, name) for name in self.__slots__ if name != "extra"}
        return {**row, "shape": list(self.shape), "extra": dict(self.extra)}


class Signals(Mapping[str, Signal]):
    """The rows of one model in the order in which the tensors are made.

    ``signals["layer1.0.conv1"]`` finds a row by its name or by the name of any module whose output the tensor is;
    iteration runs over the rows' names in order, ``.rows`` holds the rows themselves.

    Args:
        rows: the rows, in graph order; names are unique.
        aliases: further names of a row, such as the container whose output it is.
        parameters: rms of each parameter's gradient (``grad_rms``) and of its values, by parameter name.
        facts: figures of the model as a whole: loss, cotangent, number of elements, seconds.

    Example:
        >>> rows = Signals([Signal("fc", "linear", (2, 3), rms=1.0)])
        >>> rows["fc"].rms
        1.0
    """

    def __init__(
        self,
        rows: list[Signal] | tuple[Signal, ...],
        *,
        aliases: Mapping[str, str] | None = None,
        parameters: Mapping[str, Mapping[str, float]] | None = None,
        facts: Mapping[str, Any] | None = None,
    ):
        self.rows = tuple(rows)
        self._by_name = {row.name: row for row in self.rows}
        if len(self._by_name) != len(self.rows):
            twice = [row.name for row in self.rows if self._by_name[row.name] is not row]
            raise ArgumentError(f"{len(twice)} rows share a name with another, the first is {twice[0]!r}")
        self.aliases = MappingProxyType(dict(aliases or {}))
        self.parameters = MappingProxyType(dict(parameters or {}))
        self.facts = MappingProxyType(dict(facts or {}))

    def __getitem__(self, name: str) -> Signal:
        found = self._by_name.get(name) or self._by_name.get(self.aliases.get(name, ""))
        if found is None:
            near = get_close_matches(str(name), [*self._by_name, *self.aliases], n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else "list(signals) shows the names"
            raise NoSuchSignal(f"no tensor is called {name!r}", remedy=hint)
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._by_name or name in self.aliases

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        kinds = {row.source for row in self.rows} or {"no"}
        return f"<Signals: {len(self.rows)} {' and '.join(sorted(kinds))} tensors>"

    def with_rows(self, rows: list[Signal]) -> Signals:
        """The same record with other rows (aliases, parameters and facts stay)."""
        return Signals(rows, aliases=self.aliases, parameters=self.parameters, facts=self.facts)

    def to_dict(self) -> dict[str, Any]:
        """Rows, aliases, parameters and facts as plain dicts and lists."""
        return {
            "rows": [row.to_dict() for row in self.rows],
            "aliases": dict(self.aliases),
            "parameters": {name: dict(row) for name, row in self.parameters.items()},
            "facts": dict(self.facts),
        }

    def to_json(self, *, indent: int | None = None) -> str:
        """JSON text; infinities and NaN are written as the strings "inf", "-inf" and "nan", which JSON lacks."""
        return json.dumps(json_safe(self.to_dict()), indent=indent, allow_nan=False)

    def to_frame(self) -> Any:
        """A pandas DataFrame, one row a tensor (needs pandas)."""
        try:
            import pandas
        except ImportError as error:
            raise MissingDependency("to_frame needs pandas", remedy="pip install pandas") from error
        return pandas.DataFrame([row.to_dict() for row in self.rows]).set_index("name", drop=False)

    def _repr_html_(self) -> str:
        from html import escape

        head = ("name", "op", "shape", "rms", "mean", "grad_rms", "note")
        cells = [
            (r.name, r.op, "x".join(map(str, r.shape)), _short(r.rms), _short(r.mean), _short(r.grad_rms), r.note)
            for r in self.rows
        ]
        body = "".join("<tr>" + "".join(f"<td>{escape(str(c))}</td>" for c in line) + "</tr>" for line in cells)
        return f"<table><thead><tr>{''.join(f'<th>{h}</th>' for h in head)}</tr></thead><tbody>{body}</tbody></table>"


class NoSuchSignal(ArgumentError, KeyError):
    """A name that no row and no alias has."""

    __str__ = Exception.__str__  # KeyError would show the repr of the message


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def json_safe(value: Any) -> Any:
    """Replace what JSON cannot say: NaN and infinities become strings, tuples lists, mappings dicts."""
    if isinstance(value, float) and not -float("inf") < value < float("inf"):
        return str(value)
    if isinstance(value, Mapping):
        return {str(k): json_safe(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(v) for v in value]
    return value


__all__ = ["Signal", "Signals", "NoSuchSignal", "json_safe"]
