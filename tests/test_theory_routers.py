"""Routers on the way back: the largest few weights of a row over their own sum, against measured."""

from __future__ import annotations

import pytest
import torch
from test_theory_adjoint import errors, hold
from torch import nn

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
