"""A tensor beside its own shift, each times a weight: neighbours read one token (the token shift of RWKV)."""

import math

import numpy as np
import pytest
import torch
from networks import Networks
from torch import nn

import fanin
from fanin.theory import shifts
from fanin.theory.adjoint import roots, shared

STEPS, WIDTH, NETWORKS = 24, 96, 60


class Shift(nn.Module):
    """Two blocks: what neighbours of the first have in common is louder in the second."""

    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(500, WIDTH), nn.Linear(WIDTH, WIDTH, bias=False)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(2))
        self.gates = nn.ParameterList(torch.linspace(0, high, WIDTH) for high in (1.0, 1.3))
        self.before = nn.ZeroPad2d((0, 0, 1, -1))

    def forward(self, ids):
        x = self.embed(ids)
        for norm, layer, gate in zip(self.norms, self.layers, self.gates, strict=True):
            x = norm(x)
            x = layer(x * gate + self.before(x) * (1 - gate))
        return self.out(x)


def found():
    ids = torch.randint(0, 500, (2, STEPS), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    said, seen = fanin.predict(Shift(), ids), []
    networks = Networks(ids)
    for seed in range(NETWORKS):
        torch.manual_seed(seed)
        seen.append(networks.measure(Shift()))
    return said, seen


@pytest.fixture(scope="module")
def measured():
    return found()


def error(said, seen):
    """Relative error of the rms, and five standard errors of it and two percent."""
    seen = np.array(seen) ** 2
    mean = seen.mean()
    return said / math.sqrt(mean) - 1, 0.02 + 5 * seen.std(ddof=1) / math.sqrt(len(seen)) / mean / 2


def off(said, seen):
    """Names of the tensors and weights whose rms is beyond the bound."""
    beyond = []
    for row in (r for r in said.rows if r.name in seen[0]):
        for what, p, m in (("", row.rms, "rms"), (" back", row.grad_rms, "grad_rms")):
            e, bound = error(p, [getattr(one[row.name], m) for one in seen]) if p else (0.0, 0.0)
            beyond += [row.name + what] * int(abs(e) > bound)
    for name, row in said.parameters.items():
        e, bound = error(row["grad_rms"], [m.parameters[name]["grad_rms"] for m in seen])
        beyond += [name] * int(abs(e) > bound)
    return beyond


def test_a_tensor_beside_its_own_shift(measured):
    assert off(*measured) == []


@pytest.mark.parametrize(
    ("where", "name", "nothing", "heard"),
    [
        (shifts, "of_sum", lambda law, x, y: law, {"gates.1"}),
        (roots, "of_neighbours", lambda law, parts: None, {"norms.0.bias"}),
        (shared.Uses, "_beside_shift", lambda self, a, b: 0.0, {"gates.1"}),
    ],
)
def test_without_what_neighbours_have_in_common(measured, monkeypatch, where, name, nothing, heard):
    """The negative control: each of three is needed."""
    ids = torch.randint(0, 500, (2, STEPS), generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(where, name, nothing)
    torch.manual_seed(0)
    assert heard <= set(off(fanin.predict(Shift(), ids), measured[1]))
