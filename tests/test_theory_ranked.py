"""What stands at the places of the largest few is the largest few, as far as both are functions of one score."""

from __future__ import annotations

import pytest
import torch
from test_theory_adjoint import errors, hold
from torch import nn

import fanin

WIDTH, N, K, TOKENS = 128, 8, 2, 256


def largest(scores):
    return scores.sigmoid().gather(-1, (scores.sigmoid() + 1).topk(K, -1).indices)


def of_their_sum(scores):
    best = largest(scores)
    return best / (best.sum(-1, keepdim=True) + 1e-20)


def smallest(scores):
    return scores.sigmoid().gather(-1, (-scores).topk(K, -1).indices)


def sorted_last(scores):
    return scores.exp().gather(-1, scores.sort(-1).indices[..., :N])


READS = {"largest": largest, "of their sum": of_their_sum, "smallest": smallest, "sorted": sorted_last}


class Scores(nn.Module):
    """Scores of experts, of which those that rank first are read."""

    def __init__(self, read):
        super().__init__()
        self.gate, self.read = nn.Linear(WIDTH, N, bias=False), read
        nn.init.normal_(self.gate.weight, std=WIDTH**-0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(tokens, width) to (tokens, experts)."""
        return self.read(self.gate(x))


@pytest.mark.parametrize("read", READS)
def test_what_ranks_first_is_read(read: str) -> None:
    torch.manual_seed(1234)
    hold(errors(lambda: Scores(READS[read]), torch.randn(TOKENS, WIDTH), 20), slack=0.04)


def test_ranks_of_another_tensor_say_nothing() -> None:
    """A control: read at the ranks of other rows, weights are any of the eight."""
    any_of = lambda s: s.sigmoid().gather(-1, s.roll(1, 0).topk(K, -1).indices)  # noqa: E731
    torch.manual_seed(1234)
    batch = torch.randn(TOKENS, WIDTH)
    found = errors(lambda: Scores(any_of), batch, 20)
    hold({name: e for name, e in found.items() if name in ("/gather", "/sigmoid")}, slack=0.04)
    said = [fanin.predict(Scores(read), batch)["/gather"].rms or 0.0 for read in (any_of, largest)]
    assert said[1] > 1.2 * said[0]
