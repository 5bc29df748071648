"""How often the predicted 95 % interval of a single network's rms holds what networks measure.

    python benchmarks/intervals.py                       # every family, 50 networks each: hours
    python benchmarks/intervals.py --quick               # a few minutes
    python benchmarks/intervals.py residual conv --seeds 200 --json coverage.json
    python benchmarks/intervals.py mlp,1024x5,uniform    # words of one name, all of them

A case is a model, a batch, and a law for every weight. It is traced and predicted once; each network draws all its
weights anew and runs the traced steps, forward and backward from an i.i.d. N(0, 1) cotangent. The coverage is the share
of (tensor, network) pairs inside, over all floating-point tensors of the graph. Tensors of one net move together, so
the standard error of a case's coverage is that of its networks' shares: their standard deviation over the root of their
number. A file of results is added to: what it has is not run again.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from as_json import add_json, finish, keep, lines
from interval_draws import drawn, laws
from interval_nets import Case, cases

from fanin.distributions import Distribution
from fanin.frameworks.torch.execute import execute
from fanin.frameworks.torch.verbs import read_model
from fanin.theory import interpret

SIDES = ("forward", "backward")


@dataclass
class Result:
    """Coverage of one case.

    Attributes:
        error: standard error of each coverage, over networks.
        below: share of what lies below the interval.
        ratio: mean over tensors of the measured over the predicted width, in the logarithm.
    """

    name: str
    forward: float
    backward: float
    tensors: int
    networks: int
    error: dict[str, float] = field(default_factory=dict)
    below: dict[str, float] = field(default_factory=dict)
    ratio: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0


def measured(case: Case, chosen: dict[str, Distribution], reading: Any, seeds: int) -> tuple[dict, dict]:
    """rms of every tensor and of its cotangent in every network, by row name."""
    names = {node.id: node.name for node in reading.graph.signals}
    forward: dict[str, list[float]] = {}
    backward: dict[str, list[float]] = {}

    def into(table: dict[str, list[float]]):
        def watch(id_: str, tensor: torch.Tensor) -> None:
            if id_ in names:
                table.setdefault(names[id_], []).append(float(tensor.detach().double().square().mean().sqrt()))

        return watch

    seed = zlib.crc32(case.name.encode())  # chance is each case's own
    rng = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    for _ in range(seeds):
        weights = {n: drawn(chosen[n], tuple(p.shape), rng) for n, p in case.model.named_parameters()}
        execute(
            reading.program,
            weights | dict(case.model.named_buffers()),
            watch=into(forward),
            watch_grad=into(backward),
            cotangent=lambda outputs: (outputs[0] * torch.randn_like(outputs[0])).sum(),
        )
    return forward, backward


def covered(case: Case, seeds: int, scale: float = 1.0) -> Result:
    """Predict once, draw many networks, count; ``scale`` shrinks the intervals in the logarithm (a control)."""
    start = time.perf_counter()
    case.model.train()
    reading = read_model(case.model, case.batch)
    chosen = laws(case.model, reading.graph, case.law, case.gain)
    predicted = interpret(reading.graph, chosen)
    tables = measured(case, chosen, reading, seeds)
    counts = {side: counted(predicted.rows, table, side, scale) for side, table in zip(SIDES, tables, strict=True)}
    inside = {side: c[0] for side, c in counts.items()}
    return Result(
        case.name,
        *(float(np.mean(inside[side])) for side in SIDES),
        tensors=len(inside["forward"]),
        networks=seeds,
        error={side: float(inside[side].mean(0).std(ddof=1) / math.sqrt(seeds)) for side in SIDES},
        below={side: float(c[1].mean()) for side, c in counts.items()},
        ratio={side: float(np.mean(c[2])) if len(c[2]) else float("nan") for side, c in counts.items()},
        seconds=round(time.perf_counter() - start, 1),
    )


def counted(rows: Any, table: dict[str, list[float]], side: str, scale: float) -> tuple[np.ndarray, ...]:
    """Inside and below, (tensors, networks), and each tensor's measured over predicted width."""
    inside, below, ratio = [], [], []
    for row in rows:
        ends = (row.rms_low, row.rms_high) if side == "forward" else (row.grad_rms_low, row.grad_rms_high)
        values = np.log(np.array(table.get(row.name, [])))
        if ends[0] is None or not len(values) or ends[0] <= 0:
            continue
        low, high = np.log(ends)
        middle, half = (low + high) / 2, scale * (high - low) / 2
        inside.append(np.abs(values - middle) <= half)
        below.append(values < middle - half)
        if half > 1e-4:
            ratio.append(np.std(values) / (half / 1.96))
    return np.array(inside), np.array(below), np.array(ratio)


def line(r: Result) -> str:
    """One case."""
    shown = "  ".join(
        f"{side} {getattr(r, side):.3f} ± {r.error[side]:.3f} below {r.below[side]:.3f} width {r.ratio[side]:.2f}"
        for side in SIDES
    )
    return f"{r.name:38s} {shown} {r.seconds:6.1f} s"


def chosen_by(name: str, words: list[str]) -> bool:
    """Whether a name has all parts of one of the words."""
    return not words or any(all(part in name for part in word.split(",")) for word in words)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="only cases whose name has one of these words; a,b: both")
    parser.add_argument("--quick", action="store_true", help="fewer shapes")
    parser.add_argument("--seeds", type=int, default=50, help="networks a case")
    add_json(parser)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    before = Path(args.json) if args.json and args.json != "-" else None  # a file is added to, case by case
    results = [Result(**r) for r in json.loads(before.read_text())] if before and before.exists() else []
    known = {r.name for r in results}
    for case in cases(args.quick):
        if case.name in known or not chosen_by(case.name, args.words):
            continue
        results.append(covered(case, args.seeds))
        with lines(args.json):
            print(line(results[-1]), flush=True)
        keep(args.json, [asdict(r) for r in results])
    with lines(args.json):
        means = "  ".join(f"{side} {np.mean([getattr(r, side) for r in results] or [np.nan]):.3f}" for side in SIDES)
        print(f"mean of {len(results)}: {means}")
    finish(args.json, [asdict(r) for r in results])


if __name__ == "__main__":
    main()
