"""The page docs/accuracy.md from the results of ``benchmarks/accuracy.py --json``.

python benchmarks/accuracy.py llama bert --small --width 256 --json text.json
python benchmarks/accuracy.py --json published.json
python benchmarks/accuracy_table.py text.json --published published.json --others others.json > docs/accuracy.md
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

HEAD = """# Accuracy

How far predictions are from measurements, in percent of the rms, at the 50th and 95th percentile over all tensors of a
model (weights: over all parameters' gradients). Each architecture is measured on three freshly drawn networks; noise is
the standard error of what was measured, below which no error means anything. Published configurations are shrunk to two
layers and a width of 256. Made by `benchmarks/accuracy.py` and `benchmarks/accuracy_table.py`.
"""
COLUMNS = """
| architecture | mode | tensors | forward | noise | backward | weights | unmodelled |
|---|---|---|---|---|---|---|---|"""
PUBLISHED = """
## Published sizes

Configurations as published: text at 64 tokens; small architectures of timm, four images of noise. The noise is that of
the signal; gradients behind dropped paths, drawn gains (RepVGG) and norms over few numbers scatter more.
"""


OTHERS = """
## Architectures that no list names

Types of transformers beside those that the theory was made with, shrunk in the same way.
"""


def cell(figures: dict[str, float]) -> str:
    """p50 / p95 of one kind of error."""
    return f"{figures['p50']:.1f} / {figures['p95']:.1f}" if figures else ""


def line(r: dict[str, Any]) -> str:
    """One architecture in one mode."""
    name = shown_name(r)
    if r["error"]:
        return f"| {name} | {r['mode']} | failed: {r['error'].split(chr(10))[0][:60]} | | | | | |"
    shown = " | ".join(cell(r[k]) for k in ("forward", "noise", "backward", "parameters"))
    return f"| {name} | {r['mode']} | {r['tensors']} | {shown} | {len(r['unmodelled']) or ''} |"


GOALS = {"forward": (1.0, 5.0), "backward": (5.0, 15.0), "parameters": (8.0, 30.0)}
"""Percent at the 50th and the 95th percentile."""
LISTS = {"forward": "worst", "backward": "worst_backward", "parameters": "worst_parameters"}
WORDS = {"forward": "forward", "backward": "backward", "parameters": "weights"}


def within(r: dict[str, Any], kind: str) -> bool:
    """Whether one kind of error of one architecture is within its goal, or within what was measured."""
    figures, noise = r[kind], r["noise"] if kind == "forward" else {}
    return all(figures[p] <= max(g, 2 * noise.get(p, 0.0)) for p, g in zip(("p50", "p95"), GOALS[kind], strict=True))


def summary(results: list[dict[str, Any]], head: str = "## Summary") -> list[str]:
    """A line a mode: how many trace, how many keep to the goals, and the median architecture."""
    lines = ["", head, "", "| mode | architectures | fully modelled | " + " | ".join(WORDS.values()) + " |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for mode in ("train", "eval"):
        found = [r for r in results if r["mode"] == mode and not r["error"]]
        if not found:
            continue
        cells = []
        for kind in WORDS:
            shown = [r for r in found if r[kind]]
            middle = {p: float(np.median([r[kind][p] for r in shown])) for p in ("p50", "p95")}
            cells.append(f"{cell(middle)}, {sum(within(r, kind) for r in shown)} within")
        clean = sum(not r["unmodelled"] for r in found)
        lines.append(f"| {mode} | {len(found)} | {clean} | " + " | ".join(cells) + " |")
    goals = "; ".join(f"{WORDS[k]} {a:g} / {b:g}" for k, (a, b) in GOALS.items())
    lines += [
        "",
        "The median architecture, and how many are within the goals",
        f"({goals}; forward also within twice the noise).",
    ]
    return lines


FURTHEST = """
## Furthest off

Architectures beyond a goal, with the tensor or parameter that is furthest off.

| architecture | mode | kind | furthest off | operation | error |
|---|---|---|---|---|---|"""


def furthest(results: list[dict[str, Any]]) -> list[str]:
    """What is beyond the goals, with the tensor that is furthest off."""
    lines = [str(row) for row in FURTHEST.splitlines()]
    for r in results:
        for kind, listed in LISTS.items():
            if r["error"] or not r[kind] or within(r, kind) or not r[listed]:
                continue
            name, op, _, error = r[listed][0]
            said = f"{error:.0%}" if error < 100 else "measured zero or nearly so"
            lines.append(f"| {shown_name(r)} | {r['mode']} | {WORDS[kind]} | `{name}` | {op} | {said} |")
    return lines


def shown_name(r: dict[str, Any]) -> str:
    """The architecture without the source it came from."""
    return r["target"].removeprefix("hf:")


def ordered(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Architectures in alphabetical order, training mode first; of two runs the later."""
    found = {(r["target"], r["mode"]): r for r in results}
    return [found[key] for key in sorted(found, key=lambda k: (k[0], k[1] != "train"))]


def page(
    results: list[dict[str, Any]], published: list[dict[str, Any]], others: list[dict[str, Any]], notes: str
) -> str:
    """The whole page."""
    kept, beside = ordered(results), ordered(others)
    sized = [PUBLISHED, COLUMNS.strip(), *map(line, ordered(published))] if published else []
    unnamed = [OTHERS, COLUMNS.strip(), *map(line, beside), *summary(beside, "### Their summary")] if others else []
    parts = [HEAD, COLUMNS.strip(), *map(line, kept), *summary(kept), *sized, *unnamed, *furthest([*kept, *beside])]
    return "\n".join(parts) + "\n" + notes


def gathered(paths: list[str]) -> list[dict[str, Any]]:
    """The results of several files."""
    return [result for path in paths for result in json.loads(Path(path).read_text())]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+")
    parser.add_argument("--published", nargs="*", default=[])
    parser.add_argument("--others", nargs="*", default=[], help="results of architectures that no list names")
    args = parser.parse_args()
    notes = Path(__file__).with_name("accuracy_notes.md").read_text()
    print(page(gathered(args.results), gathered(args.published), gathered(args.others), notes), end="")
