"""How far predictions are from measurements, over a zoo of architectures with random weights.

    python benchmarks/accuracy.py                      # the four reference models, training mode
    python benchmarks/accuracy.py --zoo --eval         # every architecture below, evaluation mode
    python benchmarks/accuracy.py --timm               # small architectures of timm, at their published sizes
    python benchmarks/accuracy.py timm:resnet18 --smooth 6    # images that are noise through a Gaussian of 6 pixels
    python benchmarks/accuracy.py gpt2 hf:swin --json accuracy.json

Each architecture is measured on several freshly drawn networks; a tensor's measured rms is the root of its mean square
over them. The error is |predicted / measured - 1| over every floating-point tensor of the graph that depends on the
batch or a weight. Prints percentiles a model, forward and, where there is a prediction of it, backward, and the noise:
percentiles of the measured rms's own standard error, below which no error means anything.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from as_json import add_json, finish, keep, lines

import fanin
from fanin.frameworks import front_end
from fanin.targets import resolve, shrink

REFERENCE = {
    "gpt2": {"seq": 64},
    "bert": {"seq": 64},
    "vit": {},
    "resnet": {},
}
"""Published sizes: GPT-2 small, BERT base, ViT base, ResNet-50."""

# fmt: off
ZOO = [
    "gpt2", "llama", "bert", "vit", "resnet", "convnext", "t5", "mixtral", "roberta", "distilbert", "albert",
    "electra", "deberta-v2", "mpnet", "opt", "gpt_neo", "gpt_neox", "gptj", "bloom", "falcon", "mistral", "qwen2",
    "qwen3", "gemma", "gemma2", "phi", "phi3", "starcoder2", "stablelm", "olmo", "olmo2", "cohere", "granite",
    "bart", "mbart", "pegasus", "m2m_100", "marian", "deit", "beit", "swin", "swinv2", "dinov2", "segformer",
    "mobilevit", "mobilenet_v2", "regnet", "poolformer", "convnextv2", "cvt", "pvt", "focalnet", "efficientnet",
    "levit", "data2vec-vision", "yolos", "clip_vision_model", "siglip_vision_model", "mamba", "rwkv", "hubert",
    "wav2vec2", "whisper", "layoutlm", "nystromformer", "squeezebert", "fnet", "roformer", "xlm-roberta",
    "camembert", "ernie", "megatron-bert", "qwen2_moe", "olmoe", "dbrx", "jamba", "nemotron", "perceiver",
    "deepseek_v3", "esm", "canine", "persimmon", "xglm", "gemma3_text", "modernbert",
    "qwen3_moe", "granitemoe", "lfm2", "vit_mae", "ijepa", "glm4", "biogpt",
]
TIMM = [
    "resnet18", "resnetv2_50", "regnety_002", "densenet121", "vgg11", "convnext_atto", "efficientnet_lite0",
    "mobilenetv3_small_050", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "mixer_s32_224", "gmlp_ti16_224",
    "edgenext_xx_small", "convmixer_768_32", "xcit_nano_12_p16_224", "repvgg_a0", "cait_xxs24_224", "pit_ti_224",
    "inception_v3", "seresnet18", "mnasnet_050", "mobilenetv2_100", "hrnet_w18_small", "res2net50_14w_8s",
]
# fmt: on


@dataclass
class Result:
    """Errors of one architecture, in percent."""

    target: str
    mode: str
    tensors: int = 0
    unmodelled: list[str] = field(default_factory=list)
    forward: dict[str, float] = field(default_factory=dict)
    backward: dict[str, float] = field(default_factory=dict)
    parameters: dict[str, float] = field(default_factory=dict)
    noise: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    error: str = ""
    worst: list[tuple[str, str, float, float]] = field(default_factory=list)
    worst_backward: list[tuple[str, str, float, float]] = field(default_factory=list)
    worst_parameters: list[tuple[str, str, float, float]] = field(default_factory=list)


def percentiles(errors: list[float]) -> dict[str, float]:
    """p50, p90, p95, p99 and the largest, in percent."""
    if not errors:
        return {}
    points = np.percentile(np.array(errors) * 100, [50, 90, 95, 99, 100])
    return dict(zip(("p50", "p90", "p95", "p99", "max"), (round(float(p), 3) for p in points), strict=True))


def networks(target: str, options: dict, seeds: int, training: bool):
    """Freshly drawn networks of one architecture, with the same batch."""
    for seed in range(seeds):
        torch.manual_seed(seed)
        found = resolve(target, seed=seed, small=options.get("small", False), overrides=options.get("overrides", ()))
        found.model.train(training)
        if seed == 0:
            batch = smoothed(lengthened(found.batch, options.get("seq")), options.get("smooth", 0.0))
        yield found.model, batch


def lengthened(batch, length: int | None):
    """Token ids of another length, drawn anew."""
    if length is None:
        return batch
    generator = torch.Generator().manual_seed(0)

    def of_length(v: torch.Tensor) -> torch.Tensor:
        if v.dtype != torch.int64:
            return v
        return torch.randint(0, int(v.max()) + 1, (v.shape[0], length), generator=generator)

    return {k: of_length(v) for k, v in batch.items() if v.dtype != torch.int64 or v.max() > 1}


def smoothed(batch, width: float):
    """Images (floats with two last axes of more than one pixel) through a Gaussian, at the rms that they had."""
    if not width:
        return batch
    if isinstance(batch, torch.Tensor):
        return _smooth(batch, width)
    if isinstance(batch, dict):
        return {k: smoothed(v, width) for k, v in batch.items()}
    return type(batch)(smoothed(v, width) for v in batch) if isinstance(batch, (tuple, list)) else batch


def _smooth(x: torch.Tensor, width: float) -> torch.Tensor:
    if not x.is_floating_point() or x.ndim < 4 or min(x.shape[-2:]) < 2:
        return x
    found = x.to(torch.float64)
    for axis, n in ((-1, x.shape[-1]), (-2, x.shape[-2])):
        shift = torch.fft.rfftfreq(n, dtype=torch.float64)
        kernel = torch.exp(-2 * (torch.pi * width * shift) ** 2)  # of a Gaussian, round the edge
        found = torch.fft.irfft(torch.fft.rfft(found.movedim(axis, -1)) * kernel, n).movedim(-1, axis)
    return (found * (x.double().square().mean() / found.square().mean()).sqrt()).to(x.dtype)


def compare(target: str, options: dict, seeds: int, training: bool) -> Result:
    """Predict once, measure on every network, subtract."""
    result = Result(target, "train" if training else "eval")
    start = time.perf_counter()
    predicted, squares, grads, weights = None, {}, {}, {}
    for k, (model, batch) in enumerate(networks(target, options, seeds, training)):
        if predicted is None:
            predicted = fanin.predict(model, batch)
            result.seconds = round(time.perf_counter() - start, 2)
        side = front_end(model)
        measured = side.measure_signals(side.read_model(model, batch), seed=k)  # its own cotangent and dropout
        for row in measured.rows:
            squares.setdefault(row.name, []).append(row.rms**2)
            if row.grad_rms is not None:
                grads.setdefault(row.name, []).append(row.grad_rms**2)
        for name, row in measured.parameters.items():
            weights.setdefault(name, []).append(row["grad_rms"] ** 2)
        del model
    _fill(result, predicted, squares, grads, weights)
    return result


def _fill(result: Result, predicted, squares, grads, weights) -> None:
    forward, backward, parameters, zeros = [], [], [], rounding(grads)
    for row in predicted.rows:
        result.tensors += 1
        if row.rms is None:
            result.unmodelled.append(f"{row.name}: {row.note}")
            continue
        if row.name not in squares:
            continue
        error = relative(row.rms, squares[row.name])
        forward.append(error)
        result.worst.append((row.name, row.op, row.rms, error))
        if row.grad_rms is not None and row.name in grads:
            backward.append(_beyond(zeros[row.name], row.grad_rms, grads[row.name]))
            result.worst_backward.append((row.name, row.op, row.grad_rms, backward[-1]))
    gone = {
        row.name
        for row in predicted.rows
        if row.name in zeros and _zero(zeros[row.name], row.grad_rms, grads[row.name])
    }
    floors = rounding(weights, lambda name: (name.rpartition(".")[0],))
    floors |= _summed(predicted.rows, grads, floors)
    for name, values in weights.items():
        said = predicted.parameters.get(name, {}).get("grad_rms")
        if said is not None:
            silent = name.rpartition(".")[0] in gone or _zero(floors[name], said, values)
            parameters.append(0.0 if silent else relative(said, values))
            result.worst_parameters.append((name, "", said, parameters[-1]))
    result.forward, result.backward = percentiles(forward), percentiles(backward)
    result.parameters = percentiles(parameters)
    names = [name for name, *_ in result.worst]
    result.noise = percentiles([standard_error(squares[name]) for name in names])
    for listed in ("worst", "worst_backward", "worst_parameters"):
        setattr(result, listed, sorted(getattr(result, listed), key=lambda w: -w[3])[:12])


def rounding(
    gradients: dict[str, list[float]], blocks: Callable[[str], tuple[str, ...]] | None = None
) -> dict[str, float]:
    """What is zero but for rounding: float32's eps beside the largest gradient of the block that a name stands in.

    The gradient of a key's bias is a sum of terms that cancel, and so is all that a router hears where one expert has
    the weight one. Each term is itself a difference that carries the rounding of the larger numbers it was made of: of
    the order of ten roundings in all. Weights are compared within their layer alone: beside a layer whose input is
    small a gradient may be small and yet exact.

    Args:
        blocks: of a name; of a tensor the module that it stands in and the one around it.
    """
    blocks = _blocks if blocks is None else blocks
    largest: dict[str, float] = {}
    for name, values in gradients.items():
        for block in blocks(name):
            largest[block] = max(largest.get(block, 0.0), float(np.sqrt(np.mean(values))))
    return {name: 10 * float(np.finfo(np.float32).eps) * max(largest[b] for b in blocks(name)) for name in gradients}


def _summed(rows, gradients: dict[str, list[float]], floors: dict[str, float]) -> dict[str, float]:
    """What rounding leaves of a bias that a norm takes away: a sum over all places of a channel, each rounded."""
    found = {}
    for row in rows:
        bias = f"{row.name.removesuffix('/batch_norm')}.bias"
        if bias in floors and row.name in gradients and len(row.shape) > 1:
            channels = row.shape[-1] if row.op in ("linear", "layer_norm") else row.shape[1]
            terms = float(np.prod(row.shape)) / channels * float(np.sqrt(np.mean(gradients[row.name])))
            found[bias] = max(floors[bias], 10 * float(np.finfo(np.float32).eps) * terms)
    return found


def _blocks(name: str) -> tuple[str, ...]:
    """The module that an operation or a layer stands in, and the one around it, unless that is a list of blocks."""
    inner = name.rpartition("/")[0] if "/" in name else name.rpartition(".")[0]
    outer, _, last = inner.rpartition(".")
    return (inner,) if last.isdigit() else (inner, outer)


def _zero(floor: float, said: float | None, squares: list[float]) -> bool:
    """Whether both figures are below what rounding leaves."""
    return said is not None and max(said, float(np.sqrt(np.mean(squares)))) <= floor


def standard_error(squares: list[float]) -> float:
    """Standard error of the measured rms over its value, from the spread of the networks' mean squares."""
    mean = float(np.mean(squares))
    if len(squares) < 2 or mean == 0 or not np.isfinite(mean):
        return 0.0
    return float(np.std(squares, ddof=1)) / np.sqrt(len(squares)) / mean / 2


