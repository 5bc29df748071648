"""Heads that decay at rates of their own, one of them slow: what all have in the mean says little of any."""

import math

import numpy as np
import pytest
import torch
from networks import Networks
from torch import nn
from torch.nn import functional as F

import fanin
from fanin.distributions import Uniform
from fanin.frameworks.torch.verbs import read_model
from fanin.graph import Parameter
from fanin.theory import combine, prefix, rates
from fanin.theory.adjoint import between
from fanin.theory.law import Atom, fresh_latent, gaussians
from fanin.theory.records import replace

STEPS, WIDTH, HEADS, DRAWS = 24, 64, 12, 24


class Decays(nn.Module):
    """Products of steps decay between them: ``sum_j exp(A_i - A_j) x_j`` over what came before, head by head."""

    def __init__(self):
        super().__init__()
        self.dt = nn.Linear(WIDTH, HEADS, bias=False)
        self.value = nn.Linear(WIDTH, HEADS, bias=False)
        self.rate = nn.Parameter(torch.log(torch.linspace(0.02, 12.0, HEADS)))

    def forward(self, x):
        gate = -self.rate.exp() * F.softplus(self.dt(x) + 1.0)
        total = gate.cumsum(1).transpose(1, 2)
        decay = (total[..., :, None] - total[..., None, :]).masked_fill(
            torch.ones(STEPS, STEPS, dtype=torch.bool).triu(1), float("-inf")
        )
        return decay.exp() @ self.value(x).transpose(1, 2)[..., None]


def measured(make, x, draws=DRAWS):
    """Root mean squares over networks of every tensor, its gradient and the parameters' gradients."""
    tensors, gradients, weights = {}, {}, {}
    networks = Networks(x)
    for seed in range(draws):
        torch.manual_seed(seed)
        model = make()
        found = networks.measure(model, seed=seed)
        for row in found.rows:
            tensors.setdefault(row.name, []).append(row.rms**2)
            if row.grad_rms is not None:
                gradients.setdefault(row.name, []).append(row.grad_rms**2)
        for name, row in found.parameters.items():
            weights.setdefault(name, []).append(row["grad_rms"] ** 2)
    return tensors, gradients, weights


def off(predicted, squares):
    """Relative error, and the standard error of what was measured."""
    mean = np.mean(squares)
    noise = np.std(squares, ddof=1) / math.sqrt(len(squares)) / mean / 2
    return predicted / math.sqrt(mean) - 1, noise


@pytest.fixture(scope="module")
def batch():
    return torch.randn(2, STEPS, WIDTH, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def seen(batch):
    return measured(Decays, batch)


def predicted(batch):
    torch.manual_seed(0)
    return fanin.predict(Decays(), batch)


RATES = ("/exp gradient", "/neg gradient")
"""Sums over places by head, of which each has a correlation of its own; one for all heads is that of the log rate."""


def worst(said, seen, *, slack):
    """Largest excess of an error over three standard errors and a slack, over tensors, gradients and weights."""
    tensors, gradients, weights = seen
    found = {}
    for row in said.rows:
        pairs = [("", row.rms, tensors), (" gradient", row.grad_rms, gradients)]
        for side, value, all_ in pairs:
            squares = all_.get(row.name)
            if value is not None and squares and np.isfinite(value) and 0 < np.mean(squares) < np.inf:
                error, noise = off(value, squares)
                found[row.name + side] = abs(error) - 3 * noise - slack
    for name, squares in weights.items():
        error, noise = off(said.parameters.get(name, {}).get("grad_rms", math.inf), squares)
        found["weight " + name] = abs(error) - 3 * noise - slack
    name = max((n for n in found if n not in RATES), key=lambda n: found[n])
    return name, found[name] + slack


def test_every_head_decays_at_its_own_rate(batch, seen):
    name, excess = worst(predicted(batch), seen, slack=0.1)
    assert excess < 0.1, name


def test_heads_taken_together_are_far_off(batch, seen, monkeypatch):
    """The control: sums over prefixes that do not tell heads apart."""
    monkeypatch.setattr(prefix, "MOST", 0)
    assert worst(predicted(batch), seen, slack=0.1)[1] > 0.3


def test_rates_as_draws_of_one_law_are_far_off(batch, seen, monkeypatch):
    monkeypatch.setattr(rates, "rates", lambda graph: frozenset())
    assert worst(predicted(batch), seen, slack=0.1)[1] > 0.3


def test_what_cancels_counts_for_rates(batch, seen, monkeypatch):
    """The control: both operands' gradients as if they were independent, although ``g_ii`` cancels."""
    monkeypatch.setattr(between, "together", lambda law, parts: parts)
    said, (_, _, weights) = predicted(batch), seen
    error, _ = off(said.parameters["rate"]["grad_rms"], weights["rate"])
    assert error > 2.0


def test_rates_that_are_not_known_are_one_of_every_share_of_their_law():
    shown = Parameter("rate", (4,), "float32", law=Uniform(8 / 12**0.5, 4.0))
    assert np.unique(rates.by_place(shown, shown.law).means).tolist() == pytest.approx([1, 3, 5, 7])


class Gated(nn.Module):
    """A root mean square norm of a product of three: heavy tails, no even function of its latent."""

    def __init__(self):
        super().__init__()
        self.up, self.gate = (nn.Linear(WIDTH, 96, bias=False) for _ in range(2))

    def forward(self, x):
        y = F.relu(self.gate(x)) ** 2 * self.up(x) * F.silu(self.gate(x))
        return y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-12)


