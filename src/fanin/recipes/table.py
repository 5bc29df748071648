"""A plan, or a diff, as a printable table; blocks that repeat are folded into one row."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fanin.recipes.plan import Diff, Entry, Plan


NUMBER = r"(?<!\w)\d+(?!\w)"


@dataclass(frozen=True)
class Row:
    """Entries that differ in the numbers of their names only."""

    name: str
    entries: tuple[Entry, ...]

    @property
    def law(self) -> str:
        """What is drawn; a range where the blocks' scales differ."""
        entry = self.entries[0]
        if entry.tied_to is not None:
            return f"tied to {entry.tied_to}"
        if entry.distribution is None:
            return "kept"
        stds = [e.std or 0.0 for e in self.entries]
        low, high = min(stds), max(stds)
        if high - low <= 5e-3 * high:
            return str(entry.distribution)
        return f"{entry.distribution.kind}(std={low:.3g}..{high:.3g})"


def rows(plan: Plan, *, full: bool = False) -> list[Row]:
    """Rows in the plan's order; ``full`` gives each entry its own."""
    if full:
        return [Row(entry.name, (entry,)) for entry in plan.entries.values()]
    size = Counter(key for entry in plan.entries.values() for key in _keys(entry))
    groups: dict[tuple, list[Entry]] = {}
    for entry in plan.entries.values():
        key = max(_keys(entry), key=lambda k: size[k])  # the number whose change folds most blocks
        groups.setdefault(key, []).append(entry)
    return [Row(_folded([e.name for e in group]), tuple(group)) for group in groups.values()]


def _keys(entry: Entry) -> list[tuple]:
    """What must agree for entries to share a row: all but one number of the name, the shape, the kind of law."""
    law = entry.distribution
    same = (entry.shape, law.kind if law else None, getattr(law, "value", None), entry.tied_to)
    numbers = list(re.finditer(NUMBER, entry.name))
    return [(entry.name, *same)] + [(f"{entry.name[: n.start()]}*{entry.name[n.end() :]}", *same) for n in numbers]


def _folded(names: list[str]) -> str:
    """``h.0.fc``, ``h.1.fc``, ``h.2.fc`` -> ``h.{0..2}.fc``."""
    if len(names) == 1:
        return names[0]
    parts = [re.split(f"({NUMBER})", name) for name in names]
    out = []
    for i, piece in enumerate(parts[0]):
        values = {p[i] for p in parts}
        if len(values) == 1:
            out.append(piece)
        else:
            out.append(_range(sorted(int(v) for v in values)))
    return "".join(out)


def _range(numbers: list[int]) -> str:
    """[0, 1, 2] -> {0..2}, [0, 2, 4] -> {0,2..4}."""
    step = numbers[1] - numbers[0]
    if numbers == list(range(numbers[0], numbers[-1] + 1, step)):
        return f"{{{numbers[0]}..{numbers[-1]}}}" if step == 1 else f"{{{numbers[0]},{numbers[1]}..{numbers[-1]}}}"
    shown = numbers if len(numbers) <= 5 else [*numbers[:3], "..", numbers[-1]]
    return "{" + ",".join(map(str, shown)) + "}"


def to_text(plan: Plan, *, width: int = 120, full: bool = False) -> str:
    """Name, shape, law and reason; the reason is cut to the width."""
    lines: list[tuple[str, ...]] = [("parameter", "shape", "drawn from", "because")]
    for row in rows(plan, full=full):
        first, count = row.entries[0], len(row.entries)
        shape = "×".join(map(str, first.shape)) or "scalar"
        lines.append((f"{row.name} ({count}×)" if count > 1 else row.name, shape, row.law, first.reason))
    head = (
        f"plan: recipe {_recipe(plan)}, {len(plan.drawn)} of {len(plan.entries)} parameters drawn, {plan.fingerprint}"
    )
    return "\n".join([head, *_aligned(lines, width), *(f"note: {note}" for note in plan.notes)])


def _recipe(plan: Plan) -> str:
    name = (
        plan.recipe
        if isinstance(plan.recipe, str)
        else "{" + ", ".join(f"{k}: {v}" for k, v in plan.recipe.items()) + "}"
    )
    given = ", ".join(f"{k}={v}" for k, v in plan.options.items())
    return f"{name} ({given})" if given else name


def _aligned(lines: Sequence[Sequence[str]], width: int) -> list[str]:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]) - 1)]
    out = []
    for line in lines:
        text = "  ".join(cell.ljust(w) for cell, w in zip(line[:-1], widths, strict=True))
        room = max(width - len(text) - 2, 24)
        last = line[-1] if len(line[-1]) <= room else line[-1][: room - 1] + "…"
        out.append(f"{text}  {last}".rstrip())
    return out


def to_html(plan: Plan) -> str:
    """The same as an HTML table, reasons in full."""
    cells = "".join(
        "<tr>"
        + "".join(
            f"<td>{escape(cell)}</td>"
            for cell in (row.name, "×".join(map(str, row.entries[0].shape)), row.law, row.entries[0].reason)
        )
        + "</tr>"
        for row in rows(plan)
    )
    head = "".join(f"<th>{h}</th>" for h in ("parameter", "shape", "drawn from", "because"))
    notes = "".join(f"<p>{escape(note)}</p>" for note in plan.notes)
    caption = f"<caption>{escape(_recipe(plan))}</caption>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{cells}</tbody></table>{notes}"


def diff_text(diff: Diff) -> str:
    """One line a parameter: what would happen, and the std now and planned."""
    number = lambda x: "-" if x is None else f"{x:.4g}"  # noqa: E731
    lines: list[tuple[str, ...]] = [("parameter", "would", "shape", "std now", "std planned")]
    words = {
        "draw": "be drawn",
        "keep": "stay",
        "missing": "be missed",
        "extra": "stay (not in the plan)",
        "shape": "not fit",
    }
    for c in diff.changes:
        shape = "×".join(map(str, c.shape)) or "scalar"
        lines.append((c.name, words[c.change], shape, number(c.std_now), number(c.std_planned)))
    counts = ", ".join(f"{len(diff.of(k))} {words[k]}" for k in words if diff.of(k))
    return "\n".join([f"{len(diff.changes)} parameters would: {counts}", *_aligned(lines, 200)])