def relative(said: float, squares: list[float]) -> float:
    """|said / measured - 1|; zero where both are zero."""
    measured = float(np.sqrt(np.mean(squares)))
    if measured == 0 or not np.isfinite(measured):
        return 0.0 if said == measured or abs(said) < 1e-12 else 9.0
    return abs(said / measured - 1) if np.isfinite(said) else 9.0


def _beyond(floor: float, said: float, squares: list[float]) -> float:
    """The relative error; zero where both are below what rounding leaves."""
    return 0.0 if _zero(floor, said, squares) else relative(said, squares)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", help="model types or targets; without any, the reference models")
    parser.add_argument("--zoo", action="store_true", help="every architecture of the list, in small configurations")
    parser.add_argument("--timm", action="store_true", help="small architectures of timm, where it is installed")
    parser.add_argument("--small", action="store_true", help="shrink the named targets")
    parser.add_argument("--eval", action="store_true", help="evaluation mode")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--smooth", type=float, default=0.0, help="pixels over which images are smooth (default: noise)"
    )
    parser.add_argument("--width", type=int, help="hidden size of shrunk configurations (default 64)")
    parser.add_argument("-v", "--verbose", action="store_true", help="the tensors that are furthest off")
    add_json(parser)
    args = parser.parse_args()
    if args.width:
        shrink.WIDTH = args.width
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    chosen = {t: {"small": args.small} for t in args.targets} or REFERENCE
    if args.zoo:
        chosen = {t: {"small": True} for t in ZOO}
    if args.timm:
        chosen = {f"timm:{t}": {} for t in TIMM}
    results = []
    for name, options in chosen.items():
        target = name if ":" in name else f"hf:{name}"
        try:
            result = compare(target, {**options, "smooth": args.smooth}, args.seeds, not args.eval)
        except Exception as error:
            result = Result(target, "eval" if args.eval else "train", error=f"{type(error).__name__}: {error}"[:400])
        results.append(result)
        with lines(args.json):
            show(result, args.verbose)
        keep(args.json, [asdict(r) for r in results])
    with lines(args.json):
        summary(results)
    finish(args.json, [asdict(r) for r in results])


