"""How often the predicted 95 % interval of a single network's rms holds what networks measure.

    python benchmarks/intervals.py                       # every family, 50 networks each
    python benchmarks/intervals.py --quick               # a few minutes
    python benchmarks/intervals.py residual conv --seeds 200 --json coverage.json

A case is a model, a batch, and a law for every weight. It is traced and predicted once; each network draws all its
weights anew and runs the traced steps, forward and backward from an i.i.d. N(0, 1) cotangent. The coverage is the share
of (tensor, network) pairs inside, over all floating-point tensors of the graph. Tensors of one net move together, so
the coverage of one case has a standard error of up to sqrt(.95 .05 / networks); look at the mean over cases.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from fanin.distributions import Constant, Distribution, Normal, Orthogonal, TruncatedNormal, Uniform
from fanin.frameworks.torch.execute import execute
from fanin.frameworks.torch.verbs import read_model
from fanin.theory import interpret

LAWS = {"normal": Normal, "uniform": Uniform, "truncated": TruncatedNormal}
GAINS = {"ReLU": 2.0, "Tanh": 1.0, "GELU": 2.0, "SiLU": 2.4}


class Residual(nn.Module):
    """x + f(x)."""

    def __init__(self, branch: nn.Module):
        super().__init__()
        self.branch = branch

    def forward(self, x):
        return x + self.branch(x)


class Attention(nn.Module):
    """Causal self-attention with fresh projections."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = (y.view(b, t, self.heads, c // self.heads).transpose(1, 2) for y in self.qkv(x).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(b, t, c))


class Gated(nn.Module):
    """SwiGLU."""

    def __init__(self, width: int):
        super().__init__()
        self.gate, self.up = nn.Linear(width, 2 * width, bias=False), nn.Linear(width, 2 * width, bias=False)
        self.down = nn.Linear(2 * width, width, bias=False)

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


def mlp(width: int, depth: int, act: str, *, inputs: int = 32, norm: type[nn.Module] | None = None) -> nn.Module:
    """Linear, norm, activation, repeated, and a head of ten."""
    steps, size = [], inputs
    for _ in range(depth):
        steps += [nn.Linear(size, width, bias=False), *([norm(width)] if norm else []), getattr(nn, act)()]
        size = width
    return nn.Sequential(*steps, nn.Linear(size, 10, bias=False))


def convolutional(channels: int, depth: int, act: str, norm: bool) -> nn.Module:
    """3x3 convolutions, padded."""
    steps, size = [], 3
    for _ in range(depth):
        steps += [nn.Conv2d(size, channels, 3, padding=1, bias=False)]
        steps += [*([nn.BatchNorm2d(channels)] if norm else []), getattr(nn, act)()]
        size = channels
    return nn.Sequential(*steps, nn.Flatten(), nn.Linear(size * 144, 10, bias=False))


def residual(width: int, blocks: int, norm: bool) -> nn.Module:
    """Two-layer branches, behind a norm or not."""

    def branch() -> nn.Module:
        first = [nn.LayerNorm(width)] if norm else []
        return nn.Sequential(
            *first, nn.Linear(width, width, bias=False), nn.ReLU(), nn.Linear(width, width, bias=False)
        )

    middle = [Residual(branch()) for _ in range(blocks)]
    return nn.Sequential(nn.Linear(32, width, bias=False), *middle, nn.Linear(width, 10, bias=False))


def transformer(width: int, blocks: int, gated: bool) -> nn.Module:
    """Pre-norm blocks over token ids."""

    def block() -> list[nn.Module]:
        norm = nn.RMSNorm if gated else nn.LayerNorm
        wide = nn.Sequential(
            nn.Linear(width, 4 * width, bias=False), nn.GELU(), nn.Linear(4 * width, width, bias=False)
        )
        inner = Gated(width) if gated else wide
        return [
            Residual(nn.Sequential(norm(width), Attention(width, 4))),
            Residual(nn.Sequential(norm(width), inner)),
        ]

    layers = [layer for _ in range(blocks) for layer in block()]
    return nn.Sequential(nn.Embedding(200, width), *layers, nn.LayerNorm(width), nn.Linear(width, 200, bias=False))


@dataclass
class Case:
    """A model, its batch, and the gain and law of its weights."""

    name: str
    model: nn.Module
    batch: torch.Tensor
    law: str = "normal"
    gain: float = 2.0


@dataclass
class Result:
    """Coverage of one case; ``ratio`` is the mean over tensors of the measured over the predicted width in the log."""

    name: str
    forward: float
    backward: float
    tensors: int
    networks: int
    ratio: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0


