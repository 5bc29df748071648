"""Linear recurrences unrolled over time: what rates, states and inputs know of each other through their latents."""

import math

import numpy as np
import pytest
import torch
from networks import Networks
from torch import nn
from torch.nn import functional as F

import fanin
from fanin.theory import given, grid

STEPS, WIDTH, BATCH, NETWORKS = 8, 48, 24, 32


class Scan(nn.Module):
    """h_t = a_t h_{t-1} + b_t."""

    def __init__(self):
        super().__init__()
        self.value, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def rates(self, x):
        raise NotImplementedError

    def forward(self, x):
        u, rates = self.value(x), self.rates(x)
        h, ys = torch.zeros(x.shape[0], WIDTH), []
        for t in range(STEPS):
            a, b = rates(t)
            h = a * h + b * u[:, t]
            ys.append(h)
        return self.out(torch.stack(ys, 1))


class Learned(Scan):
    """One rate a channel, the same at all steps."""

    def __init__(self):
        super().__init__()
        self.p = nn.Parameter(torch.randn(WIDTH))

    def rates(self, x):
        a = torch.exp(-F.softplus(self.p))
        return lambda t: (a, 1.0)


class Selective(Scan):
    """Rates and inputs made of one step size, as in Mamba: where it is small, the state forgets and hears little."""

    def __init__(self):
        super().__init__()
        self.dt = nn.Linear(WIDTH, WIDTH)
        with torch.no_grad():
            wanted = torch.exp(torch.linspace(math.log(0.03), math.log(0.9), WIDTH))
            self.dt.bias.copy_(wanted + torch.log(-torch.expm1(-wanted)))

    def rates(self, x):
        dt = F.softplus(self.dt(x))
        a = torch.exp(-dt)
        return lambda t: (a[:, t], dt[:, t])


class Sums(Scan):
    """Nothing forgotten, of inputs that are alike at all steps: their sum grows as their number."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)

    def rates(self, x):
        return lambda t: (1.0, 1.0)

    def forward(self, x):
        return super().forward(torch.relu(self.first(x)))


def squares(make):
    """Predicted and measured mean squares by name, forward, backward and of weights, of networks (NETWORKS,)."""
    x = torch.randn(BATCH, STEPS, WIDTH, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    said, seen = fanin.predict(make(), x), []
    networks = Networks(x)
    for seed in range(NETWORKS):
        torch.manual_seed(seed)
        seen.append(networks.measure(make()))
    weights = {
        name: (said.parameters[name]["grad_rms"], np.array([m.parameters[name]["grad_rms"] for m in seen]) ** 2)
        for name in said.parameters
    }
    forward = {r.name: (r.rms, np.array([m[r.name].rms for m in seen]) ** 2) for r in said.rows if r.name in seen[0]}
    back = {
        r.name: (r.grad_rms, np.array([m[r.name].grad_rms for m in seen]) ** 2)
        for r in said.rows
        if r.name in seen[0] and r.grad_rms and seen[0][r.name].grad_rms
    }
    return forward, back, weights


def error(said, seen):
    """Relative error of the rms, and its standard error."""
    mean = seen.mean()
    return said / math.sqrt(mean) - 1, seen.std(ddof=1) / math.sqrt(len(seen)) / mean / 2


@pytest.fixture(scope="module")
def found():
    return {make.__name__: squares(make) for make in (Learned, Selective, Sums)}


@pytest.mark.parametrize(("name", "allowed"), [("Learned", 0.06), ("Selective", 0.06), ("Sums", 0.04)])
def test_states_at_every_step(found, name, allowed):
    """Chance of a batch of known inputs and of few features adds to the noise of networks."""
    forward, *_ = found[name]
    for row in (f"/add_{t}" for t in range(2, STEPS)):
        off, noise = error(*forward[row])
        assert abs(off) < allowed + 3 * noise, row


def test_control_states_whose_factors_count_as_independent(found):
    """The mean squares of rate, state and input at the last step, multiplied as they are: three times as far off."""
    forward, *_ = found["Selective"]
    rate, step = forward["/exp"][1].mean(), forward["/mul_1"][1].mean()
    alone = sum(step * rate**k for k in range(STEPS))
    off, noise = error(math.sqrt(alone), forward[f"/add_{STEPS - 1}"][1])
    assert off > 0.2 + 3 * noise


@pytest.mark.parametrize("name", ["Learned", "Selective", "Sums"])
def test_gradients_of_states(found, name):
    _, back, _ = found[name]
    for row in (f"/add_{t}" for t in range(1, STEPS)):
        off, noise = error(*back[row])
        assert abs(off) < 0.1 + 3 * noise, row


def test_gradients_of_the_step_size(found):
    """Through the rate and through the input, both of which are functions of what the gradient's size goes with."""
    _, back, _ = found["Selective"]
    for row in ("/exp", "/softplus", "dt"):
        off, noise = error(*back[row])
        assert abs(off) < 0.08 + 3 * noise, row


@pytest.mark.parametrize(
    ("name", "weight"), [("Learned", "p"), ("Sums", "value.weight"), ("Sums", "first.bias"), ("Selective", "dt.weight")]
)
def test_what_all_steps_hand_back(found, name, weight):
    """Two steps get gradients that are alike: without it 22, 40 and 50 % too small. One cotangent: 10 % by chance."""
    off, noise = error(*found[name][2][weight])
    assert abs(off) < 0.1 + 3 * noise


