"""The networks of ``intervals.py``: plain stacks by width, depth, activation and law, and families of other shapes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

LAWS = ("normal", "uniform", "truncated", "orthogonal")
WIDTHS = (32, 64, 128, 256, 512, 1024)
DEPTHS = (5, 20, 100)
GAINS = {
    "ReLU": 2.0, "Tanh": 1.0, "GELU": 2.0, "SiLU": 2.4, "LeakyReLU": 2.0, "ELU": 1.55, "SELU": 1.0, "Mish": 1.9,
    "Sigmoid": 1.0, "Softplus": 1.0, "Hardswish": 2.4, "Identity": 1.0,
}  # fmt: skip
"""fan_in times the variance of a weight."""


@dataclass
class Case:
    """A model, its batch, and the gain and law of its weights; "default": as the modules draw them."""

    name: str
    model: nn.Module
    batch: torch.Tensor
    law: str = "normal"
    gain: float = 2.0


class Residual(nn.Module):
    """x + f(x), normalized behind the sum or not."""

    def __init__(self, branch: nn.Module, after: nn.Module | None = None):
        super().__init__()
        self.branch, self.after = branch, after or nn.Identity()

    def forward(self, x):
        return self.after(x + self.branch(x))


class Attention(nn.Module):
    """Self-attention with fresh projections."""

    def __init__(self, width: int, heads: int, causal: bool = True):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = (y.view(b, t, self.heads, c // self.heads).transpose(1, 2) for y in self.qkv(x).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(y.transpose(1, 2).reshape(b, t, c))


class Gated(nn.Module):
    """SwiGLU."""

    def __init__(self, width: int):
        super().__init__()
        self.gate, self.up = nn.Linear(width, 2 * width, bias=False), nn.Linear(width, 2 * width, bias=False)
        self.down = nn.Linear(2 * width, width, bias=False)

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


def mlp(
    width: int,
    depth: int,
    act: str,
    *,
    inputs: int = 32,
    norm: type[nn.Module] | None = None,
    bias: bool = False,
    drop: float = 0.0,
) -> nn.Module:
    """Linear, norm, activation, dropout, repeated, and a head of ten."""
    steps, size = [], inputs
    for _ in range(depth):
        steps += [nn.Linear(size, width, bias=bias), *([norm(width)] if norm else []), getattr(nn, act)()]
        steps += [nn.Dropout(drop)] if drop else []
        size = width
    return nn.Sequential(*steps, nn.Linear(size, 10, bias=bias))


def convolutional(channels: int, depth: int, act: str, norm: str = "", *, stride: int = 0, pool: str = "") -> nn.Module:
    """3x3 convolutions, padded; every ``stride``-th of stride two; then all places, or a pool, and a head."""
    steps, size, edge = [], 3, 12
    norms = {"batch": nn.BatchNorm2d, "group": lambda c: nn.GroupNorm(4, c), "instance": nn.InstanceNorm2d}
    for i in range(depth):
        step = 2 if stride and i % stride == stride - 1 else 1
        edge = (edge + step - 1) // step
        steps += [nn.Conv2d(size, channels, 3, padding=1, stride=step, bias=False)]
        steps += [*([norms[norm](channels)] if norm else []), getattr(nn, act)()]
        size = channels
    pools = {"mean": nn.AdaptiveAvgPool2d(1), "max": nn.AdaptiveMaxPool2d(1)}
    places = 1 if pool else edge**2
    tail = [pools[pool]] if pool else []
    return nn.Sequential(*steps, *tail, nn.Flatten(), nn.Linear(size * places, 10, bias=False))


def resnet(channels: int, blocks: int) -> nn.Module:
    """Basic blocks with batch norm, a mean over places, a head."""

    def block() -> nn.Module:
        first = [nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
        second = [nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)]
        return Residual(nn.Sequential(*first, *second), nn.ReLU())

    stem = [nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
    tail = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10, bias=False)]
    return nn.Sequential(*stem, *(block() for _ in range(blocks)), *tail)


def residual(width: int, blocks: int, norm: str, act: str = "ReLU") -> nn.Module:
    """Two-layer branches, with a norm before, behind the sum ("post"), or none."""

    def block() -> nn.Module:
        first = [nn.LayerNorm(width)] if norm == "pre" else []
        layers = nn.Linear(width, width, bias=False), getattr(nn, act)(), nn.Linear(width, width, bias=False)
        return Residual(nn.Sequential(*first, *layers), nn.LayerNorm(width) if norm == "post" else None)

    middle = [block() for _ in range(blocks)]
    return nn.Sequential(nn.Linear(32, width, bias=False), *middle, nn.Linear(width, 10, bias=False))


def transformer(width: int, blocks: int, gated: bool, *, causal: bool = True, post: bool = False) -> nn.Module:
    """Blocks over token ids."""

    def wrapped(inner: nn.Module) -> nn.Module:
        norm = (nn.RMSNorm if gated else nn.LayerNorm)(width)
        return Residual(inner, norm) if post else Residual(nn.Sequential(norm, inner))

    def block() -> list[nn.Module]:
        wide = nn.Linear(width, 4 * width, bias=False), nn.GELU(), nn.Linear(4 * width, width, bias=False)
        return [wrapped(Attention(width, 4, causal)), wrapped(Gated(width) if gated else nn.Sequential(*wide))]

    layers = [layer for _ in range(blocks) for layer in block()]
    return nn.Sequential(nn.Embedding(200, width), *layers, nn.LayerNorm(width), nn.Linear(width, 200, bias=False))


def cases(quick: bool) -> Iterator[Case]:
    """The families, by width, depth, activation and law."""
    torch.manual_seed(0)
    x, images = torch.randn(16, 32), torch.randn(4, 3, 12, 12)
    ids, batches = torch.randint(0, 200, (4, 32)), {n: torch.randn(n, 32) for n in (1, 4, 128)}
    yield from stacks(x, quick)
    yield from norms(x)
    yield from images_(images)
    yield from residuals(x)
    yield from transformers(ids)
    if not quick:
        yield from others(x, batches)


def stacks(x: torch.Tensor, quick: bool) -> Iterator[Case]:
    """Plain stacks: the grid."""
    shapes = [(32, 20), (64, 6)] if quick else [(w, d) for d in DEPTHS for w in WIDTHS]
    for width, depth in shapes:
        for act in ("ReLU", "Tanh") if quick else ("ReLU", "Tanh", "GELU"):
            for law in LAWS:
                yield Case(f"mlp {width}x{depth} {act} {law}", mlp(width, depth, act), x, law, GAINS[act])


def norms(x: torch.Tensor) -> Iterator[Case]:
    """Stacks with norms."""
    for norm, act in ((nn.BatchNorm1d, "ReLU"), (nn.LayerNorm, "ReLU"), (nn.LayerNorm, "GELU"), (nn.RMSNorm, "Tanh")):
        yield Case(f"{norm.__name__} mlp 64x6 {act}", mlp(64, 6, act, norm=norm), x)
        yield Case(f"{norm.__name__} mlp 128x30 {act}", mlp(128, 30, act, norm=norm), x)


def images_(images: torch.Tensor) -> Iterator[Case]:
    """Convolutions."""
    for law in LAWS:
        yield Case(f"conv 32x6 ReLU {law}", convolutional(32, 6, "ReLU"), images, law)
    for norm in ("batch", "group", "instance"):
        yield Case(f"conv 32x6 ReLU {norm} norm", convolutional(32, 6, "ReLU", norm), images)
    yield Case("conv 64x12 SiLU", convolutional(64, 12, "SiLU"), images, gain=GAINS["SiLU"])
    yield Case("conv 32x6 ReLU strided", convolutional(32, 6, "ReLU", stride=3), images)
    for pool in ("mean", "max"):
        yield Case(f"conv 32x6 ReLU pooled {pool}", convolutional(32, 6, "ReLU", pool=pool), images)
    yield Case("conv 32x6 ReLU batch norm pooled mean", convolutional(32, 6, "ReLU", "batch", pool="mean"), images)
    yield Case("resnet 32x4", resnet(32, 4), images)


def residuals(x: torch.Tensor) -> Iterator[Case]:
    """Residual stacks."""
    yield Case("residual 64x6 layer norm", residual(64, 6, "pre"), x, gain=1.0)
    yield Case("residual 64x6", residual(64, 6, ""), x, gain=0.5)
    yield Case("residual 64x6 post norm", residual(64, 6, "post"), x, gain=1.0)
    yield Case("residual 128x24 layer norm GELU", residual(128, 24, "pre", "GELU"), x, gain=1.0)


def transformers(ids: torch.Tensor) -> Iterator[Case]:
    """Transformers."""
    yield Case("transformer 64x3", transformer(64, 3, False), ids, gain=1.0)
    yield Case("transformer 64x3 gated", transformer(64, 3, True), ids, gain=1.0)
    yield Case("transformer 64x3 bidirectional", transformer(64, 3, False, causal=False), ids, gain=1.0)
    yield Case("transformer 64x3 post norm", transformer(64, 3, False, causal=False, post=True), ids, gain=1.0)
    yield Case("transformer 128x6", transformer(128, 6, False), ids, gain=1.0)
    yield Case("transformer 64x3 default", transformer(64, 3, False), ids, "default")


def others(x: torch.Tensor, batches: dict[int, torch.Tensor]) -> Iterator[Case]:
    """Other activations, other batches, biases, dropout, the modules' own weights."""
    for act in ("LeakyReLU", "ELU", "SELU", "SiLU", "Mish", "Sigmoid", "Softplus", "Hardswish", "Identity"):
        for width, depth in ((64, 10), (128, 40)):
            yield Case(f"stack {width}x{depth} {act}", mlp(width, depth, act), x, gain=GAINS[act])
    for n, batch in batches.items():
        for act in ("ReLU", "Tanh", "GELU"):
            yield Case(f"stack 64x20 {act} batch {n}", mlp(64, 20, act), batch, gain=GAINS[act])
    for act in ("ReLU", "Tanh", "GELU"):
        yield Case(f"stack 64x8 {act} default", mlp(64, 8, act, bias=True), x, "default")
        yield Case(f"stack 64x8 {act} dropout", mlp(64, 8, act, drop=0.2), x, gain=GAINS[act])
