"""What a prediction costs: time and memory against depth, from the meta device.

    python benchmarks/predict.py                       # every family at its depths
    python benchmarks/predict.py llama --depths 2,80   # one family
    python benchmarks/predict.py --json FILE           # '-' for standard output

Every point runs in a process of its own, so that peak memory is that point's. Seconds are of the processor (user and
system, all threads), beside seconds on the clock: on a shared machine only the former say what the work is. Stages:
``build`` (the model on the meta device, not fanin's), ``trace`` (program, graph, records), ``forward`` and ``backward``
(the theory). Llama is the 70-billion-parameter configuration at 80 layers: 2,048 tokens, hidden size 8,192.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from as_json import add_json, finish
from torch import nn

from fanin.frameworks.torch.verbs import read_model
from fanin.theory.engine import Interpreter

Point = dict[str, Any]


def llama(depth: int) -> tuple[nn.Module, Any]:
    """Llama-2-70B with so many layers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=8192,
        intermediate_size=28672,
        num_hidden_layers=depth,
        num_attention_heads=64,
        num_key_value_heads=8,
        vocab_size=32000,
        max_position_embeddings=4096,
    )
    return LlamaForCausalLM(config), {"input_ids": torch.zeros(1, 2048, dtype=torch.int64)}


def gpt2(depth: int) -> tuple[nn.Module, Any]:
    """GPT-2 small with so many layers."""
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(n_layer=depth)), {"input_ids": torch.zeros(2, 1024, dtype=torch.int64)}


def resnet(depth: int) -> tuple[nn.Module, Any]:
    """ResNet-50, 101, 152 as in transformers, on 32 images of 224 pixels."""
    from transformers import ResNetConfig, ResNetForImageClassification

    blocks = {50: [3, 4, 6, 3], 101: [3, 4, 23, 3], 152: [3, 8, 36, 3]}[depth]
    model = ResNetForImageClassification(ResNetConfig(depths=blocks, num_labels=1000))
    return model, {"pixel_values": torch.zeros(32, 3, 224, 224)}


def mlp(depth: int) -> tuple[nn.Module, Any]:
    """Dense layers of 512 with GELU."""
    layers = [nn.Sequential(nn.Linear(512, 512), nn.GELU()) for _ in range(depth)]
    return nn.Sequential(*layers), torch.zeros(64, 512)


def normalized(depth: int) -> tuple[nn.Module, Any]:
    """Dense layers of 512 with BatchNorm and ReLU."""
    layers = [nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU()) for _ in range(depth)]
    return nn.Sequential(*layers), torch.zeros(64, 512)


FAMILIES: dict[str, tuple[Callable[[int], tuple[nn.Module, Any]], tuple[int, ...]]] = {
    "llama": (llama, (2, 10, 20, 40, 80)),
    "gpt2": (gpt2, (2, 12, 24, 48)),
    "resnet": (resnet, (50, 101, 152)),
    "mlp": (mlp, (10, 100, 300)),
    "batchnorm": (normalized, (10, 100, 300)),
}


class Clock:
    """Seconds of the processor and on the clock, by stage."""

    def __init__(self) -> None:
        self.cpu: dict[str, float] = {}
        self.wall: dict[str, float] = {}

    def time(self, stage: str, work: Callable[[], Any]) -> Any:
        """Run a piece of work and write down what it took."""
        cpu, wall = time.process_time(), time.perf_counter()
        result = work()
        self.cpu[stage] = round(time.process_time() - cpu, 3)
        self.wall[stage] = round(time.perf_counter() - wall, 3)
        return result


def peak_megabytes() -> float:
    """Largest resident size of this process so far."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def on_meta(family: str, depth: int) -> tuple[nn.Module, Any]:
    """Model and batch on the meta device."""
    with torch.device("meta"):
        return FAMILIES[family][0](depth)


def one(family: str, depth: int) -> Point:
    """Everything about one model, measured in this process."""
    clock, memory = Clock(), {"start": peak_megabytes()}
    model, batch = clock.time("build", lambda: on_meta(family, depth))
    memory["build"] = peak_megabytes()
    reading = clock.time("trace", lambda: read_model(model, batch))
    memory["trace"] = peak_megabytes()
    interpreter = Interpreter(reading.graph)
    clock.time("forward", interpreter.forward)
    memory["forward"] = peak_megabytes()
    signals = clock.time("backward", interpreter.signals)
    memory["backward"] = peak_megabytes()
    return {
        "family": family,
        "depth": depth,
        "parameters": sum(p.numel() for p in model.parameters()),
        "nodes": len(reading.graph.nodes),
        "rows": len(signals.rows),
        "unmodelled": sum(row.rms is None for row in signals.rows),
        "cpu_s": clock.cpu,
        "wall_s": clock.wall,
        "peak_mb": memory,
    }


def apart(family: str, depth: int) -> Point:
    """One point in a process of its own."""
    command = [sys.executable, os.path.abspath(__file__), "--one", family, str(depth)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {"family": family, "depth": depth, "error": done.stderr.strip().splitlines()[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def growth(points: list[Point]) -> dict[str, float]:
    """Exponent of each stage's processor time in the number of nodes (least squares of logarithms); 1 is linear."""
    points = [p for p in points if "error" not in p]
    if len(points) < 2:
        return {}
    nodes = np.log([p["nodes"] for p in points])
    stages = ("trace", "forward", "backward")
    times = {s: np.log([max(p["cpu_s"][s], 1e-3) for p in points]) for s in stages}
    return {stage: round(float(np.polyfit(nodes, t, 1)[0]), 2) for stage, t in times.items()}


def shown(point: Point) -> str:
    """A line of the table."""
    head = f"{point['family']:10s} {point['depth']:4d}"
    if "error" in point:
        return f"{head}  {point['error']}"
    cpu, wall = point["cpu_s"], point["wall_s"]
    stages = "  ".join(f"{s} {cpu[s]:7.2f} ({wall[s]:.2f})" for s in cpu)
    return f"{head}  nodes {point['nodes']:6d}  {stages}  peak {point['peak_mb']['backward']:6.0f} MB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", help=f"of {', '.join(FAMILIES)}; all by default")
    parser.add_argument("--depths", help="comma-separated, instead of the family's own")
    add_json(parser)
    parser.add_argument("--one", nargs=2, metavar=("FAMILY", "DEPTH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one[0], int(options.one[1]))))
        return
    points: list[Point] = []
    for family in options.families or FAMILIES:
        depths = [int(d) for d in options.depths.split(",")] if options.depths else FAMILIES[family][1]
        for depth in depths:
            points.append(apart(family, depth))
            print(shown(points[-1]), file=sys.stderr, flush=True)
    exponents = {f: growth([p for p in points if p["family"] == f]) for f in {p["family"] for p in points}}
    about = {"cpu": platform.processor() or platform.machine(), "torch": torch.__version__}
    finish(options.json, {"machine": about, "growth": exponents, "points": points})


if __name__ == "__main__":
    main()
