"""Experts that a softmax weighs, in all ways of writing it: what all outputs have in common moves no weight."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import Networks
from test_theory_adjoint import errors, hold
from torch import nn

import fanin

WIDTH, EXPERTS, NETWORKS = 96, 6, 16


class Mixture(nn.Module):
    """A router, as many layers as experts, and a layer behind what ``body`` makes of them."""

    def __init__(self, body: Callable):
        super().__init__()
        self.body = body
        self.router = nn.Linear(WIDTH, EXPERTS, bias=False)
        self.experts = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(EXPERTS))
        self.out = nn.Linear(WIDTH, 64, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.body(self, x))


def each(m: Mixture, x: torch.Tensor) -> list[torch.Tensor]:
    return [F.relu(e(x)) for e in m.experts]


def sliced(m, x):
    p = m.router(x).softmax(-1)
    return sum(p[..., i : i + 1] * y for i, y in enumerate(each(m, x)))


def indexed(m, x):
    p, whole = m.router(x).softmax(-1), 0
    for i, y in enumerate(each(m, x)):
        whole = whole + p[..., i].unsqueeze(-1) * y
    return whole


def stacked(m, x):
    return (m.router(x).softmax(-1).unsqueeze(-1) * torch.stack(each(m, x), -2)).sum(-2)


def last(m, x):
    return (m.router(x).softmax(-1).unsqueeze(-2) * torch.stack(each(m, x), -1)).sum(-1)


def contracted(m, x):
    return torch.einsum("bte,bted->btd", m.router(x).softmax(-1), torch.stack(each(m, x), -2))


def gated(m, x):  # no softmax, and outputs without a mean
    outputs = torch.stack([e(x) for e in m.experts], -1)
    return (m.router(x).sigmoid().unsqueeze(-2) * outputs).sum(-1)


def shut_out(m, x):
    scores = m.router(x)
    best, at = scores.topk(2, -1)
    p = torch.full_like(scores, float("-inf")).scatter(-1, at, best).softmax(-1)
    return sum(p[..., i : i + 1] * e(x) for i, e in enumerate(m.experts))


SPELLED = [sliced, indexed, stacked, last, contracted, gated]


def router_errors(body: Callable, nets: int = NETWORKS):
    batch = torch.randn(4, 24, WIDTH, generator=torch.Generator().manual_seed(3))
    return errors(lambda: Mixture(body), batch, nets)


@pytest.mark.parametrize("body", SPELLED, ids=lambda f: f.__name__)
def test_gradients_of_a_router_however_it_is_written(body: Callable) -> None:
    """Taken as independent, outputs that have means in common made the router's gradient 20 to 60 % too large."""
    hold(router_errors(body), slack=0.03)


def test_outputs_without_a_mean_move_all_weights() -> None:
    """A control: without ReLUs nothing is in common, and the router's gradient is larger beside its weights'."""

    def linear(m, x):
        return (m.router(x).softmax(-1).unsqueeze(-1) * torch.stack([e(x) for e in m.experts], -2)).sum(-2)

    batch = torch.randn(4, 24, WIDTH, generator=torch.Generator().manual_seed(3))
    hold(router_errors(linear), slack=0.03)
    ratio = {}
    for body in (linear, stacked):
        torch.manual_seed(0)
        said = {row.name: row.grad_rms for row in fanin.predict(Mixture(body), batch).rows}
        ratio[body] = said["router"] / said["/softmax"]
    assert ratio[linear] > 1.15 * ratio[stacked]


def test_weights_of_scores_that_are_shut_out() -> None:
    """Minus infinity at places that depend on weights: those experts have no weight, the others the whole."""
    batch = torch.randn(4, 24, WIDTH, generator=torch.Generator().manual_seed(3))
    squares = []
    networks = Networks(batch)
    for seed in range(8):
        torch.manual_seed(seed)
        model = Mixture(shut_out)
        squares.append([networks.measure(model)[name].rms ** 2 for name in ("/softmax", "out")])
    torch.manual_seed(0)
    said = fanin.predict(Mixture(shut_out), batch)
    measured = np.sqrt(np.mean(squares, 0))
    assert said["/softmax"].rms == pytest.approx(measured[0], rel=0.02)
    assert said["out"].rms == pytest.approx(measured[1], rel=0.04)
    found = router_errors(shut_out, 8)
    hold({n: found[n] for n in ("router", "router.weight", "/softmax", "/topk")}, slack=0.03)
