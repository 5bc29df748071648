"""The page docs/coverage.md from the results of ``benchmarks/intervals.py --json``.

python benchmarks/intervals_table.py coverage.json > docs/coverage.md
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

SIDES = ("forward", "backward")
GOAL = (0.92, 0.98)
HEAD = """# Coverage

How often the predicted 95 % interval of a single network's rms ([theory](theory.md)) holds what networks measure: in
percent of (tensor, network) pairs, every tensor of the graph, forward and backward from a random cotangent. A case is
predicted once and drawn anew for every network. Tensors of one network move together, so behind ± is the standard error
over networks. Width: standard deviation of the measured logarithm over the predicted one. Made by
`benchmarks/intervals.py` and `benchmarks/intervals_table.py`.

What is known to be off: behind a norm over the positions of a map, how much more alike close positions are than far
ones is left out (intervals forward a third too wide behind batch norm, gradients before instance norm somewhat too
narrow). Activations whose fixed point is unstable at the scale that was drawn (GELU at gain 2 from 20 layers on, SiLU,
Mish and Hardswish at 40): some networks grow and some die, so gradients have two humps that one interval does not hold.
"""
COLUMNS = """
| case | tensors | networks | forward | width | backward | width |
|---|---|---|---|---|---|---|"""


def line(r: dict[str, Any]) -> str:
    """One case."""
    cells = [f"{100 * r[s]:.1f} ± {100 * r['error'][s]:.1f} | {r['ratio'][s]:.2f}" for s in SIDES]
    return f"| {r['name']} | {r['tensors']} | {r['networks']} | {' | '.join(cells)} |"


def summary(results: list[dict[str, Any]]) -> str:
    """Means over cases, and how many lie outside the goal by more than twice their error."""
    said = []
    for side in SIDES:
        values = np.array([r[side] for r in results])
        error = np.array([r["error"][side] for r in results])
        outside = (values + 2 * error < GOAL[0]) | (values - 2 * error > GOAL[1])
        said.append(f"{side} {100 * values.mean():.1f} (outside 92 to 98 by more than two errors: {outside.sum()})")
    return f"\nMean over {len(results)} cases: {', '.join(said)}.\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path)
    results = [r for path in parser.parse_args().results for r in json.loads(path.read_text())]
    print(HEAD + summary(results) + COLUMNS)
    print("\n".join(line(r) for r in results))


if __name__ == "__main__":
    main()
