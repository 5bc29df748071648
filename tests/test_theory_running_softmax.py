"""Running softmaxes (RWKV): a maximum that is taken off at every step, and keys above and below the line."""

import math

import numpy as np
import pytest
import torch
from networks import Networks
from torch import nn

import fanin
from fanin.theory.drawn import channels

STEPS, WIDTH, BATCH, NETWORKS = 6, 48, 6, 40


class Running(nn.Module):
    """Weighted mean of earlier values and this one's, of rates between almost one and almost none."""

    def __init__(self):
        super().__init__()
        self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))
        self.decay, self.first = nn.Parameter(torch.linspace(-3, 1, WIDTH)), nn.Parameter(torch.ones(WIDTH))
        for layer in (self.key, self.value, self.out):
            nn.init.normal_(layer.weight, 0, WIDTH**-0.5)

    def forward(self, x):
        k, v = self.key(x), self.value(x)
        out, decay = torch.zeros_like(k), -torch.exp(self.decay)
        num = torch.zeros_like(k[:, 0])
        den, top = torch.zeros_like(num), torch.zeros_like(num) - 1e38
        for t in range(STEPS):
            m = torch.maximum(top, k[:, t] + self.first)
            old, new = torch.exp(top - m), torch.exp(k[:, t] + self.first - m)
            out[:, t] = (old * num + new * v[:, t]) / (old * den + new)
            m = torch.maximum(top + decay, k[:, t])
            old, new = torch.exp(top + decay - m), torch.exp(k[:, t] - m)
            num, den, top = old * num + new * v[:, t], old * den + new, m
        return self.out(out)


def batch():
    one, two = (torch.Generator().manual_seed(s) for s in (0, 1))
    return torch.randn(BATCH, STEPS, WIDTH, generator=one) + 0.7 * torch.randn(BATCH, 1, WIDTH, generator=two)


def predicted():
    torch.manual_seed(0)
    return fanin.predict(Running(), batch())


@pytest.fixture(scope="module")
def measured():
    found = []
    networks = Networks(batch())
    for seed in range(NETWORKS):
        torch.manual_seed(seed)
        model = Running()
        found.append(networks.measure(model, seed=seed))
    return found


def error(said, seen):
    """Relative error of the rms, and five standard errors of it."""
    seen = np.array(seen) ** 2
    mean = seen.mean()
    return abs(said / math.sqrt(mean) - 1), 5 * seen.std(ddof=1) / math.sqrt(len(seen)) / mean / 2


def errors(said, seen):
    """By tensor forward, by tensor backward and by weight; of masks and what is zero none."""
    forward, back = {}, {}
    for row in (r for r in said.rows if r.name in seen[0]):
        once = seen[0][row.name]
        if 1e-6 < once.rms < 1e6:
            forward[row.name] = error(row.rms, [m[row.name].rms for m in seen])
        if row.grad_rms is not None and once.grad_rms > 1e-4:  # below is what rounding leaves of a maximum's
            back[row.name] = error(row.grad_rms, [m[row.name].grad_rms for m in seen])
    weights = {
        name: error(row["grad_rms"], [m.parameters[name]["grad_rms"] for m in seen])
        for name, row in said.parameters.items()
    }
    return forward, back, weights


def test_running_softmax(measured):
    """Channels that are drawn add chance of their own: 4 % of states, 8 % of their gradients, whose tails are long."""
    forward, back, weights = errors(predicted(), measured)
    assert len(forward) > 100 and len(back) > 80
    assert not {name: e for name, (e, se) in forward.items() if e > 0.04 + se}
    assert not {name: e for name, (e, se) in back.items() if e > 0.08 + se}
    assert not {name: e for name, (e, se) in weights.items() if e > 0.04 + se}
    assert np.median([e for e, _ in forward.values()]) < 0.01
    assert np.median([e for e, _ in back.values()]) < 0.04


def test_laws_of_single_tensors_do_not_follow(measured, monkeypatch):
    """The negative control: tensor by tensor, keys' gradients are more than twice too large."""
    monkeypatch.setattr(channels, "regions", lambda graph: [])
    _, back, weights = errors(predicted(), measured)
    assert back["key"][0] > 1 and weights["key.weight"][0] > 1 and weights["decay"][0] > 1


def test_one_maximum_is_left_to_the_rules():
    """Only where one maximum is made of an earlier one are channels drawn."""

    class Once(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

        def forward(self, x):
            a, b = self.a(x), self.b(x)
            m = torch.maximum(a, b)
            return m + torch.log(torch.exp(a - m) + torch.exp(b - m))

    assert not any("drawn" in row.note for row in fanin.predict(Once(), torch.randn(4, WIDTH)).rows)
    assert any("drawn" in row.note for row in predicted().rows)
