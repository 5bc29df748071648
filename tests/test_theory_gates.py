"""Gates: a product that is added to one of its own factors, and factors whose gradients meet behind two products."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from networks import Networks  # noqa: E402
from torch import nn  # noqa: E402

import fanin  # noqa: E402
from fanin.frameworks.torch.verbs import read_model  # noqa: E402
from fanin.theory.adjoint.meeting import meetings  # noqa: E402

WIDTH, NETWORKS = 64, 24


def sums_to(body, *names: str) -> type[nn.Module]:
    """A model of dense layers of these names and a last one, whose body is ``body(layers, x)``."""

    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            for name in (*names, "out"):
                setattr(self, name, nn.Linear(WIDTH, WIDTH))

        def forward(self, x):
            return self.out(body(self, x))

    return Gated


def added(m, x):
    x = m.a(x)
    return x + x * torch.sigmoid(m.g(x))


def taken(m, x):
    x = torch.relu(m.a(x))
    return x - x * torch.sigmoid(m.g(x))


def highway(m, x):
    for a, g in ((m.a, m.g), (m.b, m.h)):
        t = torch.sigmoid(g(x))
        x = t * torch.relu(a(x)) + (1 - t) * x
    return x


def recurrent(m, x):
    n, z = torch.sigmoid(m.a(x)), torch.sigmoid(m.g(x))
    return n + z * (torch.relu(m.b(x)) - n)


def shared(m, x):  # one gate for all features: its gradient is a sum over them
    x = torch.relu(m.a(x))
    t = torch.sigmoid(m.g(x)[:, :1])
    return t * torch.relu(m.b(x)) + (1 - t) * x


def apart(m, x):  # a control: both products have a factor of their own, and nothing meets
    return torch.relu(m.a(x)) * torch.sigmoid(m.g(x)) + torch.relu(m.b(x)) * torch.sigmoid(m.h(x))


CASES = {
    "added": (sums_to(added, "a", "g"), "/add", "a"),
    "taken": (sums_to(taken, "a", "g"), "/sub", "a"),
    "highway": (sums_to(highway, "a", "g", "b", "h"), "/add_1", "h"),
    "recurrent": (sums_to(recurrent, "a", "g", "b"), "/add", "a"),
    "shared": (sums_to(shared, "a", "g", "b"), "/add", "/sigmoid"),
    "apart": (sums_to(apart, "a", "g", "b", "h"), "/add", "g"),
}


@pytest.fixture(scope="module", params=CASES)
def found(request):
    """Prediction and measured networks of a case, and the names to look at."""
    made, total, gate = CASES[request.param]
    torch.manual_seed(0)
    x = torch.randn(WIDTH, WIDTH)
    said, runs = fanin.predict(made(), x), []
    networks = Networks(x)
    for seed in range(NETWORKS):
        torch.manual_seed(seed + 1)
        runs.append(networks.measure(made()))
    return said, runs, total, gate


def squares(runs, name: str, of: str) -> tuple[float, float]:
    """Mean over networks of the mean square, and its standard error."""
    values = np.array([getattr(run[name], of) ** 2 for run in runs])
    return values.mean(), values.std() / np.sqrt(len(values))


def test_a_product_has_its_factor_in_common_with_the_sum(found):
    said, runs, total, _ = found
    mean, error = squares(runs, total, "rms")
    assert said[total].rms ** 2 == pytest.approx(mean, abs=4 * error + 0.02 * mean)


def test_gradients_that_meet_behind_two_products_add_before_they_are_squared(found):
    said, runs, total, gate = found
    whole, _ = squares(runs, total, "grad_rms")  # cotangents of the runs are one draw
    mean, error = squares(runs, gate, "grad_rms")
    expected = (said[gate].grad_rms / said[total].grad_rms) ** 2
    assert expected == pytest.approx(mean / whole, abs=4 * error / whole + 0.03 * mean / whole)


def test_independent_summands_would_be_far_off():
    """A control: with what they have in common left out, the checks above would fail."""
    made, total, _ = CASES["added"]
    torch.manual_seed(1)
    model, x = made(), torch.randn(WIDTH, WIDTH)
    run = fanin.measure(model, x)
    apart_ = run["a"].rms ** 2 + run["/mul"].rms ** 2
    assert run[total].rms ** 2 > 1.5 * apart_


@pytest.mark.parametrize(
    ("name", "count"), [("added", 1), ("taken", 1), ("highway", 4), ("recurrent", 1), ("shared", 2), ("apart", 0)]
)
def test_where_gradients_meet_follows_from_the_graph(name, count):
    graph = read_model(CASES[name][0](), torch.randn(4, WIDTH)).graph
    assert sum(len(places) for places in meetings(graph).values()) == count
