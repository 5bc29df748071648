"""Attention without a softmax over pairs: keys that have a mean store the same values in all rows of their state."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import Networks
from torch import nn

import fanin

WIDTH, TOKENS, NETWORKS = 64, 32, 12


class Linear(nn.Module):
    """``phi(q) (phi(k)^T v)``, divided by ``phi(q) . sum phi(k)`` or not."""

    def __init__(self, phi, divided: bool):
        super().__init__()
        self.phi, self.divided = phi, divided
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))
        self.out = nn.Linear(WIDTH, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k = self.phi(self.q(x)), self.phi(self.k(x))
        y = q @ (k.transpose(1, 2) @ self.v(x))
        return self.out(y / (q @ k.sum(1)[..., None]) if self.divided else y)


class Efficient(Linear):
    """Queries weighed over features, keys over places (Shen et al. 2018), written as contractions."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k = self.q(x).softmax(-1), self.k(x).softmax(1)
        return self.out(torch.einsum("btc,bcd->btd", q, torch.einsum("btc,btd->bcd", k, self.v(x))))


class Pointwise(Linear):
    """A function of every logit in place of a softmax."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = self.phi(self.q(x) @ self.k(x).transpose(1, 2) * WIDTH**-0.5) / TOKENS
        return self.out(rows @ self.v(x))


def elu(x: torch.Tensor) -> torch.Tensor:
    return F.elu(x) + 1


def squares(make) -> tuple[fanin.Signals, dict[str, list[float]], dict[str, list[float]]]:
    batch = torch.randn(4, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))
    said, forward, back = None, {}, {}
    networks = Networks(batch)
    for seed in range(NETWORKS):
        torch.manual_seed(seed)
        model = make()
        said = fanin.predict(model, batch) if said is None else said
        for row in networks.measure(model, seed=seed).rows:
            forward.setdefault(row.name, []).append(row.rms**2)
            if row.grad_rms is not None:
                back.setdefault(row.name, []).append(row.grad_rms**2)
    assert said is not None
    return said, forward, back


def held(said: float, found: list[float], slack: float) -> bool:
    mean, error = np.mean(found), np.std(found, ddof=1) / len(found) ** 0.5
    return abs(said / mean**0.5 - 1) < 4 * error / mean / 2 + slack


MAKES = {
    "relu": lambda: Linear(F.relu, False),
    "elu": lambda: Linear(elu, False),
    "divided": lambda: Linear(elu, True),
    "efficient": lambda: Efficient(elu, False),
}


@pytest.mark.parametrize("name", MAKES)
def test_rows_of_a_state_have_values_in_common(name: str) -> None:
    """Taken as independent, what queries with a mean read was a quarter to an eighth of what is measured."""
    said, forward, back = squares(MAKES[name])
    for row in said.rows:
        assert held(row.rms, forward[row.name], 0.1), (row.name, row.rms, np.mean(forward[row.name]) ** 0.5)
    assert held(said["v"].grad_rms, back["v"], 0.05)


@pytest.mark.parametrize("phi", [F.relu, lambda x: (x - 3).sigmoid()], ids=["relu", "sigmoid"])
def test_weights_that_are_functions_of_logits_lean_to_values(phi) -> None:
    """By Stein's lemma a sum leans by ``n E[f(z) z]``; taken as independent it was 14 % too small behind a ReLU."""
    said, forward, _ = squares(lambda: Pointwise(phi, False))
    assert held(said["/matmul_1"].rms, forward["/matmul_1"], 0.03)


def test_means_of_keys_count() -> None:
    """A control: from keys with a mean, queries read five times as much of a state of the same size."""
    batch = torch.randn(4, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))
    read = {}
    for name, phi in (("mean", elu), ("none", lambda x: x)):
        torch.manual_seed(0)
        said = fanin.predict(Linear(phi, False), batch)
        read[name] = said["/matmul_1"].rms / said["/matmul"].rms / said["q"].rms
    assert read["mean"] > 5 * read["none"]
