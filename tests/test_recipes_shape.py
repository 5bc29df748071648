"""The law that ``auto`` draws from, chosen by the spread over networks, and functions with a unit of their own."""

# pyright: reportOptionalMemberAccess=false, reportOperatorIssue=false

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import fanin
from fanin.distributions import Orthogonal
from fanin.recipes.response import STEEP, Response

torch.set_num_threads(1)


def chain(depth: int, width: int, act: type[nn.Module]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(width, width), act()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


class Sine(nn.Module):
    def __init__(self, omega: float):
        super().__init__()
        self.omega = omega

    def forward(self, x):
        return torch.sin(self.omega * x)


def strayed(net: nn.Module, x: torch.Tensor, nets: int = 24, **options) -> float:
    """Standard deviation over networks of the log rms of the first layer's gradient."""
    first = next(net.children())
    assert isinstance(first, nn.Linear)
    plan, logs = fanin.plan(net, x, **options), []
    for seed in range(nets):
        fanin.apply(plan, net, seed=seed)
        net.zero_grad()
        out = net(x)
        out.backward(torch.randn(out.shape, generator=torch.Generator().manual_seed(seed)))
        logs.append(math.log(float(first.bias.grad.square().mean()) ** 0.5))
    return float(np.std(logs, ddof=1))


def test_a_narrow_deep_chain_is_drawn_orthogonal():
    net, x = chain(40, 16, nn.Tanh), torch.randn(16, 16)
    plan = fanin.plan(net, x)
    assert isinstance(plan.entries["0.weight"].distribution, Orthogonal)
    note = next(n for n in plan.notes if n.startswith("orthogonal weights"))
    told = {kind: float(note.split(f"{kind} ")[-1].split(",")[0]) for kind in ("normal", "orthogonal")}
    normal, orthogonal = strayed(net, x, distribution="normal"), strayed(net, x)
    # a standard deviation over 24 networks is known to 1 / sqrt(46); three of them
    assert normal == pytest.approx(told["normal"], rel=3 / math.sqrt(46))
    assert orthogonal < normal * (1 - 3 / math.sqrt(23))


def test_scales_do_not_depend_on_the_law():
    net, x = chain(40, 16, nn.Tanh), torch.randn(16, 16)
    free, normal = fanin.plan(net, x), fanin.plan(net, x, distribution="normal")
    assert [e.std for e in free.entries.values()] == pytest.approx([e.std for e in normal.entries.values()])


@pytest.mark.parametrize("net", [chain(4, 512, nn.ReLU), chain(2, 8, nn.Tanh)], ids=["wide", "shallow"])
def test_where_it_makes_no_difference_normal_is_taken_and_said(net):
    plan = fanin.plan(net, torch.randn(8, net[0].in_features))
    assert plan.entries["0.weight"].distribution.kind == "normal"
    assert any("makes no difference" in note for note in plan.notes)


def test_a_law_that_is_asked_for_is_kept():
    plan = fanin.plan(chain(40, 16, nn.Tanh), torch.randn(16, 16), distribution="uniform")
    assert plan.entries["0.weight"].distribution.kind == "uniform"
    assert not any("over networks" in note for note in plan.notes)


@pytest.mark.parametrize("omega", [5.0, 30.0, 200.0])
def test_a_steep_sine_gets_an_argument_of_its_own_unit(omega):
    net = nn.Sequential(
        nn.Linear(2, 256), Sine(omega), nn.Linear(256, 256), Sine(omega), nn.Linear(256, 256), Sine(omega),
        nn.Linear(256, 3),
    )  # fmt: skip
    x = torch.rand(256, 2) * 2 - 1
    squares = {0: 0.0, 2: 0.0, 4: 0.0}
    for seed in range(6):
        fanin.init_(net, x, seed=seed)
        h = x
        net.requires_grad_(False)
        for i, layer in enumerate(net):
            h = layer(h)
            if i in squares:
                squares[i] += float((omega * h).square().mean()) / 6
    found = {i: math.sqrt(s) for i, s in squares.items()}
    assert found[0] == pytest.approx(2 * math.pi if omega >= 30 else found[0], rel=0.15)  # 2 x 256 draws, six times
    assert found[2] == pytest.approx(1, rel=0.1) and found[4] == pytest.approx(1, rel=0.1)


def test_usual_functions_have_the_unit_one():
    for fn in (np.tanh, np.sin, lambda x: np.maximum(x, 0), lambda x: x**3, np.exp, np.sign):
        assert Response("f", fn).unit == 1.0
    steep = Response("f", lambda x: np.tanh(50 * x))
    assert steep.growth(1.0) > STEEP and 0.005 < steep.unit < 0.05
    assert not steep.oscillates and Response("f", lambda x: np.sin(30 * x)).oscillates