def test_what_is_divided_by_its_own_length_has_one():
    said = fanin.predict(Gated(), torch.randn(16, WIDTH))
    assert said.rows[-1].rms == pytest.approx(1.0, abs=1e-3)


class Converted(nn.Module):
    """A stream that is converted to the type that it has, beside its branch."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(2))

    def forward(self, x):
        x = self.inner(x)
        y = self.outer(x * 3.0)
        return x.to(torch.float32) + y


def test_a_conversion_that_changes_nothing_is_the_tensor():
    x = torch.randn(16, WIDTH)
    said, found = fanin.predict(model := Converted(), x), fanin.measure(model, x)
    row = next(r for r in said.rows if r.op == "to")
    assert row.grad_rms == said["inner"].grad_rms
    assert row.grad_rms == pytest.approx(found[row.name].grad_rms, rel=0.1)
    assert said.rows[-1].grad_rms < 0.8 * row.grad_rms


def largest_error():
    """Of a product of two tensors of many sizes, at its larger places."""
    sizes = np.geomspace(1, 1e-8, 48)[:, None], np.linspace(1, 2, 5)[None]
    shape = (48, 5)
    axes = (Atom(48, "position"),), (Atom(5, "feature"),)
    x, y = (replace(gaussians(shape, axes, np.zeros(s.shape), s), latent=fresh_latent({})) for s in sizes)
    made = combine.binary(np.multiply, x, y, shape, pair="product")
    wanted = sizes[0] * sizes[1]
    off = np.abs(np.broadcast_to(made.profile(made.seconds), shape) / wanted - 1)
    return off[wanted > 0.1].max()


def test_products_of_many_sizes_keep_each(monkeypatch):
    assert largest_error() < 0.05
    monkeypatch.setattr(combine, "each", lambda values, group, own, merged: values[group])
    assert largest_error() > 0.2  # the control: one size for all that were merged before the quadrature


def test_long_chunks_do_not_tell_heads_apart(batch, monkeypatch):
    """A level of every head at every two steps would take gigabytes."""
    graph = read_model(Decays(), batch).graph
    assert len(rates.rates(graph)) == 1
    monkeypatch.setattr(rates, "PLACES", STEPS)
    assert not rates.rates(graph)


def test_very_many_gaussians_are_merged_before_they_are_laid_out():
    mean, spread = np.linspace(-3, 0, 200)[:, None], np.linspace(0.1, 0.2, 50)[None]
    law = gaussians((200, 50), ((Atom(200, "position"),), (Atom(50, "feature"),)), mean, spread**2)
    assert len(law.values) <= 160
    assert np.abs(law.profile(law.means) - mean).max() < 0.05
    assert law.second == pytest.approx(float((mean**2 + spread**2).mean()), rel=1e-9)


def test_very_many_heads_are_taken_together_in_differences(batch, monkeypatch):
    monkeypatch.setattr(prefix, "PAIRS", 0)
    said = predicted(batch)
    assert all(row.grad_rms is not None for row in said.rows if row.op in ("sub", "cumsum"))
    assert said.parameters["rate"]["grad_rms"] > 0