def test_a_weight_that_stands_before_what_it_multiplies():
    """``W x`` of all samples: its gradient sums over them, though one profile of positions stands for all."""

    class Before(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.weight = nn.Embedding(300, 32), nn.Parameter(torch.randn(40, 32) / 6)
            self.out = nn.Linear(40, 32)

        def forward(self, ids):
            x = F.pad(self.table(ids), (0, 0, 2, 0))[:, : ids.shape[1]]  # places that differ, the same in all samples
            return self.out((self.weight @ x.transpose(1, 2)).transpose(1, 2))

    ids = torch.randint(300, (6, 12), generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    said, seen = fanin.predict(Before(), ids).parameters["weight"]["grad_rms"], []
    networks = Networks(ids)
    for seed in range(24):
        torch.manual_seed(seed)
        seen.append(networks.measure(Before()).parameters["weight"]["grad_rms"])
    off, noise = error(said, np.array(seen) ** 2)
    assert abs(off) < 0.05 + 3 * noise


def test_a_product_given_a_latent_against_samples():
    """E[(x y)^2] and the conditional moments of the product, of factors that are functions of one latent each time."""
    rng = np.random.default_rng(0)
    z, e, f = rng.standard_normal((3, 400_000))
    fx, fy = np.exp(-0.5 * np.exp(z)), 1 + 0.7 * np.tanh(z)
    x, y = fx * e, fy * (f + 0.5)
    one, two = np.exp(-0.5 * np.exp(grid.Z_COARSE)), 1 + 0.7 * np.tanh(grid.Z_COARSE)
    psi = [v[None] ** 2 / given.mean(v[None] ** 2)[:, None] for v in (one, two)]
    root = math.sqrt(float(given.mean(two[None] ** 2)[0]))
    tables = [
        {(1, (), False): given.Given(psi[0], 0 * psi[0], 1.0)},
        {(1, (), False): given.Given(psi[1], two[None] * 0.5 / (root * math.sqrt(1.25)), 1.0)},
    ]
    gain, cov, known = given.product(*tables, (np.zeros(1), np.zeros(1)))
    seen = (x * y) ** 2
    said = float(gain[0]) * np.mean(x**2) * np.mean(y**2)
    assert abs(said / seen.mean() - 1) < 4 * seen.std() / math.sqrt(len(seen)) / seen.mean()
    assert abs(np.mean(x**2) * np.mean(y**2) / seen.mean() - 1) > 0.05  # control: as if independent
    (told,) = known.values()
    high = z > 1
    share = float((told.second[0] * grid.WEIGHT_COARSE)[grid.Z_COARSE > 1].sum())
    assert share == pytest.approx(seen[high].sum() / seen.sum(), rel=0.05)
    assert float(cov[0]) == pytest.approx(0.0, abs=1e-12)


def test_what_places_have_in_common_keeps_the_mean_and_loses_the_rest():
    table = given.Given(np.exp(grid.Z_COARSE)[None], np.exp(grid.Z_COARSE)[None], 0.25)
    smoothed = table.smoothed.second[0]
    assert smoothed @ grid.WEIGHT_COARSE == pytest.approx(math.exp(0.5), rel=0.005)  # 48 steps on a grid
    inside = np.abs(grid.Z_COARSE) < 3
    assert np.allclose(smoothed[inside], np.exp(0.5 * grid.Z_COARSE + 0.375)[inside], rtol=0.01)


def test_decays_over_what_is_between_two_places():
    """exp of a difference of prefix sums of negative numbers: as Gaussians it was a gain beyond all bounds."""

    class Decays(nn.Module):
        def __init__(self):
            super().__init__()
            self.dt = nn.Linear(WIDTH, WIDTH)

        def forward(self, x):
            a = torch.cumsum(-0.3 * F.softplus(self.dt(x)), 1)
            return torch.exp(a[:, -1:] - a)

    x = torch.randn(BATCH, STEPS, WIDTH, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    said, seen = fanin.predict(Decays(), x), []
    networks = Networks(x)
    for seed in range(16):
        torch.manual_seed(seed)
        seen.append(networks.measure(Decays()))
    for row in said.rows[-2:]:
        off, noise = error(row.rms, np.array([m[row.name].rms for m in seen]) ** 2)
        assert abs(off) < 0.03 + 3 * noise, row.name
    assert said.rows[-1].mean < 1


def test_numbers_in_order_are_known():
    """Decays set channel by channel, in a tensor of one long axis, are what they are; drawn ones have their law."""

    class Ordered(nn.Module):
        def __init__(self):
            super().__init__()
            self.decay = nn.Parameter(torch.linspace(-5, 3, WIDTH).view(1, 1, -1))
            self.drawn = nn.Parameter(torch.randn(WIDTH))

        def forward(self, x):
            return x * torch.exp(self.decay) * self.drawn

    from fanin.frameworks.torch.parameters import parameter_records

    records = parameter_records(Ordered())
    assert records["decay"].observed is not None and records["drawn"].observed is None
    row = next(r for r in fanin.predict(Ordered(), torch.randn(2, 3, WIDTH)).rows if r.op == "exp")
    assert row.rms == pytest.approx(
        float(torch.linspace(-5, 3, WIDTH).exp().pow(2).mean().sqrt()), rel=0.005
    )  # 48 steps on a grid
