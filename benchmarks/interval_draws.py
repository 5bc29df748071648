"""Networks drawn for ``intervals.py``: weights from their laws, in single precision."""

from __future__ import annotations

import math

import torch
from torch import nn

from fanin.distributions import Constant, Distribution, Normal, Orthogonal, TruncatedNormal, Uniform
from fanin.graph import Graph

KINDS = {"normal": Normal, "uniform": Uniform, "truncated": TruncatedNormal}


def laws(model: nn.Module, graph: Graph, kind: str, gain: float) -> dict[str, Distribution]:
    """Matrices of variance gain / fan_in; embeddings N(0, 1); vectors as they are."""
    if kind == "default":
        return {name: p.law for name, p in graph.parameters.items()}
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
            found[name] = KINDS[kind](math.sqrt(gain / p[0].numel()))
    return found


def drawn(law: Distribution, shape: tuple[int, ...], rng: torch.Generator) -> torch.Tensor:
    """One weight."""
    if isinstance(law, Orthogonal):
        rows, columns = shape[0], math.prod(shape[1:])
        q, r = torch.linalg.qr(torch.randn(max(rows, columns), min(rows, columns), generator=rng))
        q = q * r.diagonal().sign()
        return law.gain * (q if rows >= columns else q.T).reshape(shape)
    if isinstance(law, Constant):
        return torch.full(shape, float(law.moments(shape)[0]))
    if isinstance(law, Uniform):
        low, high = law.bounds
        return torch.empty(shape).uniform_(low, high, generator=rng)
    if isinstance(law, TruncatedNormal):
        return law.mean + law.sigma * _truncated(shape, law.bound, rng)
    if isinstance(law, Normal):
        return law.mean + law.std * torch.randn(shape, generator=rng)
    values = law.quantile(torch.rand(shape, dtype=torch.float64, generator=rng).numpy())
    return torch.as_tensor(values, dtype=torch.float32)


def _truncated(shape: tuple[int, ...], bound: float, rng: torch.Generator) -> torch.Tensor:
    values = torch.randn(shape, generator=rng)
    while (outside := (values.abs() > bound).nonzero(as_tuple=True))[0].numel():
        values[outside] = torch.randn(len(outside[0]), generator=rng)
    return values
