"""What ``auto`` reaches on a zoo of architectures: pre-activations near one, gradients flat, predicted and measured.

    python benchmarks/auto_zoo.py                          # every architecture of accuracy.py, two layers, width 64
    python benchmarks/auto_zoo.py llama swin --json zoo.json

A pre-activation is the output of a weight that an elementwise nonlinearity reads (directly or through a norm, where it
is the norm's output that counts). Wanted: every predicted rms within [0.5, 2], and gradients whose rms differs by less
than a factor of 10 along depth: between the pre-activations of all layers, and along each residual stream. What is
outside must be said in the plan, by the weight's own reason or by a note; what is not is listed as silent. Measured:
the same figures on freshly drawn networks, each compared with its prediction.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from accuracy import ZOO
from as_json import add_json, finish, keep, lines

import fanin
from fanin.frameworks import front_end
from fanin.recipes.gradients import preactivations
from fanin.recipes.structure import Structure
from fanin.targets import resolve

LOW, HIGH, SPREAD = 0.5 - 1e-6, 2.0 + 1e-6, 10.0  # 0.5 and 2 are scales that auto may choose


@dataclass
class Result:
    """One architecture.

    Attributes:
        activations: how many pre-activations there are, and the share of them within [0.5, 2], predicted and measured.
        range: smallest and largest rms of them.
        gradient: largest over smallest gradient rms among pre-activations; ``stream`` along the worst residual stream.
        outside: (tensor, rms, what the plan says of it) of the pre-activations outside.
        silent: what is outside without a word.
        error: median and largest |predicted / measured - 1| of the pre-activations' rms.
    """

    target: str
    activations: int = 0
    within: float = 1.0
    within_measured: float = 1.0
    range: tuple[float, float] = (1.0, 1.0)
    range_measured: tuple[float, float] = (1.0, 1.0)
    gradient: float = 1.0
    gradient_measured: float = 1.0
    stream: float = 1.0
    stream_measured: float = 1.0
    error: tuple[float, float] = (0.0, 0.0)
    outside: list[tuple[str, float, str]] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    failure: str = ""


def examine(target: str, seeds: int) -> Result:
    """Plan, predict, draw and measure."""
    result, start = Result(target), time.perf_counter()
    torch.manual_seed(0)
    found = resolve(target if ":" in target else f"hf:{target}", seed=0, small=True)
    model, batch = found.model.train(), found.batch
    side = front_end(model)
    reading = side.read_model(model, batch)
    plan = fanin.plan(model, batch)
    said = fanin.predict(model, batch, plan=plan)
    runs = [side.measure_signals(reading, plan=plan, seed=k) for k in range(seeds)]
    structure = Structure(reading.graph)
    rms, grad = averages(runs, "rms"), averages(runs, "grad_rms")
    tensors = {structure.graph.by_id[i].name: weight for i, weight in preactivations(structure).items()}
    names = [name for name in tensors if name in said and name in rms]
    _forward(result, plan, tensors, {n: said[n].rms for n in names if said[n].rms is not None}, rms)
    predicted = {row.name: row.grad_rms for row in said.rows if row.grad_rms}
    result.gradient, result.gradient_measured = spread(names, predicted), spread(names, grad)
    streams = residual_streams(structure).values()
    result.stream = max((spread(s, predicted) for s in streams), default=1.0)
    result.stream_measured = max((spread(s, grad) for s in streams), default=1.0)
    result.notes = list(plan.notes)
    for what, value in (("pre-activations", result.gradient), ("a residual stream", result.stream)):
        if value > SPREAD and not any("gradient" in note for note in plan.notes):
            result.silent.append(f"gradients of {what} differ by a factor of {value:.3g}")
    result.seconds = round(time.perf_counter() - start, 1)
    return result


def _forward(result: Result, plan, tensors: dict[str, str], said: dict[str, float], rms: dict[str, float]) -> None:
    if not said:
        return
    measured = {n: rms[n] for n in said}
    result.activations = len(said)
    result.within, result.within_measured = inside(said), inside(measured)
    result.range = min(said.values()), max(said.values())
    result.range_measured = min(measured.values()), max(measured.values())
    errors = [abs(said[n] / rms[n] - 1) for n in said if rms[n] > 0]
    result.error = float(np.median(errors)), float(np.max(errors))
    for name, value in said.items():
        if not LOW <= value <= HIGH:
            reason = plan[tensors[name]].reason
            result.outside.append((name, value, reason))
            if "pre-activation rms 1" in reason and not any("outside" in note for note in plan.notes):
                result.silent.append(f"{name} has rms {value:.3g}: {reason}")


def inside(values: dict[str, float]) -> float:
    """Share within [0.5, 2]."""
    return float(np.mean([LOW <= v <= HIGH for v in values.values()]))


def averages(runs, of: str) -> dict[str, float]:
    """Root of the mean square over networks, by tensor."""
    squares: dict[str, list[float]] = {}
    for run in runs:
        for row in run.rows:
            if getattr(row, of) is not None:
                squares.setdefault(row.name, []).append(getattr(row, of) ** 2)
    return {name: float(np.sqrt(np.mean(values))) for name, values in squares.items()}


def spread(names, values: dict[str, float]) -> float:
    """Largest over smallest."""
    found = [values[n] for n in names if values.get(n)]
    return max(found) / min(found) if found else 1.0


def residual_streams(structure: Structure) -> dict[str, list[str]]:
    """Sums of each residual stream, in order."""
    found: dict[str, list[str]] = {}
    for branch in structure.branches:
        found.setdefault(branch.stream, []).append(structure.graph.by_id[branch.node].name)
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", help="model types of transformers, or targets")
    parser.add_argument("--seeds", type=int, default=2)
    add_json(parser)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    results = []
    for target in args.targets or ZOO:
        try:
            result = examine(target, args.seeds)
        except Exception as error:
            result = Result(target, failure=f"{type(error).__name__}: {error}"[:300])
        results.append(result)
        with lines(args.json):
            show(result)
        keep(args.json, [asdict(r) for r in results])
    good = [r for r in results if not r.failure]
    reached = sum(r.within == 1 and r.gradient <= SPREAD and r.stream <= SPREAD for r in good)
    silent = sum(bool(r.silent) for r in good)
    with lines(args.json):
        print(f"{len(good)} of {len(results)} models; {reached} reach all targets, {silent} miss one in silence")
    finish(args.json, [asdict(r) for r in results])


def show(r: Result) -> None:
    """One line a model, and what is silent."""
    if r.failure:
        print(f"{r.target:16s} failed: {r.failure}", flush=True)
        return
    low, high = r.range
    least, most = r.range_measured
    print(
        f"{r.target:16s} {r.activations:3d} pre-activations, {r.within:5.0%} within ({low:.2f}..{high:.2f}), measured "
        f"{r.within_measured:5.0%} ({least:.2f}..{most:.2f}), error {r.error[0]:.1%}/{r.error[1]:.1%}; gradients "
        f"{r.gradient:.3g} ({r.gradient_measured:.3g}), stream {r.stream:.3g} ({r.stream_measured:.3g}); "
        f"{len(r.outside)} outside, {len(r.silent)} silent; {r.seconds:.0f} s",
        flush=True,
    )
    for line in r.silent[:4]:
        print(f"    silent: {line}", flush=True)
    for name, value, reason in r.outside[:2]:
        print(f"    outside: {name} {value:.3g}: {reason}", flush=True)
    for note in r.notes[:4]:
        print(f"    note: {note}", flush=True)


if __name__ == "__main__":
    main()
