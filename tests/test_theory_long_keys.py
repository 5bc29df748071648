"""Attention between batch norms: tokens differ in length, and long keys are looked at, whose values are as long."""

import numpy as np
import pytest
import torch
from torch import nn

import fanin
from fanin.frameworks.torch.verbs import measure_signals, read_model
from fanin.theory import lengthy
from fanin.theory.concentration import concentrations
from fanin.theory.engine import Interpreter
from fanin.theory.latent import Source
from fanin.theory.law import Law

CHANNELS, HEADS, TOKENS, SAMPLES, NETWORKS = 32, 4, 64, 8, 32


def linear(inputs, outputs):
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, std=inputs**-0.5)
    return layer


class Normed(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.layer, self.norm = linear(inputs, outputs), nn.BatchNorm1d(outputs)

    def forward(self, x):
        y = self.layer(x)
        return self.norm(y.flatten(0, 1)).reshape_as(y)


class Attention(nn.Module):
    """Tokens that a narrow ReLU has made longer and shorter; queries, keys and values behind batch norms."""

    def __init__(self):
        super().__init__()
        self.stem = nn.ModuleList([Normed(64, 32), Normed(32, CHANNELS)])
        self.read = Normed(CHANNELS, 3 * CHANNELS)
        self.rows, self.mixed = nn.Identity(), nn.Identity()

    def forward(self, x):
        for i, layer in enumerate(self.stem):
            x = layer(x.relu() if i else x)
        heads = self.read(x).view(SAMPLES, TOKENS, HEADS, -1).transpose(1, 2)
        q, k, v = heads.chunk(3, -1)
        weights = self.rows(((q @ k.transpose(2, 3)) * (CHANNELS // HEADS) ** -0.5).softmax(-1))
        return self.mixed((weights @ v).transpose(1, 2).reshape(SAMPLES, TOKENS, CHANNELS))


def squares_in_common(y):
    """Mean covariance, over tokens, of the squares of two features."""
    y = y.double().flatten(0, 1)
    y = y**2 / (y**2).mean(0)
    n = y.shape[1]
    return float((n * y.mean(1).var() - y.var(0).mean()) / (n - 1))


@pytest.fixture(scope="module")
def measured():
    """By network: E[sum a^2], mean square of the result, and what its features' squares have in common."""
    torch.manual_seed(0)
    found, seen = [], {}
    for _ in range(NETWORKS):
        model = Attention().train()
        model.rows.register_forward_hook(lambda m, a, y: seen.update(rows=y))
        with torch.no_grad():
            y = model(torch.randn(SAMPLES, TOKENS, 64))
        found.append((float((seen["rows"] ** 2).sum(-1).mean()), float((y**2).mean()), squares_in_common(y)))
    return np.array(found)


def predicted():
    graph = read_model(Attention().train(), (torch.randn(SAMPLES, TOKENS, 64),)).graph
    run = Interpreter(graph)
    run.forward()
    rows, mixed = (next(run.values[n.id] for n in reversed(graph.nodes) if n.op == op) for op in ("softmax", "matmul"))
    assert isinstance(rows, Law) and isinstance(mixed, Law)
    return TOKENS * rows.second, mixed.second, mixed.latent.uneven.common


def test_rows_and_results_of_long_tokens(measured):
    mean, error = measured.mean(0), measured.std(0) / NETWORKS**0.5
    rows, second, common = predicted()
    assert abs(rows - mean[0]) < 3 * error[0] + 0.03 * mean[0]
    assert abs(second - mean[1]) < 3 * error[1] + 0.05 * mean[1]
    assert 0.5 * mean[2] < common < mean[2] + 3 * error[2]  # beside what features agree by chance


def test_tokens_of_one_length_look_at_more_keys(measured, monkeypatch):
    mean, error = measured.mean(0), measured.std(0) / NETWORKS**0.5
    monkeypatch.setattr(lengthy, "shape_of", lambda latent: 0.0)
    monkeypatch.setattr(lengthy, "of_queries", lambda latent: 0.0)
    rows, second, common = predicted()
    assert rows < mean[0] - 5 * error[0] and second < mean[1] - 5 * error[1] and common == 0


def test_integrals_over_keys_of_unlike_lengths():
    stray, variance, keys, rng = 0.5, 1.3, 40, np.random.default_rng(0)
    deviation = np.log1p(stray) ** 0.5
    squares = np.exp(deviation * rng.normal(size=(40000, keys)) - deviation**2 / 2)
    z = np.sqrt(squares) * rng.normal(size=squares.shape)
    a = np.exp(variance**0.5 * z)
    a /= a.sum(1, keepdims=True)
    width = 16.0
    along = squares + (z**2 - squares) / width
    through = a**2 * (squares * (1 - 2 * a) + (a**2 * squares).sum(1, keepdims=True))
    centred = a**2 * (z - (a * z).sum(1, keepdims=True)) ** 2
    source, count = Source(0, width, terms=8, sphere=-stray), np.array([float(keys)])
    rows = lengthy.Rows(source, variance, count, 0.0)
    wanted = [
        (a**2).sum(1),
        (a**2 * along).sum(1),
        (a**2 * along).sum(1) ** 2,
        through.sum(1),
        (through * along).sum(1),
    ]
    found = [concentrations(variance, count, -stray)] + [
        rows.mean(*sums) for sums in (lengthy.VALUES, lengthy.SQUARE, lengthy.LOGITS, lengthy.QUERIES)
    ]
    wanted, found = [*wanted, centred.sum(1)], [*found, rows.along()]
    for one, value in zip(wanted, found, strict=True):
        assert abs(float(value[0]) - one.mean()) < 4 * one.std() / len(one) ** 0.5 + 0.02 * one.mean()


@pytest.mark.parametrize("stray", [0.0, 0.01])
def test_tokens_of_almost_one_length_are_left_alone(stray):
    from fanin.theory.latent import Latent, Uneven

    assert lengthy.shape_of(Latent(0, {}, uneven=Uneven(own=stray))) == 0.0


def gradients(seeds):
    """Predicted and measured mean squares of gradients of logits, queries, keys and values, and standard errors."""
    found, told = [], {}
    for seed in range(seeds):
        torch.manual_seed(seed)
        model, x = Attention().train(), torch.randn(SAMPLES, TOKENS, 64)
        told = told or {r.name: (r.grad_rms or 0.0) ** 2 for r in fanin.predict(model, x).rows if r.name in READ}
        rows = {
            r.name: (r.grad_rms or 0.0) ** 2
            for r in measure_signals(read_model(model, (x,)), seed=seed).rows
            if r.name in READ
        }
        found.append([rows[n] for n in READ])
    return np.array([told[n] for n in READ]), np.mean(found, 0), np.std(found, 0) / seeds**0.5


READ = ("/mul", "/chunk", "/chunk_1", "/chunk_2")


def test_gradients_of_long_tokens():
    told, mean, error = gradients(16)
    assert np.all(np.abs(told - mean) < 3 * error + 0.04 * mean)


def test_gradients_of_tokens_of_one_length_are_too_small(monkeypatch):
    monkeypatch.setattr(lengthy, "shape_of", lambda latent: 0.0)
    monkeypatch.setattr(lengthy, "of_queries", lambda latent: 0.0)
    told, mean, error = gradients(16)
    assert np.all(told < mean - 4 * error)
