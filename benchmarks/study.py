"""Trials a second of the study's engine against plain loops by hand: 32 replicas of a network.

    python benchmarks/study.py [--json] [--replicas 32] [--steps 20] [CASE ...]

For every case: the time of one step of all replicas (a) by a plain loop over the networks, nn.Module and torch.optim,
at the thread count that is best for it, (b) stacked, (c) in two processes of one thread each, serial and stacked. Ways
are interleaved, the medians of the rounds are compared. ``engine`` is the way that `fanin study run` takes by itself,
after its own short timings: networks one by one or stacked in processes of one thread, or one stack on all threads.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from as_json import add_json, finish, keep, lines

import fanin.study
from fanin.frameworks.torch.training import Problem, Recipe
from fanin.frameworks.torch.training.stacked import Stack
from fanin.study.engines.pool import Pool
from fanin.study.grid import comparing
from fanin.study.trial import _from_names

CASES: dict[str, dict[str, Any]] = {
    "mlp": {"model": "dense", "data": "digits", "depth": 3, "width": 64},
    "mlp batchnorm": {"model": "dense", "data": "digits", "depth": 3, "width": 64, "norm": "batch"},
    "deep mlp": {"model": "dense", "data": "digits", "depth": 30, "width": 32},
    "conv": {"model": "conv", "data": "digits", "depth": 6, "width": 4, "batch": 16},
    "conv batchnorm": {"model": "conv", "data": "digits", "depth": 6, "width": 4, "norm": "batch", "batch": 16},
    "conv 1d": {"model": "conv", "data": "signals", "stream": False, "depth": 6, "width": 8, "batch": 16},
    "conv 16 channels": {"model": "conv", "data": "digits", "depth": 6, "width": 16, "batch": 64},
    "transformer": {"model": "transformer", "data": "text", "stream": False, "length": 16, "depth": 2, "width": 16},
}


SHOWN = ("milliseconds", "engine", "engine_against_plain_loop", "engine_against_best")


def problem_of(case: str) -> tuple[Problem, Recipe]:
    levels = dict(CASES[case])
    task = {name: levels.pop(name) for name in ("model", "data")}
    batch = levels.pop("batch", 32)
    return _from_names(task, levels), Recipe(steps=1000, batch=batch, momentum=0.9)


def chosen(case: str, replicas: int, processes: int = 2) -> str:
    """The way that the engine takes, by the name of its timing here."""
    levels = dict(CASES[case])
    training = {"steps": 1000, "batch": levels.pop("batch", 32), "momentum": 0.9}
    arms = {"he": {"recipe": "he"}}
    spec = {"name": case, "task": levels, "training": training, "rates": [0.01], "arms": arms}
    study = fanin.study.read({**spec, "seeds": {"compare": replicas}})
    with Pool(processes) as pool:
        unit = pool.units(list(comparing(study, (), study.arms[0], 0.01)), "auto")[0]
    if unit.threads > 1:
        return f"stacked, {unit.threads} threads"
    return f"{'plain' if unit.way == 'serial' else unit.way}, {processes} processes"


def starts_of(problem: Problem, count: int) -> list[dict]:
    return [{k: v.clone() for k, v in problem.model.state_dict().items()} for _ in range(count)]


def plain(problem: Problem, recipe: Recipe, replicas: int) -> Callable[[int], None]:
    """One step of every network by hand."""
    import copy

    models = [copy.deepcopy(problem.model).train() for _ in range(replicas)]
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.01, momentum=recipe.momentum) for m in models]

    def step(i: int) -> None:
        for seed, (model, optimizer) in enumerate(zip(models, optimizers)):
            x, y = problem.batch(seed, i, recipe.batch)
            optimizer.zero_grad()
            problem.loss(model(x), y).backward()
            optimizer.step()

    return step


def stacked(problem: Problem, recipe: Recipe, replicas: int) -> Callable[[int], object]:
    problem.model.train()
    stack = Stack(problem, recipe, starts_of(problem, replicas), [0.01] * replicas, range(replicas))
    return stack.step


def seconds(step: Callable[[int], object], steps: int) -> float:
    began = time.perf_counter()
    for i in range(steps):
        step(i)
    return (time.perf_counter() - began) / steps


MAKERS = {"plain": plain, "stacked": stacked}


def worker(case: str, way: str, replicas: int, steps: int, barrier: Any, out: Any) -> None:
    torch.set_num_threads(1)
    problem, recipe = problem_of(case)
    step = MAKERS[way](problem, recipe, replicas)
    seconds(step, 2)
    barrier.wait()
    out.put(seconds(step, steps))


def in_processes(case: str, way: str, replicas: int, steps: int, processes: int = 2) -> float:
    """Time of a step of all replicas, shared among processes."""
    context = multiprocessing.get_context("spawn")
    barrier, out = context.Barrier(processes), context.Queue()
    parts = [
        context.Process(target=worker, args=(case, way, replicas // processes, steps, barrier, out))
        for _ in range(processes)
    ]
    for part in parts:
        part.start()
    taken = [out.get() for _ in parts]
    for part in parts:
        part.join()
    return max(taken)


def measure(case: str, replicas: int, steps: int, rounds: int) -> dict[str, Any]:
    problem, recipe = problem_of(case)
    ways = {f"plain, {n} threads": (plain(problem, recipe, replicas), n) for n in (1, 2)}
    ways |= {f"stacked, {n} threads": (stacked(problem, recipe, replicas), n) for n in (1, 2)}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):  # the first warms up
        for name, (step, threads) in ways.items():
            torch.set_num_threads(threads)
            taken[name].append(seconds(step, steps))
    found = {name: statistics.median(times[1:]) for name, times in taken.items()}
    for way in MAKERS:
        found[f"{way}, 2 processes"] = statistics.median(
            in_processes(case, way, replicas, steps) for _ in range(rounds)
        )
    torch.set_num_threads(1)
    way = chosen(case, replicas)
    by_hand = min(value for name, value in found.items() if name.startswith("plain") and "threads" in name)
    engine = found[way]
    return {
        "case": case,
        "replicas": replicas,
        "milliseconds": {name: round(1e3 * value, 2) for name, value in found.items()},
        "engine": way,
        "engine_against_plain_loop": round(by_hand / engine, 2),
        "engine_against_best": round(min(found.values()) / engine, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=list(CASES), metavar="CASE")
    parser.add_argument("--replicas", type=int, default=32)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    add_json(parser)
    given = parser.parse_args()
    if unknown := set(given.cases) - set(CASES):
        parser.error(f"no case {', '.join(sorted(unknown))}; there are: {', '.join(CASES)}")
    torch.set_flush_denormal(True)
    rows = []
    for case in given.cases or CASES:
        rows.append(measure(case, given.replicas, given.steps, given.rounds))
        keep(given.json, rows)
        with lines(given.json):
            print(f"{case:18}", *(rows[-1][key] for key in SHOWN), flush=True)
    finish(given.json, rows)


if __name__ == "__main__":
    main()
