"""How fast weights are drawn, against torch.nn.init, NumPy and the speed of writing.

Every contender of a case runs in one process, in turn, ``--rounds`` times over the same memory; a figure is the
median time, a ratio the median of the ratios within a round, which noise of the machine moves least.

    python benchmarks/fill.py [--json FILE] [--values 67108864] [--rounds 5] [--only NAME] [--threads N]
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace

from as_json import add_json, finish

os.environ["FANIN_KERNELS"] = "1"

import numpy as np
import torch

from fanin.distributions import Normal, Orthogonal, TruncatedNormal, Uniform
from fanin.fill import engine, threads
from fanin.fill.keys import key
from fanin.fill.laws import law
from fanin.frameworks.torch.fill import apply

init = torch.nn.init
Case = dict[str, Callable[[], object]]


def kernel(tensor: torch.Tensor, distribution) -> Callable[[], object]:
    model = torch.nn.Module()
    model.w = torch.nn.Parameter(tensor)
    entry = SimpleNamespace(shape=tuple(tensor.shape), distribution=distribution, tied_to=None)
    return lambda: apply(SimpleNamespace(entries={"w": entry}), model, seed=0)


def elementwise(values: int) -> dict[str, Case]:
    single, half = torch.zeros(values), torch.zeros(values, dtype=torch.bfloat16)
    double, matrix = torch.zeros(values // 2, dtype=torch.float64), single.view(-1, 4096)
    array, generator = single.numpy(), np.random.default_rng(0)
    return {
        "normal": {
            "fanin": kernel(single, Normal(0.02)),
            "torch": lambda: init.normal_(single, std=0.02),
            "numpy": lambda: generator.standard_normal(out=array, dtype=np.float32),
            "write": lambda: single.fill_(1.0),
        },
        "uniform": {
            "fanin": kernel(single, Uniform(0.02)),
            "torch": lambda: init.uniform_(single, -0.03, 0.03),
            "numpy": lambda: generator.random(out=array, dtype=np.float32),
            "write": lambda: single.fill_(1.0),
        },
        "truncated_normal": {
            "fanin": kernel(single, TruncatedNormal(0.02)),
            "torch": lambda: init.trunc_normal_(single, std=0.02, a=-0.04, b=0.04),
        },
        "kaiming_normal": {
            "fanin": kernel(matrix, Normal((2 / 4096) ** 0.5)),
            "torch": lambda: init.kaiming_normal_(matrix),
        },
        "bfloat16_normal": {
            "fanin": kernel(half, Normal(0.02)),
            "torch": lambda: init.normal_(half, std=0.02),
            "write": lambda: half.fill_(1.0),
        },
        "float64_normal_half": {
            "fanin": kernel(double, Normal(0.02)),
            "torch": lambda: init.normal_(double, std=0.02),
            "numpy": lambda: generator.standard_normal(out=double.numpy()),
        },
    }


def small_tensors(_: int) -> dict[str, Case]:
    rng = np.random.default_rng(0)
    sizes = np.exp(rng.uniform(np.log(64), np.log(4096), 5000)).astype(int)
    model = torch.nn.ParameterDict({f"p{i}": torch.zeros(int(n)) for i, n in enumerate(sizes)})
    entries = {
        name: SimpleNamespace(shape=tuple(p.shape), distribution=Normal(0.02), tied_to=None)
        for name, p in model.named_parameters()
    }
    plan = SimpleNamespace(entries=entries)

    def torch_loop() -> None:
        for parameter in model.parameters():
            init.normal_(parameter, std=0.02)

    return {"small_tensors_5000": {"fanin": lambda: apply(plan, model, seed=0), "torch": torch_loop}}


def orthogonal(_: int) -> dict[str, Case]:
    cases = {}
    for shape in ((1024, 1024), (2048, 2048), (4096, 4096), (512, 512, 3, 3)):
        tensor = torch.zeros(shape)
        cases["orthogonal_" + "x".join(map(str, shape))] = {
            "fanin": kernel(tensor, Orthogonal()),
            "torch": lambda tensor=tensor: init.orthogonal_(tensor),
        }
    return cases


def per_thread(values: int) -> dict[str, Case]:
    """One thread against torch's one."""
    out, generator = torch.zeros(values // 4), law(Normal(0.02))

    def one() -> None:
        before = os.environ.get("FANIN_THREADS")
        os.environ["FANIN_THREADS"] = "1"
        try:
            engine.fill(out.numpy(), generator, key(0, "w"))
        finally:
            os.environ.pop("FANIN_THREADS")
            if before is not None:
                os.environ["FANIN_THREADS"] = before

    return {"normal_one_thread_quarter": {"fanin": one, "torch": lambda: init.normal_(out, std=0.02)}}


def gpt2_xl(rounds: int) -> dict[str, float]:
    """GPT-2 XL (1.56 billion parameters): transformers' own construction against a meta model, its Plan, and apply.

    ``zeros`` is the same model filled with zeros by torch: what the fresh memory alone costs.
    """
    import transformers

    import fanin

    config = transformers.GPT2Config(n_embd=1600, n_layer=48, n_head=25)
    plan = None
    times: dict[str, list[float]] = {"transformers": [], "fanin": [], "plan": [], "zeros": []}
    for _ in range(rounds):
        begin = time.perf_counter()
        model = transformers.GPT2LMHeadModel(config)
        times["transformers"].append(time.perf_counter() - begin)
        del model
        begin = time.perf_counter()
        with torch.device("meta"):
            model = transformers.GPT2LMHeadModel(config)
        if plan is None:
            plan = fanin.plan(model, torch.zeros(1, 8, dtype=torch.int64, device="meta"), recipe="gpt2")
            times["plan"].append(time.perf_counter() - begin)
            begin = time.perf_counter()
        apply(plan, model, seed=0)
        times["fanin"].append(time.perf_counter() - begin)
        del model
        begin = time.perf_counter()
        with torch.device("meta"):
            model = transformers.GPT2LMHeadModel(config)
        model.to_empty(device="cpu")
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        times["zeros"].append(time.perf_counter() - begin)
        del model
    result = {f"{name}_s": statistics.median(t) for name, t in times.items()}
    return result | {"transformers_over_fanin": result["transformers_s"] / result["fanin_s"]}


def linear_in_size(_: int) -> dict[str, float]:
    """Seconds for models of 0.25 to 3 billion parameters in bfloat16, filled in place after the memory is there."""
    result = {}
    engine.fill(np.zeros(1000, np.float32), law(Normal(1.0)), key(0, "warm"))
    for billions in (0.25, 0.5, 1, 2, 3):
        tensors = [torch.zeros(1 << 25, dtype=torch.bfloat16) for _ in range(round(billions * 1e9 / (1 << 25)))]
        model = torch.nn.ParameterList(tensors)
        entries = {
            name: SimpleNamespace(shape=tuple(p.shape), distribution=Normal(0.02), tied_to=None)
            for name, p in model.named_parameters()
        }
        begin = time.perf_counter()
        apply(SimpleNamespace(entries=entries), model, seed=0)
        result[f"{billions}_billion_s"] = time.perf_counter() - begin
    return result


def streaming(layers: int, folder: str, rounds: int) -> dict[str, float]:
    """A Llama-2-7B-shaped model of so many layers (32 are 7 billion) in bfloat16, saved from the meta device.

    Against zeros of the same size, written with fsync into as many files, the plain way and past the page cache, in
    turn; the share is of the faster of the two. Peak memory is the process's own growth.
    """
    import resource
    import tempfile

    import transformers

    from fanin.frameworks.torch.save import save

    config = transformers.LlamaConfig(hidden_size=4096, intermediate_size=11008, num_hidden_layers=layers)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    entries = {
        name: SimpleNamespace(shape=tuple(p.shape), distribution=Normal(0.02), tied_to=None)
        for name, p in model.named_parameters()
    }
    plan = SimpleNamespace(entries=entries, fingerprint="benchmark")
    engine.fill(np.zeros(1000, np.float32), law(Normal(1.0)), key(0, "warm"))
    times: dict[str, list[float]] = {"fanin": [], "zeros": [], "zeros_past_cache": []}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(dir=folder) as place:
            written = save(plan, model, f"{place}/model", seed=0)
            times["fanin"].append(written.seconds)
            sizes = [file.stat().st_size for file in written.files]
            peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
            for file in written.files:
                file.unlink()
            times["zeros"].append(zeros(place, sizes, 0))
            times["zeros_past_cache"].append(zeros(place, sizes, os.O_DIRECT))
    shares = [min(pair) / own for own, *pair in zip(*times.values(), strict=True)]
    result = {"gigabytes": written.nbytes / 1e9} | {f"{name}_s": statistics.median(t) for name, t in times.items()}
    return result | {"share_of_write_speed": statistics.median(shares), "peak_growth_gigabytes": peak / 1e9}


def zeros(place: str, sizes: list[int], flag: int) -> float:
    """Seconds to write files of zeros, each synced."""
    block = mmap.mmap(-1, 1 << 25)
    begin = time.perf_counter()
    for i, size in enumerate(sizes):
        descriptor = os.open(f"{place}/zeros{i}", os.O_WRONLY | os.O_CREAT | flag)
        os.posix_fallocate(descriptor, 0, size)
        for _ in range(-(-size // len(block))):  # whole blocks: up to 32 MB more
            os.write(descriptor, block)
        os.fsync(descriptor)
        os.close(descriptor)
    seconds = time.perf_counter() - begin
    for i in range(len(sizes)):
        os.unlink(f"{place}/zeros{i}")
    return seconds


def measure(case: Case, rounds: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in case}
    for turn in range(rounds + 1):
        for name, work in case.items():
            begin = time.perf_counter()
            with torch.no_grad():
                work()
            if turn:  # the first round loads kernels and touches memory
                times[name].append(time.perf_counter() - begin)
    result = {f"{name}_ms": 1e3 * statistics.median(t) for name, t in times.items()}
    for name in case:
        if name != "fanin":
            ratios = [a / b for a, b in zip(times[name], times["fanin"], strict=True)]
            result[f"{name}_over_fanin"] = statistics.median(ratios)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_json(parser)
    parser.add_argument("--values", type=int, default=1 << 26)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--gpt2-xl", action="store_true", help="only: construct GPT-2 XL both ways (12 GB of memory)")
    parser.add_argument("--linear", action="store_true", help="only: time against parameter count (6 GB of memory)")
    parser.add_argument("--stream", type=int, metavar="LAYERS", help="only: stream a Llama of so many layers to disk")
    parser.add_argument("--folder", default=".", help="where --stream writes")
    options = parser.parse_args()
    if options.threads:
        os.environ["FANIN_THREADS"] = str(options.threads)
        torch.set_num_threads(options.threads)
    results: dict[str, dict[str, float]] = {}
    if options.gpt2_xl:
        results["gpt2_xl"] = gpt2_xl(options.rounds)
    if options.linear:
        results["linear"] = linear_in_size(options.rounds)
    if options.stream:
        results["streaming"] = streaming(options.stream, options.folder, options.rounds)
    print(json.dumps(results), file=sys.stderr)
    for build in () if results else (elementwise, per_thread, small_tensors, orthogonal):
        for name, case in build(options.values).items():
            if options.only in name:
                results[name] = measure(case, options.rounds)
                shown = "  ".join(f"{k} {v:.4g}" for k, v in results[name].items())
                print(f"{name:28s} {shown}", file=sys.stderr)
    about = {"cpu": platform.processor() or platform.machine(), "threads": threads.count(), "torch": torch.__version__}
    finish(options.json, {"machine": about, "values": options.values, "cases": results})


if __name__ == "__main__":
    main()
