"""Behind a norm the interval of the gradient is about what networks have: E[1/s^2] is in the prediction already."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from test_width import laws_of, networks_of  # noqa: E402
from torch import nn  # noqa: E402

from fanin.frameworks.torch.verbs import read_model  # noqa: E402
from fanin.theory import interpret  # noqa: E402

NETWORKS = 300
WIDTH = 32


@pytest.mark.parametrize(("norm", "samples"), [(nn.LayerNorm, 64), (nn.RMSNorm, 64), (nn.LayerNorm, 1)])
def test_the_interval_of_a_gradient_behind_a_norm_is_centred(norm, samples):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(48, WIDTH, bias=False), norm(WIDTH), nn.Linear(WIDTH, 40, bias=False))
    x = torch.randn(samples, 48)
    laws = laws_of(model, gain=1.0)
    row = interpret(read_model(model, x).graph, laws)["0"]
    seen = np.log(networks_of(model, x, laws, NETWORKS)[1]["0"])
    low, high = math.log(row.grad_rms_low), math.log(row.grad_rms_high)
    inside = float(np.mean((low < seen) & (seen < high)))
    assert abs(inside - 0.95) < 4 * math.sqrt(0.95 * 0.05 / NETWORKS)
    if samples > 1:  # few samples: the middle of a skewed interval is not the mean
        error = 4 * seen.std() / math.sqrt(NETWORKS)
        assert abs((low + high) / 2 - seen.mean()) < error
        assert 2 * error < 1 / WIDTH  # a control: what E[1/s^2] counted twice would move it by is noticed


def test_a_gradient_that_follows_the_signal_strays_once_through_a_norm():
    """Eight ReLU layers behind layer norms: the mask, and its weights' draw, are in the gradient once."""
    torch.manual_seed(0)
    steps = [(nn.Linear(WIDTH, WIDTH, bias=False), nn.LayerNorm(WIDTH), nn.ReLU()) for _ in range(8)]
    model = nn.Sequential(*(layer for step in steps for layer in step), nn.Linear(WIDTH, 10, bias=False))
    x = torch.randn(8, WIDTH)
    laws = laws_of(model)
    row = interpret(read_model(model, x).graph, laws)["0"]
    seen = np.std(np.log(networks_of(model, x, laws, NETWORKS)[1]["0"]))
    said = math.log(row.grad_rms_high / row.grad_rms_low) / (2 * 1.96)
    error = 4 / math.sqrt(2 * NETWORKS)
    assert abs(math.log(said / seen)) < error
    assert math.log(1.3) > error  # a control: counted twice, it is a third more


@pytest.fixture(scope="module")
def batch_normalized():
    """Rows and networks of six ReLU layers with batch norm; four channels a sample."""
    torch.manual_seed(0)
    steps = [(nn.Linear(64, 64, bias=False), nn.BatchNorm1d(64), nn.ReLU()) for _ in range(6)]
    model = nn.Sequential(*(layer for step in steps for layer in step), nn.Linear(64, 10, bias=False))
    x = torch.randn(16, 64)
    laws = laws_of(model)
    return interpret(read_model(model, x).graph, laws), networks_of(model, x, laws, 120)


def test_batch_norm_divides_each_channel_by_what_samples_do_not_share(batch_normalized):
    """Behind ReLU, samples are alike: their common part is centred away, and strays in no channel's variance."""
    rows, (_, backward) = batch_normalized
    said = math.log(rows["0"].grad_rms_high / rows["0"].grad_rms_low) / (2 * 1.96)
    error = 4 / math.sqrt(2 * 120)
    assert abs(math.log(said / np.std(np.log(backward["0"])))) < error
    assert math.log(1.35) > error  # a control: with what samples share it was a third more


def test_behind_batch_norm_samples_are_unlike(batch_normalized):
    rows, (forward, _) = batch_normalized
    said = math.log(rows["8"].rms_high / rows["8"].rms_low) / (2 * 1.96)
    assert abs(math.log(said / np.std(np.log(forward["8"])))) < 4 / math.sqrt(2 * 120)
