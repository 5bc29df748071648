"""Weights that are used several times: gradients predicted against drawn networks."""

from __future__ import annotations

import torch
from test_theory_adjoint import errors, hold
from torch import nn

from fanin.frameworks import front_end
from fanin.theory.adjoint.shared import Uses
from fanin.theory.engine import Interpreter
from fanin.theory.twins import Twins


class Looped(nn.Module):
    """A residual block that is run three times, as ALBERT's layers are."""

    def __init__(self, width: int = 96, shared: bool = True):
        super().__init__()
        self.stem = nn.Linear(width, width)
        blocks = [self.block(width) for _ in range(1 if shared else 3)]
        self.blocks = nn.ModuleList(blocks)
        self.order = [0, 0, 0] if shared else [0, 1, 2]
        for block in blocks:  # branches that are small beside the stream, which they do not turn
            nn.init.normal_(block["two"].weight, 0, 0.2 * (2 * width) ** -0.5)

    @staticmethod
    def block(width: int) -> nn.ModuleDict:
        return nn.ModuleDict({
            "one": nn.Linear(width, 2 * width), "two": nn.Linear(2 * width, width), "norm": nn.LayerNorm(width),
        })  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, tokens, width) to the same."""
        x = self.stem(x)
        for i in self.order:
            block = self.blocks[i]
            x = block["norm"](x + block["two"](nn.functional.gelu(block["one"](x), approximate="tanh")))
        return x


class Sides(nn.Module):
    """One table for two columns of ids, some of which agree."""

    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(30, 64), nn.Linear(64, 64)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """(samples, tokens, 2) to (samples, tokens, 64)."""
        return self.out(self.table(ids[..., 0]) + self.table(ids[..., 1]))


def batch() -> torch.Tensor:
    return torch.randn(4, 10, 96, generator=torch.Generator().manual_seed(5))


def test_a_block_that_is_run_three_times() -> None:
    found = errors(Looped, batch(), 12)
    hold({n: e for n, e in found.items() if n.endswith(("weight", "bias"))}, slack=0.04)


def test_squares_alone_are_too_few(monkeypatch) -> None:
    """A control: without what uses have in common, gradients are up to 1 - 1/sqrt(3) too small."""
    monkeypatch.setattr(Uses, "common", lambda self, parts: 0.0)
    found = errors(Looped, batch(), 4)
    assert all(found[f"blocks.0.{n}"][0] < -0.15 for n in ("one.weight", "two.weight", "norm.bias", "two.bias"))


def test_two_columns_that_look_up_one_table() -> None:
    torch.manual_seed(0)
    ids = torch.randint(0, 30, (4, 24, 2))
    ids[:, ::2, 1] = ids[:, ::2, 0]
    found = errors(Sides, ids, 24)
    hold({"table.weight": found["table.weight"]}, slack=0.02)


def test_weights_of_one_use_are_left_alone() -> None:
    model = Looped(shared=False)
    graph = front_end(model).read_model(model, batch()).graph
    interpreter = Interpreter(graph, {})
    interpreter.forward()
    assert Twins.of(graph, {}) is None
    assert Uses.of(graph, interpreter.values, None) is None
