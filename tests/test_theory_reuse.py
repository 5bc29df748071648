"""Repeated blocks: what is used anew is what solving again would give."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from fanin.frameworks.torch.verbs import read_model  # noqa: E402
from fanin.theory.adjoint import engine as adjoint  # noqa: E402
from fanin.theory.engine import Interpreter  # noqa: E402
from fanin.theory.reuse import Memory  # noqa: E402

WIDTH = 64


class Forgetful(Memory):
    """Solves everything."""

    def law(self, node, inputs, solve):
        return solve()

    def parts(self, node, g, inputs, solve):
        return solve()


class Residual(nn.Module):
    """x + branch(norm(x)): the state never repeats from block to block, but gate and up do within one."""

    def __init__(self):
        super().__init__()
        self.norm, self.down = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)
        self.gate, self.up = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        h = self.norm(x)
        return x + self.down(nn.functional.silu(self.gate(h)) * self.up(h))


def solved(net, x, memory, monkeypatch):
    made = []

    def counted():
        made.append(memory())
        return made[-1]

    monkeypatch.setattr(adjoint, "Memory", counted)
    interpreter = Interpreter(read_model(net, x).graph, memory=counted())
    return interpreter.run(), [m.reused for m in made]


NETS = {
    "gelu": lambda: nn.Sequential(*[m for _ in range(60) for m in (nn.Linear(WIDTH, WIDTH), nn.GELU())]),
    "tanh": lambda: nn.Sequential(*[m for _ in range(60) for m in (nn.Linear(WIDTH, WIDTH), nn.Tanh())]),
    "residual": lambda: nn.Sequential(*[Residual() for _ in range(4)]),
}


@pytest.mark.parametrize(("name", "forward", "backward"), [("gelu", 60, 60), ("tanh", 50, 1), ("residual", 4, 0)])
def test_reuse_gives_what_solving_again_gives(name, forward, backward, monkeypatch):
    with torch.device("meta"):
        net, x = NETS[name](), torch.zeros(8, WIDTH)
    again, reused = solved(net, x, Memory, monkeypatch)
    afresh, none = solved(net, x, Forgetful, monkeypatch)
    assert reused[0] >= forward and reused[1] >= backward and none == [0, 0]
    for a, b in zip(again.rows, afresh.rows, strict=True):
        assert math.isclose(a.rms, b.rms, rel_tol=1e-9), a.name
        assert math.isclose(a.grad_rms, b.grad_rms, rel_tol=1e-9), a.name
        assert math.isclose(a.rms_high, b.rms_high, rel_tol=1e-6), a.name
    for key, row in again.parameters.items():
        assert math.isclose(row["grad_rms"], afresh.parameters[key]["grad_rms"], rel_tol=1e-9), key


def test_what_differs_is_solved(monkeypatch):
    """Negative control: other weights, another function, another shape are no repetition."""
    torch.manual_seed(0)
    layers = [nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3)]
    for i, layer in enumerate(layers):
        nn.init.normal_(layer.weight, std=(1 + i / 1000) / 8)
    net = nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Sigmoid(), layers[2], nn.ELU())
    _, reused = solved(net, torch.randn(8, WIDTH), Memory, monkeypatch)
    assert reused == [0, 0]
