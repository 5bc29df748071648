"""Routers on the way back: the largest few weights of a row over their own sum, against measured."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_theory_adjoint import errors, hold
from torch import nn

import fanin
from fanin.theory.rules import route

WIDTH = 128


class Router(nn.Module):
    """Weights of the k largest of n experts, with a scale of the logits."""

    def __init__(self, n: int, k: int, std: float, *, own: bool = True):
        super().__init__()
        self.k, self.own = k, own
        self.gate = nn.Linear(WIDTH, n, bias=False)
        nn.init.normal_(self.gate.weight, std=std * WIDTH**-0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(tokens, width) to (tokens, k)."""
        best = torch.topk(torch.softmax(self.gate(x), -1), self.k, -1).values
        return best / best.sum(-1, keepdim=True) if self.own else best


@pytest.mark.parametrize(("n", "k"), [(8, 2), (32, 4)])
def test_weights_over_their_own_sum_take_back_what_they_have_in_common(n: int, k: int) -> None:
    """Of two weights near one half each hears half of the difference: taken as independent, 1.7 times as much."""
    torch.manual_seed(1234)
    hold(errors(lambda: Router(n, k, 0.3), torch.randn(64, WIDTH), 20), slack=0.04)


def test_the_largest_weights_have_the_gradient() -> None:
    torch.manual_seed(1234)
    hold(errors(lambda: Router(8, 2, 0.3, own=False), torch.randn(64, WIDTH), 20), slack=0.04)


def test_a_sum_that_is_divided_by_by_itself_is_missed() -> None:
    """A control: another row's sum would leave both weights their whole gradient."""

    class Another(Router):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            best = torch.topk(torch.softmax(self.gate(x), -1), self.k, -1).values
            return best / best.roll(1, 0).sum(-1, keepdim=True)

    torch.manual_seed(1234)
    batch = torch.randn(64, WIDTH)
    own, other = (errors(lambda kind=kind: kind(8, 2, 0.3), batch, 5) for kind in (Router, Another))
    with pytest.raises(AssertionError):
        hold({"/topk": (1.7 * (1 + own["/topk"][0]) - 1, own["/topk"][1])}, slack=0.04)
    assert abs(other["/topk"][0]) < 0.2


@pytest.mark.parametrize("std", [0.3, 4.0], ids=lambda s: f"logits of std {s}")
def test_a_row_that_has_chosen_does_not_turn(std: float) -> None:
    """The largest weight of a row by itself: a (1 - a) is small where a is near one."""

    class Largest(Router):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.softmax(self.gate(x), -1).max(-1).values

    torch.manual_seed(1234)
    found = errors(lambda: Largest(8, 1, std), torch.randn(64, WIDTH), 20)
    hold({name: e for name, e in found.items() if name in ("gate", "gate.weight")}, slack=0.15)


class Experts(nn.Module):
    """Every token through the expert of its largest score, one expert after another, each adding its rows."""

    def __init__(self, count: int = 4):
        super().__init__()
        self.gate = nn.Linear(WIDTH, count, bias=False)
        self.experts = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(count))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(tokens, width) to the same."""
        chosen = self.gate(x).argmax(-1)
        out = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            (rows,) = torch.where(chosen == i)
            out.index_add_(0, rows, expert(x[rows]))
        return out


def test_rows_added_where_weights_decide_make_up_the_whole() -> None:
    torch.manual_seed(1234)
    found = errors(Experts, torch.randn(256, WIDTH), 8)
    hold({name: e for name, e in found.items() if "/index_add" in name or name.endswith("weight")}, slack=0.1)
    said = fanin.predict(Experts(), torch.randn(256, WIDTH))
    assert all(row.rms is not None for row in said.rows)
    assert list(said.rows)[-1].rms == pytest.approx(3**-0.5, rel=0.03)


def test_groups_that_a_router_rules_out_leave_the_others() -> None:
    class Groups(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate = nn.Linear(WIDTH, 8, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scores = self.gate(x).sigmoid()
            best = scores.view(-1, 2, 4).topk(2, -1).values.sum(-1).topk(1, -1).indices
            kept = torch.zeros(len(x), 2).scatter(1, best, 1.0).unsqueeze(-1).expand(-1, 2, 4).reshape(-1, 8)
            index = scores.masked_fill(~kept.bool(), float("-inf")).topk(2, -1).indices
            return scores.gather(1, index)

    said = fanin.predict(Groups(), torch.randn(64, WIDTH))
    assert all(row.rms is not None for row in said.rows)


def test_a_decay_is_no_gain() -> None:
    """exp of a sum over prefixes of what is negative stays below one, as the sum is negative."""

    class Decay(nn.Module):
        def __init__(self):
            super().__init__()
            self.rate = nn.Linear(WIDTH, WIDTH, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.exp(torch.cumsum(-nn.functional.softplus(self.rate(x)), 1))

    said = fanin.predict(Decay(), torch.randn(4, 32, WIDTH))["/exp"].rms
    measured = torch.stack([Decay()(torch.randn(4, 32, WIDTH)).square().mean() for _ in range(8)]).mean().sqrt()
    assert said == pytest.approx(float(measured), rel=0.1)


@pytest.mark.parametrize(("n", "k", "r"), [(4, 2, 0.5), (8, 2, 0.7), (64, 8, 0.3)])
def test_tokens_that_are_alike_meet_at_experts(n: int, k: int, r: float) -> None:
    """Of drawn scores the k largest; a threshold stands for them, which is right to a quarter of what chance misses."""
    draw = np.random.default_rng(0).normal
    common = draw(size=(20_000, n))
    one, other = (np.argsort(-(r**0.5 * common + (1 - r) ** 0.5 * draw(size=common.shape)))[:, :k] for _ in (0, 1))
    drawn = (one[:, :, None] == other[:, None]).sum((1, 2)).mean() / k**2
    said = n * route._both_beyond(k / n, r) / k**2
    assert abs(said - drawn) < abs(1 / n - drawn) / 4
    assert n * route._both_beyond(k / n, 0.0) / k**2 == pytest.approx(1 / n)


def test_one_number_added_at_places_that_weights_choose() -> None:
    """A number for all of them has no rows that could be counted."""

    class Marked(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate, self.number = nn.Linear(WIDTH, 1, bias=False), nn.Parameter(torch.tensor(0.5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            order = self.gate(x).squeeze(-1).argsort()[: len(x) // 2]
            return torch.zeros(len(x), WIDTH).index_put((order,), self.number, accumulate=True) + x

    torch.manual_seed(1234)
    said = fanin.predict(Marked(), torch.randn(64, WIDTH))
    assert list(said.rows)[-1].rms is not None
