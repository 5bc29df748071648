"""Identity branches through a batch norm: where a ReLU was open, the next is likelier to be, too."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from test_theory_adjoint import errors, hold  # noqa: E402
from torch import nn  # noqa: E402

from fanin.theory.adjoint import norm  # noqa: E402

C = 64


class Branches(nn.Module):
    """A block of RepVGG: the input, a 1 x 1 and a 3 x 3 convolution, each with its batch norm."""

    def __init__(self):
        super().__init__()
        self.same = nn.BatchNorm2d(C)
        self.narrow = nn.Sequential(nn.Conv2d(C, C, 1, bias=False), nn.BatchNorm2d(C))
        self.wide = nn.Sequential(nn.Conv2d(C, C, 3, padding=1, bias=False), nn.BatchNorm2d(C))

    def forward(self, x):
        return torch.relu(self.same(x) + self.narrow(x) + self.wide(x))


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(16, C, 1), Branches(), Branches(), Branches())


def test_identity_branches_through_batch_norm():
    torch.manual_seed(1234)
    found = errors(net, torch.randn(4, 16, 12, 12), 6)
    hold({name: error for name, error in found.items() if not name.startswith("0")}, slack=0.05)
    assert abs(found["1/add"][0] - found["1.same"][0]) < 1e-6  # a sum sends all its summands the same


def test_a_control_whose_norms_forget_where_inputs_were_open(monkeypatch):
    monkeypatch.setattr(norm.opened, "followed", lambda part, *_: part)
    torch.manual_seed(1234)
    found = errors(net, torch.randn(4, 16, 12, 12), 6)
    with pytest.raises(AssertionError):
        hold({name: found[name] for name in ("1", "1/add", "1.same")}, slack=0.05)
