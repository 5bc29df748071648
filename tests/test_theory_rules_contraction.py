"""Dense layers, matrix products, embeddings: predicted against drawn networks."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
from test_theory_statistics import compared, normal  # noqa: E402
from torch import nn  # noqa: E402

from fanin.distributions import Constant, Normal, TruncatedNormal, Uniform  # noqa: E402

N = 96


class Made(nn.Module):
    """A module from parameters and a function of them."""

    def __init__(self, forward, **shapes):
        super().__init__()
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.ones(shape)))
        self.body = forward

    def forward(self, *inputs):
        return self.body(self, *inputs)


class Two(nn.Module):
    """A dense layer, a bilinear one, a dense one."""

    def __init__(self, forward):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(N, 24), nn.Bilinear(24, N, 40), nn.Linear(40, 16)
        self.body = forward

    def forward(self, x):
        return self.body(self, x)


def chain(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers)


CASES = {
    "dense": (lambda: chain(nn.Linear(N, N), nn.Linear(N, 40)), normal(8, N), {}, 0.0),
    "dense on samples that are alike": (
        lambda: chain(nn.Linear(N, N), nn.ReLU(), nn.Linear(N, N)), normal(8, N) + 2, {}, 0.0,
    ),
    "positions": (lambda: chain(nn.Linear(N, N), nn.ReLU(), nn.Linear(N, N)), normal(3, 5, N), {}, 0.0),
    "bias": (
        lambda: chain(nn.Linear(N, N), nn.ReLU(), nn.Linear(N, N)), normal(8, N),
        {"0.bias": Normal(0.5), "2.bias": Normal(0.7)}, 0.0,
    ),
    "constant bias": (
        lambda: chain(nn.Linear(N, N), nn.ReLU(), nn.Linear(N, N)), normal(8, N),
        {"0.bias": Constant(0.5), "2.bias": Constant(-1.0)}, 0.0,
    ),
    "uniform and truncated laws": (
        lambda: chain(nn.Linear(N, N), nn.ReLU(), nn.Linear(N, N)), normal(8, N),
        {"0.weight": Uniform(0.1), "2.weight": TruncatedNormal(0.2)}, 0.0,
    ),
    # three layers of weights with a mean: after the first the pair moment between features is what a mean picks up
    "weights with a mean": (
        lambda: chain(nn.Linear(N, N), nn.ReLU(), nn.Linear(N, N)), normal(8, N),
        {"2.weight": Normal(N**-0.5, mean=0.05)}, 0.01,
    ),
    "weights with a mean, known input": (
        lambda: nn.Linear(N, N), normal(8, N) + 0.5, {"weight": Normal(N**-0.5, mean=0.1)}, 0.0,
    ),
    "zero and constant weights": (
        lambda: chain(nn.Linear(N, N), nn.ReLU(), nn.Linear(N, N)), normal(8, N),
        {"0.weight": Normal(0.2), "2.weight": Constant(0.0)}, 0.0,
    ),
    "in by out weight": (
        lambda: Made(lambda m, x: torch.addmm(m.b, x @ m.w, m.v), w=(N, N), v=(N, 30), b=(30,)), normal(8, N),
        {"w": Normal(0.1), "v": Normal(0.3), "b": Normal(0.4)}, 0.0,
    ),
    "einsum": (
        lambda: Made(lambda m, x: torch.einsum("bsi,ij->bsj", x, m.w), w=(N, 40)), normal(4, 3, N),
        {"w": Normal(0.1)}, 0.0,
    ),
    "weight shared by two layers": (
        lambda: Made(lambda m, x: nn.functional.linear(x, m.w) * 2, w=(N, N)), normal(8, N), {"w": Normal(0.1)}, 0.0,
    ),
    "product of two signals": (
        lambda: Made(lambda m, x: (x @ m.w) @ (x @ m.v).transpose(1, 2), w=(N, N), v=(N, N)), normal(4, 6, N),
        {"w": Normal(0.1), "v": Normal(0.1)}, 0.0,
    ),
    "bilinear": (
        lambda: Two(lambda m, x: m.c(torch.relu(m.b(torch.tanh(m.a(x)), x)))), normal(8, N),
        {"b.weight": Normal(0.05), "b.bias": Normal(0.3)}, 0.0,
    ),
    "bilinear over positions": (
        lambda: Two(lambda m, x: m.c(torch.relu(m.b(m.a(x), x)))), normal(4, 3, N), {"b.weight": Normal(0.05)}, 0.0,
    ),
}  # fmt: skip


OPEN: dict[str, str] = {}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.xfail(strict=True, reason=OPEN[n]) if n in OPEN else ()) for n in CASES]
)
def test_contraction(name):
    build, batch, laws, slack = CASES[name]
    assert compared(build(), batch, laws).misses(slack) == []


# --- embeddings -----------------------------------------------------------------------------------------------------


def looked_up(ids: Any):
    """The mean over positions sees how often an id repeats."""
    net = Made(lambda m, i: nn.functional.embedding(i, m.table).mean(1), table=(50, N))
    return compared(net, ids, {"table": Normal(0.5)}).misses()


def test_uniform_ids():
    assert looked_up(torch.randint(0, 50, (6, 12), generator=torch.Generator().manual_seed(0))) == []


def test_repeated_ids():
    assert looked_up(torch.tensor([[3] * 8 + [7] * 4] * 4)) == []


def test_one_id_everywhere():
    assert looked_up(torch.zeros(4, 12, dtype=torch.int64)) == []


def test_the_same_rows_twice_add_in_the_amplitude():
    ids = torch.arange(12).reshape(2, 6)
    look = nn.functional.embedding
    net = Made(lambda m, i: (look(i, m.table) + look(i.clone(), m.table)) + look(i + 1, m.table), table=(50, N))
    assert compared(net, ids, {"table": Normal(0.5)}).misses() == []


def test_repeated_ids_taken_for_different_ones_are_missed():
    """A control: the prediction of uniform ids, the networks on repeated ones."""
    from dataclasses import replace

    net = lambda: Made(lambda m, i: nn.functional.embedding(i, m.table).mean(1), table=(50, N))  # noqa: E731
    same = compared(net(), torch.tensor([[3] * 8 + [7] * 4] * 4), {"table": Normal(0.5)})
    other = compared(net(), torch.randint(0, 50, (4, 12)), {"table": Normal(0.5)}, networks=2)
    assert replace(same, predicted=other.predicted).misses()