def show(r: Result, verbose: bool = False) -> None:
    """One line a model, and the tensors that are furthest off."""
    if r.error:
        print(f"{r.target:26s} {r.mode:5s} failed: {r.error}", flush=True)
        return
    line = " ".join(f"{k} {v:6.2f}" for k, v in r.forward.items())
    back = " ".join(f"{k} {v:6.2f}" for k, v in r.backward.items() if k in ("p50", "p95"))
    par = " ".join(f"{k} {v:6.2f}" for k, v in r.parameters.items() if k in ("p50", "p95"))
    head = f"{r.target:26s} {r.mode:5s} {r.tensors:5d} tensors"
    noise = " ".join(f"{k} {v:6.2f}" for k, v in r.noise.items() if k in ("p50", "p95"))
    print(f"{head}  forward {line}  noise {noise}  backward {back}  weights {par}", flush=True)
    if r.unmodelled:
        print(f"    {len(r.unmodelled)} unmodelled, the first: {r.unmodelled[0]}", flush=True)
    if verbose:
        for head, entries in (("forward", r.worst), ("backward", r.worst_backward), ("weights", r.worst_parameters)):
            print(f"    {head}:")
            for name, op, rms, error in entries:
                print(f"      {name} {op} {rms:.4g} {error:.1%}")


def summary(results: list[Result]) -> None:
    """Medians over models of each percentile."""
    good = [r for r in results if r.forward]
    if len(good) > 1:
        worst = {k: max(r.forward[k] for r in good) for k in ("p50", "p95")}
        middle = {k: float(np.median([r.forward[k] for r in good])) for k in ("p50", "p95")}
        bad = sum(bool(r.unmodelled) for r in good)
        print(f"{len(good)} of {len(results)} models; forward p50/p95: median {middle['p50']:.2f}/{middle['p95']:.2f}, "
              f"worst {worst['p50']:.2f}/{worst['p95']:.2f}; {bad} with unmodelled tensors")  # fmt: skip


if __name__ == "__main__":
    main()
