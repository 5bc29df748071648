"""LSUV in one pass: what it costs against a forward pass and against the classic loop, and how exact it is.

The classic loop (Mishkin & Matas 2015) runs the model up to each layer, divides the weight by the std of the layer's
output, and runs it again until the variance is one: two or more forward passes a layer. Times are medians of ratios
within a round; the calibrating pass is timed by itself (the model is traced before, once).

    python benchmarks/lsuv.py [--json [FILE.json]] [--depths 10 50 200] [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from as_json import add_json, finish, lines
from torch import nn

import fanin
from fanin.frameworks.torch import verbs as side
from fanin.recipes.lsuv import factors

WIDTH, BATCH = 512, 256


def build(depth: int) -> tuple[nn.Sequential, torch.Tensor]:
    torch.manual_seed(0)
    layers = [module for _ in range(depth) for module in (nn.Linear(WIDTH, WIDTH), nn.ReLU())]
    return nn.Sequential(*layers), torch.randn(BATCH, WIDTH)


def classic(model: nn.Sequential, batch: torch.Tensor, tolerance: float = 0.1, tries: int = 10) -> None:
    """Orthonormal weights, then layer by layer: run, measure, divide, until the variance is within the tolerance."""
    layers = [m for m in model if isinstance(m, nn.Linear)]
    for layer in layers:
        nn.init.orthogonal_(layer.weight)
        nn.init.zeros_(layer.bias)
    seen: list[torch.Tensor] = []
    with torch.no_grad():
        for layer in layers:
            handle = layer.register_forward_hook(lambda _, __, out: seen.append(out))
            for _ in range(tries):
                seen.clear()
                model(batch)
                variance = float(seen[0].var())
                if abs(variance - 1) < tolerance:
                    break
                layer.weight /= variance**0.5
            handle.remove()


def timed(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def at_depth(depth: int, rounds: int) -> dict[str, float]:
    model, batch = build(depth)
    plan = fanin.plan(model, batch, recipe="lsuv")
    reading = side.read_model(model, batch)
    names = list(plan.drawn)
    copied = side._planned(reading, plan, side._tensors(model), 0)
    at = _weights(reading, plan)
    from fanin.frameworks.torch.calibrate import calibrate

    def forward() -> None:
        with torch.no_grad():
            model(batch)

    forward()
    costs, speedups = [], []
    loop = [timed(lambda: classic(model, batch))] if depth <= 50 else []
    for _ in range(rounds):
        one, ours = timed(forward), timed(lambda: calibrate(reading, copied, at, std=1.0, seed=0))
        costs.append(ours / one)
        speedups += [loop[0] / ours] if loop else []
    whole = timed(lambda: factors(side, plan, model, batch, names, std=1.0, seed=0))
    fanin.init_(model, batch, recipe="lsuv", seed=0)
    return {
        "forward_passes": round(statistics.median(costs), 2),
        **({"classic_over_one_pass": round(statistics.median(speedups), 1)} if loop else {}),
        **({"classic_over_whole": round(loop[0] / whole, 1)} if loop else {}),
        "whole_s": round(whole, 3),
        "worst_variance_error": round(worst(model, batch), 5),
    }


def _weights(reading, plan) -> dict[str, str]:
    from fanin.recipes.structure import Structure

    structure = Structure(reading.graph)
    return {n.id: w for n in structure.weighted if (w := structure.weight_at(n)) in plan.drawn}


def worst(model: nn.Sequential, batch: torch.Tensor) -> float:
    """Largest |variance - 1| of a layer's output."""
    errors, x = [], batch
    with torch.no_grad():
        for module in model:
            x = module(x)
            if isinstance(module, nn.Linear):
                errors.append(abs(float(x.var(correction=0)) - 1))
    return max(errors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_json(parser)
    parser.add_argument("--depths", type=int, nargs="+", default=[10, 50, 200])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    result = {str(depth): at_depth(depth, args.rounds) for depth in args.depths}
    with lines(args.json):
        for depth, row in result.items():
            print(f"{depth:>4s} layers  " + "  ".join(f"{k} {v:g}" for k, v in row.items()))
    finish(args.json, result)


if __name__ == "__main__":
    main()
