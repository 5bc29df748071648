"""How long places are: a branch is long where the stream is that it has read, and sums of both stay so."""

import numpy as np
import pytest
import torch
from torch import nn

from fanin.frameworks.torch.verbs import read_model
from fanin.theory import combine
from fanin.theory.engine import Interpreter
from fanin.theory.law import Law
from fanin.theory.statistic import scatter

CHANNELS, DEPTH, NETWORKS = 16, 4, 24


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        wide = 2 * CHANNELS
        self.branch = nn.Sequential(conv(CHANNELS, wide), nn.BatchNorm2d(wide), nn.ReLU(), conv(wide, CHANNELS))
        self.norm = nn.BatchNorm2d(CHANNELS)

    def forward(self, x):
        return x + self.norm(self.branch(x))


def conv(inputs, outputs):
    layer = nn.Conv2d(inputs, outputs, 1, bias=False)
    nn.init.normal_(layer.weight, std=inputs**-0.5)
    return layer


def narrow():
    return nn.Sequential(conv(64, CHANNELS), nn.BatchNorm2d(CHANNELS), *(Block() for _ in range(DEPTH)))


def squares_in_common(y):
    """Mean covariance, over places, of the squares of two channels."""
    y = y.double().transpose(0, 1).flatten(1)
    y = (y - y.mean(1, keepdim=True)) ** 2
    y = y / y.mean(1, keepdim=True)
    n = len(y)
    return float((n * y.mean(0).var() - y.var(1).mean()) / (n - 1))


def predicted():
    graph = read_model(narrow().train(), (torch.randn(8, 64, 12, 12),)).graph
    run = Interpreter(graph)
    run.forward()
    law = run.values[[n for n in graph.nodes if n.op == "add"][-1].id]
    assert isinstance(law, Law)
    return scatter(law, frozenset(), law.second)


@pytest.fixture(scope="module")
def measured():
    torch.manual_seed(0)
    with torch.no_grad():
        found = [squares_in_common(narrow().train()(torch.randn(8, 64, 12, 12))) for _ in range(NETWORKS)]
    return np.mean(found), np.std(found) / NETWORKS**0.5


def test_a_branch_is_long_where_its_stream_is(measured):
    mean, error = measured
    assert abs(predicted() - mean) < 3 * error + 0.05 * mean


def test_lengths_taken_for_independent_are_too_little(measured, monkeypatch):
    mean, error = measured
    monkeypatch.setattr(combine.spread, "same_lengths", lambda x, y: 0.0)
    assert predicted() < mean - 5 * error