def cases(quick: bool) -> Iterator[Case]:
    """The families, by width, depth, activation and law."""
    torch.manual_seed(0)
    x = torch.randn(16, 32)
    shapes = [(32, 20), (64, 6)] if quick else [(32, 5), (32, 100), (64, 20), (128, 50), (512, 10), (1024, 5)]
    for width, depth in shapes:
        for act in ("ReLU", "Tanh", "GELU"):
            for law in (*LAWS, "orthogonal"):
                if not quick or act != "GELU":
                    name = f"mlp {width}x{depth} {act} {law}"
                    yield Case(name, mlp(width, depth, act), x, law, GAINS[act])
    for norm, act in ((nn.BatchNorm1d, "ReLU"), (nn.LayerNorm, "ReLU"), (nn.LayerNorm, "GELU")):
        yield Case(f"{norm.__name__} mlp 64x6 {act}", mlp(64, 6, act, norm=norm), x)
    images = torch.randn(4, 3, 12, 12)
    yield Case("conv 32x6 ReLU", convolutional(32, 6, "ReLU", False), images)
    yield Case("conv 32x6 ReLU batch norm", convolutional(32, 6, "ReLU", True), images)
    yield Case("residual 64x6 layer norm", residual(64, 6, True), x, gain=1.0)
    yield Case("residual 64x6", residual(64, 6, False), x, gain=0.5)
    ids = torch.randint(0, 200, (4, 32))
    yield Case("transformer 64x3", transformer(64, 3, False), ids, gain=1.0)
    yield Case("transformer 64x3 gated", transformer(64, 3, True), ids, gain=1.0)


def laws(model: nn.Module, kind: str, gain: float) -> dict[str, Distribution]:
    """Matrices of variance gain / fan_in; embeddings N(0, 1); vectors as they are."""
    found: dict[str, Distribution] = {}
    tables = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, nn.Embedding)}
    for name, p in model.named_parameters():
        if name in tables:
            found[name] = Normal(1.0)
        elif p.dim() < 2:
            found[name] = Constant(float(p.detach()[0]))
        elif kind == "orthogonal":
            fan = p[0].numel()
            found[name] = Orthogonal(math.sqrt(gain * max(len(p), fan) / fan))
        else:
            found[name] = LAWS[kind](math.sqrt(gain / p[0].numel()))
    return found


def drawn(law: Distribution, shape: tuple[int, ...], rng: np.random.Generator) -> torch.Tensor:
    """One weight."""
    if isinstance(law, Orthogonal):
        rows, columns = shape[0], int(np.prod(shape[1:]))
        q, r = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
        q = q * np.sign(np.diag(r))
        values = law.gain * (q if rows >= columns else q.T).reshape(shape)
    elif isinstance(law, Constant):
        values = np.full(shape, law.moments(shape)[0])
    elif isinstance(law, Normal):
        values = law.moments(shape)[1] * rng.standard_normal(shape)
    else:
        values = np.asarray(law.quantile(rng.random(shape)))
    return torch.tensor(values, dtype=torch.float32)


def measured(case: Case, chosen: dict[str, Distribution], reading, seeds: int) -> tuple[dict, dict]:
    """rms of every tensor and of its cotangent in every network, by row name."""
    names = {node.id: node.name for node in reading.graph.signals}
    forward: dict[str, list[float]] = {}
    backward: dict[str, list[float]] = {}

    def into(table: dict[str, list[float]]):
        def watch(id_: str, tensor: torch.Tensor) -> None:
            if id_ in names:
                table.setdefault(names[id_], []).append(float(tensor.detach().double().square().mean().sqrt()))

        return watch

    rng = np.random.default_rng(1)
    torch.manual_seed(1)
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
    chosen = laws(case.model, case.law, case.gain)
    predicted = interpret(reading.graph, chosen)
    forward, backward = measured(case, chosen, reading, seeds)
    inside: dict[str, list[float]] = {"forward": [], "backward": []}
    ratio: dict[str, list[float]] = {"forward": [], "backward": []}
    for row in predicted.rows:
        sides = (
            ("forward", forward, row.rms_low, row.rms_high),
            ("backward", backward, row.grad_rms_low, row.grad_rms_high),
        )
        for side, table, low, high in sides:
            values = np.array(table.get(row.name, []))
            if low is None or not len(values) or low <= 0:
                continue
            middle, half = math.sqrt(low * high), scale * math.log(high / low) / 2
            inside[side].append(float(np.mean(np.abs(np.log(values / middle)) <= half)))
            if half > 1e-4:
                ratio[side].append(float(np.std(np.log(values))) / (half / 1.96))
    mean = {side: float(np.mean(v)) if v else float("nan") for side, v in inside.items()}
    widths = {side: float(np.mean(v)) if v else float("nan") for side, v in ratio.items()}
    taken = time.perf_counter() - start
    return Result(case.name, mean["forward"], mean["backward"], len(inside["forward"]), seeds, widths, round(taken, 1))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="only cases whose name has one of these words")
    parser.add_argument("--quick", action="store_true", help="fewer shapes")
    parser.add_argument("--seeds", type=int, default=50, help="networks a case")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    results = []
    for case in cases(args.quick):
        if args.words and not any(word in case.name for word in args.words):
            continue
        results.append(covered(case, args.seeds))
        r = results[-1]
        widths = f"measured/predicted width {r.ratio['forward']:.2f} {r.ratio['backward']:.2f}"
        print(
            f"{r.name:36s} forward {r.forward:.3f} backward {r.backward:.3f}  {widths}  {r.seconds:6.1f} s", flush=True
        )
    if results:
        print(f"mean of {len(results)}: forward {np.mean([r.forward for r in results]):.3f} "
              f"backward {np.nanmean([r.backward for r in results]):.3f}")  # fmt: skip
    if args.json:
        with open(args.json, "w") as file:
            json.dump([asdict(r) for r in results], file, indent=1)


if __name__ == "__main__":
    main()
