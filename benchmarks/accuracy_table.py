"""The page docs/accuracy.md from the results of ``benchmarks/accuracy.py --json``.

python benchmarks/accuracy.py llama bert --small --width 256 --json text.json
python benchmarks/accuracy_table.py text.json vision.json > docs/accuracy.md
"""

from __future__ import annotations

import json
import sys
from typing import Any

HEAD = """# Accuracy

How far predictions are from measurements, in percent of the rms, at the 50th and 95th percentile over all tensors of a
model (weights: over all parameters' gradients). Each architecture is measured on three freshly drawn networks; noise is
the standard error of what was measured, below which no error means anything. Published configurations are shrunk to two
layers and a width of 256. Made by `benchmarks/accuracy.py` and `benchmarks/accuracy_table.py`.

| architecture | mode | tensors | forward | noise | backward | weights | unmodelled |
|---|---|---|---|---|---|---|---|"""


def cell(figures: dict[str, float]) -> str:
    """p50 / p95 of one kind of error."""
    return f"{figures['p50']:.1f} / {figures['p95']:.1f}" if figures else ""


def line(r: dict[str, Any]) -> str:
    """One architecture in one mode."""
    name = r["target"].removeprefix("hf:")
    if r["error"]:
        return f"| {name} | {r['mode']} | failed: {r['error'].split(chr(10))[0][:60]} | | | | | |"
    shown = " | ".join(cell(r[k]) for k in ("forward", "noise", "backward", "parameters"))
    return f"| {name} | {r['mode']} | {r['tensors']} | {shown} | {len(r['unmodelled']) or ''} |"


def page(results: list[dict[str, Any]]) -> str:
    """The whole page, architectures in alphabetical order."""
    found = {(r["target"], r["mode"]): r for r in results}
    rows = [line(found[key]) for key in sorted(found, key=lambda k: (k[0], k[1] != "train"))]
    return "\n".join([HEAD, *rows]) + "\n"


if __name__ == "__main__":
    gathered: list[dict[str, Any]] = []
    for path in sys.argv[1:]:
        with open(path) as file:
            gathered += json.load(file)
    print(page(gathered), end="")
