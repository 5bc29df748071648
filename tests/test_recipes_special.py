"""Recipes for recurrent layers, heads and adapters."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import fanin
from fanin.distributions import Constant, Stacked, Uniform, Zeros


class Tagger(nn.Module):
    def __init__(self, cell=nn.LSTM):
        super().__init__()
        self.cell, self.head = cell(12, 16, num_layers=2, bidirectional=True), nn.Linear(32, 3)

    def forward(self, x):
        return self.head(self.cell(x)[0])


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_weights_are_orthogonal_a_gate_and_forget_gates_start_open(cell):
    model = Tagger(cell)
    plan = fanin.init_(model, recipe="lstm", seed=1)
    gates = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}[cell]
    for name, weight in model.cell.named_parameters():
        value = weight.detach()
        if name.startswith("weight_hh"):
            for block in value.chunk(gates):
                assert torch.allclose(block @ block.T, torch.eye(16), atol=1e-5)
        elif name.startswith("bias_ih") and cell is nn.LSTM:
            assert torch.equal(value, torch.cat([torch.zeros(16), torch.ones(16), torch.zeros(32)]))
        elif name.startswith("bias"):
            assert not value.any()
        else:
            wanted = math.sqrt(2 / (value.shape[0] // gates + value.shape[1]))
            assert abs(float(value.std()) / wanted - 1) < 5 / math.sqrt(value.numel())
    assert fanin.verify(model, plan, seed=1).ok
    assert fanin.Plan.from_json(plan.to_json()) == plan
    assert "no recurrent" in fanin.plan(nn.Linear(3, 4), recipe="lstm").notes[0]


def test_ppo_tells_value_from_policy_by_the_graph():
    class Agent(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.pi, self.v = nn.Sequential(nn.Linear(8, 64), nn.Tanh()), nn.Linear(64, 4), nn.Linear(64, 1)

        def forward(self, x):
            h = self.body(x)
            return self.pi(h), self.v(h)

    model = Agent()
    fanin.init_(model, torch.randn(5, 8), recipe="ppo", seed=0)
    assert torch.allclose(model.body[0].weight.T @ model.body[0].weight, 2 * torch.eye(8), atol=1e-5)
    assert torch.allclose(model.pi.weight @ model.pi.weight.T, 1e-4 * torch.eye(4), atol=1e-9)
    assert abs(float(model.v.weight.norm().detach()) - 1) < 1e-5
    assert not model.pi.bias.any()


def test_retinanet_starts_at_the_prior():
    model = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 9, 3, padding=1))
    plan = fanin.init_(model, torch.randn(2, 8, 10, 10), recipe="retinanet", prior=0.02, seed=0)
    assert isinstance(plan["0.bias"].distribution, Constant) and plan["0.bias"].distribution.value == 0
    out = torch.sigmoid(model(torch.randn(2, 8, 10, 10)))
    assert abs(float(out.mean().detach()) - 0.02) < 1e-3
    assert abs(float(model[0].weight.std().detach()) / 0.01 - 1) < 0.1
    patterned = fanin.plan(model, torch.randn(2, 8, 10, 10), recipe={"2": "retinanet", "*": "he"})
    assert patterned["2.bias"].distribution.value == pytest.approx(-math.log(99))


class Adapted(nn.Module):
    def __init__(self, width=24, rank=4):
        super().__init__()
        self.base, self.down, self.up = (
            nn.Linear(width, width), nn.Linear(width, rank, bias=False), nn.Linear(rank, width, bias=False),
        )  # fmt: skip
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        return self.base(x) + self.up(self.down(self.drop(x))) * 2.0


def test_lora_draws_adapters_and_keeps_the_rest():
    model = nn.Sequential(Adapted(), nn.ReLU(), Adapted(), nn.Linear(24, 5))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    plan = fanin.init_(model, torch.randn(3, 24), recipe="lora", seed=0)
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {"0.down.weight", "0.up.weight", "2.down.weight", "2.up.weight"}
    assert plan["0.up.weight"].distribution == Zeros()
    assert isinstance(plan["0.down.weight"].distribution, Uniform)
    assert float(model[0].down.weight.abs().max().detach()) <= 1 / math.sqrt(24)


def test_a_residual_bottleneck_is_no_adapter():
    """A sum with the stream itself, or with a nonlinearity between the two matrices, is left alone."""

    class Bottleneck(Adapted):
        def forward(self, x):
            return x + self.up(torch.relu(self.down(self.base(x))))

    plan = fanin.plan(Bottleneck(), torch.randn(3, 24), recipe="lora")
    assert "no adapter" in plan.notes[0] and not plan.drawn


def test_stacked_laws_are_predicted_block_by_block():
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = nn.Linear(256, 768, bias=False)

        def forward(self, x):
            q, k, v = self.qkv(x).chunk(3, -1)
            return q, k, v

    model, batch = Packed(), torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    plan = fanin.plan(model, recipe="he")
    entry = plan["qkv.weight"]
    laws = Stacked(tuple(type(entry.distribution)(s / 16) for s in (0.5, 1.0, 2.0)))
    plan = fanin.Plan({"qkv.weight": type(entry)(entry.name, entry.shape, laws)})
    rows = fanin.predict(model, batch, plan=plan)
    found = [r.rms for r in rows.rows if r.shape == (64, 256)]
    assert np.allclose(sorted(found)[-3:], [0.5, 1.0, 2.0], rtol=0.02), found
