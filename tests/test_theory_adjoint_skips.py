"""Skips on the way back: what comes through a norm, and past it, is one gradient twice. Against drawn networks."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from test_theory_adjoint import errors, hold  # noqa: E402
from torch import nn  # noqa: E402

F = torch.nn.functional
N = 64


class Past(nn.Module):
    """A layer whose result is added to itself, normalized."""

    def __init__(self):
        super().__init__()
        self.first, self.between, self.last = (nn.Linear(N, N) for _ in range(3))

    def forward(self, x):
        return self.last(self.joined(self.first(x)))

    def joined(self, y):
        return F.layer_norm(y, (N,)) + y


class Root(Past):
    """An RMS norm of tokens that differ in size."""

    def joined(self, y):
        y = y * torch.linspace(0.3, 2, y.shape[1])[:, None]
        return F.rms_norm(y, (N,)) + y


class Less(Past):
    """A negative gain: what both have in common is taken away."""

    def joined(self, y):
        return F.layer_norm(y, (N,), weight=torch.full((N,), -2.0)) + y


class Bent(Past):
    """A function of both, which follows the signal."""

    def joined(self, y):
        return (F.layer_norm(y, (N,)) + y).relu()


class Partly(Past):
    """A function that is partly linear behind the norm."""

    def joined(self, y):
        return y + F.gelu(F.layer_norm(y, (N,)))


class Mixed(Past):
    """A control: fresh weights behind the norm, whose gradients have nothing in common with the skip's."""

    def joined(self, y):
        return y + self.between(F.layer_norm(y, (N,)))


def tokens():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 12, N, generator=generator) + torch.randn(4, 1, N, generator=generator)


@pytest.mark.parametrize("net", [Past, Root, Less, Bent, Partly, Mixed])
def test_a_skip_over_a_norm(net):
    hold(errors(net, tokens(), 12))


@pytest.mark.parametrize("net", [Past, Root, Less, Bent, Partly])
def test_without_what_both_have_in_common_it_is_seen(net, monkeypatch):
    """A control: the two added as independent ones are off by far more than the tolerance."""
    from fanin.theory.adjoint import norm

    monkeypatch.setattr(norm, "_on_its_base", lambda *_: None)
    error, spread = errors(net, tokens(), 12)["first"]
    assert abs(error) > max(0.15, 10 * spread)


class Added(Past):
    """What a block adds to its input, as its result less its input."""

    def joined(self, y):
        return y + self.between(y.relu()) - y


class Double(Past):
    """Twice the result, less the input: most of what goes back to the input cancels."""

    def joined(self, y):
        return 2 * (y + self.between(y.relu())) - y


@pytest.mark.parametrize("net", [Added, Double])
def test_what_is_taken_away_again(net):
    hold(errors(net, tokens(), 12))


@pytest.mark.parametrize(("net", "least"), [(Added, 2), (Double, 0.5)])
def test_without_its_sign_it_is_seen(net, least, monkeypatch):
    """A control: both added with one sign."""
    from fanin.theory.adjoint import binary

    monkeypatch.setattr(binary, "_signed", lambda part, *_: part)
    assert errors(net, tokens(), 4)["first"][0] > least
