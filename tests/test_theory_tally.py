"""Rows added up at known places, several at one: messages to nodes of a graph, words of a bag."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import fanin  # noqa: E402
from fanin.theory.rules import tally  # noqa: E402

NODES, EDGES, WIDTH, NETWORKS = 40, 160, 96, 120
GENERATOR = torch.Generator().manual_seed(3)
FROM, TO = (torch.randint(0, NODES, (EDGES,), generator=GENERATOR) for _ in range(2))
X = torch.randn(NODES, 24, generator=GENERATOR)
WORDS = torch.randint(0, 300, (64, 9), generator=GENERATOR)


class Messages(nn.Module):
    """Each node gets the sum (or the mean) of its neighbours."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.one, self.two = how, nn.Linear(24, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x, source, target):
        h = torch.relu(self.one(x))
        sent, wide = h[source], target[:, None].expand(-1, WIDTH)
        if self.how == "index_add":
            got = torch.zeros_like(h).index_add(0, target, sent)
        elif self.how == "scatter_add":
            got = torch.zeros_like(h).scatter_add(0, wide, sent)
        else:
            got = torch.zeros_like(h).scatter_reduce(0, wide, sent, self.how, include_self=self.how == "sum")
        return self.two(h + got if self.how == "scatter_add" else got)


class Bag(nn.Module):
    """Sums and means of rows of a table."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.one, self.two = nn.EmbeddingBag(300, WIDTH, mode=mode), nn.Linear(WIDTH, WIDTH)

    def forward(self, words):
        return self.two(self.one(words))


class Ragged(nn.Module):
    """Bags of one, no and many words."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.EmbeddingBag(300, WIDTH, mode="sum")

    def forward(self, words, starts):
        return self.one(words, starts)


GRAPH = (X, FROM, TO)
CASES = {
    **{how: (lambda how=how: Messages(how), GRAPH) for how in ("index_add", "scatter_add", "sum", "mean")},
    "bag of a sum": (lambda: Bag("sum"), (WORDS,)),
    "bag of a mean": (lambda: Bag("mean"), (WORDS,)),
    "ragged": (Ragged, (WORDS.ravel(), torch.tensor([0, 1, 1, 30, 200, 201]))),
}
HELD = {"scatter_add": 0.25}
"""Left of the square: gradients of a node and of those that it sends to have something in common (docs/accuracy.md)."""


def measured(case: str) -> dict[str, tuple[float, float]]:
    make, batch = CASES[case]
    found: dict[str, list[float]] = {}
    for seed in range(NETWORKS):
        torch.manual_seed(seed)
        net = make()
        out = net(*batch)
        out.backward(torch.randn_like(out))
        found.setdefault("out", []).append(float(out.detach().square().mean()))
        found.setdefault("weight", []).append(float(net.one.weight.grad.square().mean()))
    return {k: (float(np.mean(v)), float(np.std(v) / len(v) ** 0.5)) for k, v in found.items()}


@pytest.mark.parametrize("case", CASES)
def test_sums_at_known_places(case):
    make, batch = CASES[case]
    torch.manual_seed(0)
    told, drawn = fanin.predict(make(), batch), measured(case)
    square, deviation = drawn["out"]
    assert abs((told.rows[-1].rms or 0.0) ** 2 - square) < 4 * deviation + 0.02 * square, (
        told.rows[-1].rms,
        square**0.5,
    )
    wanted = told.parameters["one.weight"]["grad_rms"] ** 2
    square, deviation = drawn["weight"]
    assert abs(wanted - square) < 4 * deviation + HELD.get(case, 0.06) * square, (wanted, square)


def test_a_control_of_rows_that_come_to_one_place_as_one_row(monkeypatch):
    """Every place a row of its own, as a write is: four messages would be one."""
    plain = tally.sums

    def once(v, where, shape, axes):
        first = np.unique(where.to, return_index=True)[1]
        spread = tally.Tally(np.arange(len(where.to)) % where.count, where.axis, where.count)
        return plain(v, spread if len(first) else where, shape, axes)

    monkeypatch.setattr(tally, "sums", once)
    torch.manual_seed(0)
    told, (square, deviation) = fanin.predict(*_ragged()), measured("ragged")["out"]
    assert abs((told.rows[-1].rms or 0.0) ** 2 - square) > 20 * deviation


def _ragged():
    make, batch = CASES["ragged"]
    return make(), batch


def test_places_of_single_elements_are_said_to_be_unmodelled():
    """Several numbers at one place where rows do not go whole."""

    class Elements(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(24, 24)

        def forward(self, x, to):
            return torch.zeros(10, 24).scatter_add(0, to, self.one(x))

    told = fanin.predict(Elements(), (X, torch.randint(0, 10, (NODES, 24), generator=GENERATOR)))
    assert told.rows[-1].rms is None and "several numbers" in told.rows[-1].note
