"""Loops written by hand over the same weights: gradients of all steps, and of what the steps share."""

from __future__ import annotations

from math import comb

import pytest
import torch
from test_theory_adjoint import errors, hold
from torch import nn

import fanin
from fanin.theory.adjoint.shared import Uses

STEPS = 6


class Linear(nn.Module):
    """``h = a h + W h``, STEPS times; all states are put out where ``every``."""

    def __init__(self, decay: float = 0.5, scale: float = 0.5, every: bool = False, width: int = 64):
        super().__init__()
        self.stem, self.again, self.out = (nn.Linear(width, width, bias=False) for _ in range(3))
        nn.init.normal_(self.again.weight, 0, scale * width**-0.5)
        nn.init.normal_(self.out.weight, 0, width**-0.5)
        self.decay, self.every = decay, every

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, width) to (samples, width), or (samples, STEPS, width)."""
        h, found = self.stem(x), []
        for _ in range(STEPS):
            h = self.decay * h + self.again(h)
            found.append(h)
        return self.out(torch.stack(found, 1) if self.every else h)


def power(k: int, decay: float = 0.5, scale: float = 0.5) -> float:
    """``E |(a + W)^k g|^2 / |g|^2``: powers of one matrix W are orthogonal, those of a matrix and its own are not."""
    return sum(comb(k, j) ** 2 * decay ** (2 * (k - j)) * scale ** (2 * j) for j in range(k + 1))


@pytest.mark.parametrize("every", [False, True])
def test_powers_of_a_matrix_that_every_step_reads(every: bool) -> None:
    torch.manual_seed(0)
    model = Linear(every=every)
    found = fanin.predict(model, torch.randn(16, 64))
    scale, last = (64 * w.weight.detach().square().mean().item() for w in (model.again, model.out))
    wanted = last * sum(power(k, scale=scale**0.5) for k in (range(1, STEPS + 1) if every else (STEPS,)))
    assert float(found["stem"].grad_rms or 0) ** 2 == pytest.approx(wanted, rel=0.01)
    assert power(STEPS) > 1.4 * 0.5**STEPS  # a control: what STEPS independent matrices make


class Gated(nn.Module):
    """A gated unit: ``h = z h + (1 - z) tanh(..)``, with a gate of its input and of the state."""

    def __init__(self, width: int = 64, every: bool = False):
        super().__init__()
        self.x, self.h = nn.Linear(32, 2 * width), nn.Linear(width, 2 * width)
        self.out, self.width, self.every = nn.Linear(width, 10), width, every

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, steps, 32) to (samples, 10), or (samples, steps, 10)."""
        h, found = x.new_zeros(len(x), self.width), []
        for t in range(x.shape[1]):
            gate, new = (self.x(x[:, t]) + self.h(h)).chunk(2, -1)
            z = torch.sigmoid(gate)
            h = z * h + (1 - z) * torch.tanh(new)
            found.append(h)
        return self.out(torch.stack(found, 1) if self.every else h)


@pytest.mark.parametrize("every", [False, True])
def test_gates_hand_on_what_steps_have_in_common(every: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    batch = torch.randn(16, STEPS, 32)
    make = lambda: Gated(every=every)  # noqa: E731
    told = lambda found: {n: e for n, e in found.items() if n.startswith(("h", "x.", "/tanh"))}  # noqa: E731
    hold(told(errors(make, batch, 16)), slack=0.05)
    monkeypatch.setattr(Uses, "_factor", lambda self, origin: (0.0, 0.0))
    with pytest.raises(AssertionError):
        hold(told(errors(make, batch, 16)), slack=0.05)


def test_parts_that_have_met_add_no_more_on_their_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """A control: met again at each tensor that they pass side by side, gradients grow beyond all that is there."""
    torch.manual_seed(0)
    model, batch = Linear(every=True), torch.randn(16, 64)
    alone = Uses._crossed
    monkeypatch.setattr(Uses, "_crossed", lambda self, parts, sizes, law, new=False: alone(self, parts, sizes, law))
    found = fanin.predict(model, batch)
    assert float(found["stem"].grad_rms or 0) ** 2 > 1.1 * sum(power(k) for k in range(1, STEPS + 1))
