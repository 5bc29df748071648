"""Batch norm of what a batch norm made, alone (identity branches) or beside a kernel's: nothing is left along it."""

from __future__ import annotations

import pytest
import torch
from test_theory_adjoint import Errors, errors, hold
from torch import nn

import fanin
from fanin.theory import statistic
from fanin.theory.adjoint import orthogonal

WIDTH = 48


def layer(inputs: int, kernel: int, groups: int = 1, eps: float = 1e-5) -> nn.Sequential:
    """A convolution, whose weights are of exactly the size that predictions read off them, and its batch norm."""
    conv = nn.Conv2d(inputs, WIDTH, kernel, padding=kernel // 2, groups=groups, bias=False)
    with torch.no_grad():
        w = conv.weight.normal_()
        w.sub_(w.mean()).mul_((groups / inputs) ** 0.5 / kernel / w.std())
    return nn.Sequential(conv, nn.BatchNorm2d(WIDTH, eps=eps))


class Branches(nn.Module):
    """A norm's result, of a given gain, normed again, and beside it a depthwise kernel."""

    def __init__(self, gain: float = 1.0, eps: float = 1e-2, beside: bool = False, open_: bool = False):
        super().__init__()
        self.first, self.again, self.last = layer(3, 3), nn.BatchNorm2d(WIDTH, eps=eps), layer(WIDTH, 1)
        self.beside = layer(WIDTH, 3, WIDTH, eps) if beside else None
        self.before = nn.ReLU() if open_ else nn.Identity()
        nn.init.constant_(dict(self.first.named_parameters())["1.weight"], gain)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, 3, side, side) to (samples, features, side, side)."""
        y = self.before(self.first(x))
        z = self.again(y) if self.beside is None else self.again(y) + self.beside(y)
        return self.last(z.relu())


def batch() -> torch.Tensor:
    return torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(5))


def of(names: tuple[str, ...], nets: int = 30, **kind) -> Errors:
    found = errors(lambda: Branches(**kind), batch(), nets)
    return {n: found[n] for n in names}


def said(name: str, **kind) -> float:
    torch.manual_seed(0)
    return fanin.predict(Branches(**kind), batch()).parameters[name]["grad_rms"]


@pytest.mark.parametrize("gain", [1.0, 0.3])
def test_a_gain_before_a_norm_has_what_eps_leaves(gain):
    """The first norm's result has a variance that does not stray, and the second takes all that is along it."""
    hold(of(("first.0.weight", "first.1.weight", "first.1", "again"), gain=gain), slack=0.015)


def test_beside_a_kernel_whose_norm_undoes_the_gain_as_well():
    """Behind a ReLU, too, both branches are orthogonal to what they read, and so is their sum."""
    kind = {"beside": True, "open_": True, "eps": 1e-5}
    assert said("first.1.weight", **kind) < 1e-3 * said("again.weight", **kind)
    hold(of(("first.0.weight", "first.1.bias"), **kind), slack=0.03)


def test_a_norm_that_forgets_what_it_takes_is_far_off(monkeypatch):
    """A negative control: the gain had a hundred times its gradient."""
    known = said("first.1.weight")
    monkeypatch.setattr(orthogonal, "of_norm", lambda *args: None)
    assert said("first.1.weight") > 50 * known


def test_a_variance_that_strays_would_make_gradients_larger(monkeypatch):
    """A negative control: of 27 patch numbers the mean of the inverse variance is a twelfth larger."""
    known = said("first.0.weight")
    monkeypatch.setattr(statistic, "_settled", lambda x, axes: None)
    assert said("first.0.weight") > 1.02 * known
