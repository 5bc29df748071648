"""Gradients that all but cancel in sums over places: class tokens beside maps, norms, samples of unlike gradients."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from test_theory_adjoint import Errors, errors, hold
from torch import nn

import fanin
from fanin.theory.adjoint import norm, rows, sequence

WIDTH, SIDE, SAMPLES = 64, 8, 4


class Kernel(nn.Module):
    """A depthwise convolution, its batch norm, and the map as tokens."""

    def __init__(self, stride: int):
        super().__init__()
        self.conv = nn.Conv2d(WIDTH, WIDTH, 3, stride, 1, groups=WIDTH, bias=False)
        self.norm = nn.BatchNorm2d(WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, features, side, side) to (samples, tokens, features)."""
        return self.norm(self.conv(x)).flatten(2).transpose(1, 2)


class Convolved(nn.Module):
    """Attention whose queries, keys and values are read off a normalized map, with or without a token beside it."""

    def __init__(self, token: bool = False, mean: bool = False):
        super().__init__()
        self.inner, self.before = nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH)
        self.q, self.k, self.v = Kernel(1), Kernel(2), Kernel(2)
        self.of_q, self.of_k, self.of_v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.mean = mean
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH)) if token else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, tokens, features) of a square map."""
        x = self.inner(x)
        if self.token is not None:
            x = torch.cat((self.token.expand(len(x), -1, -1), x), 1)
        y = self.before(x)
        first, y = y[:, : y.shape[1] - SIDE**2], y[:, -(SIDE**2) :]
        pixels = y.transpose(1, 2).reshape(len(x), WIDTH, SIDE, SIDE)
        q, k, v = self.q(pixels), self.k(pixels), self.v(pixels)
        if self.token is not None:
            q, k, v = (torch.cat((first, one), 1) for one in (q, k, v))
        out = F.scaled_dot_product_attention(self.of_q(q), self.of_k(k), self.of_v(v))
        return out.mean(1) if self.mean else out


def tokens() -> torch.Tensor:
    return torch.randn(SAMPLES, SIDE**2, WIDTH, generator=torch.Generator().manual_seed(5))


def of(names: tuple[str, ...], nets: int = 30, **kind: bool) -> Errors:
    found = errors(lambda: Convolved(**kind), tokens(), nets)
    return {n: found[n] for n in names}


def said(name: str, **kind: bool) -> float:
    torch.manual_seed(0)
    return fanin.predict(Convolved(**kind), tokens()).parameters[name]["grad_rms"]


def test_a_token_beside_a_map_hears_what_the_map_does_not():
    """Kernels' norms leave the gain hardly a gradient but of the token, and shift and keys what the token has less."""
    hold(of(("before.weight", "before.bias", "k.norm.bias"), token=True), slack=0.02)


def test_without_the_token_keys_shift_has_no_gradient_and_the_gain_what_eps_leaves():
    """A control."""
    assert said("k.norm.bias") == 0 and said("k.norm.bias", token=True) > 0.1
    assert said("before.weight") < 1e-3 * said("before.weight", token=True)


def test_what_is_orthogonal_stays_so_in_a_sequence(monkeypatch):
    """A negative control: pairs of a sequence that forget it give the gain twice too much."""
    known = said("before.weight", token=True)
    monkeypatch.setattr(sequence, "taken", lambda part, law: 0.0)
    assert said("before.weight", token=True) > 2 * known


def test_places_of_unlike_size_keep_what_they_have_in_common(monkeypatch):
    """A negative control: as if a ratio to the mean square were a correlation, the shift's gradient is lost."""

    def plain(part, roots, size):
        alike = part.ratio.get(frozenset((sequence.POSITION,)), 0.0)
        return alike + (1 - alike) * np.eye(len(roots))

    known = said("before.bias", token=True)
    monkeypatch.setattr(sequence, "_one_for_all", plain)
    assert said("before.bias", token=True) < 0.5 * known


def test_places_that_hear_alike_in_front_of_a_norm():
    """Behind a mean all places of a sample hear the same; the border's kernels leave the shift a gradient."""
    hold(of(("before.bias", "v.norm.weight", "v.norm.bias"), nets=40, mean=True), slack=0.03)


def test_what_is_along_the_signal_is_met_at_every_place(monkeypatch):
    """A negative control: taken as if places were independent, there is more taken than there was."""
    monkeypatch.setattr(norm, "crossed", lambda *_: lambda s: 0.0)
    assert said("before.bias", mean=True) == 0


class Normed(nn.Module):
    """Attention and a batch norm over all tokens of all samples."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.norm, self.out = nn.BatchNorm1d(WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, tokens, features) to (samples, features)."""
        y = F.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x))
        return self.out(self.norm(y.flatten(0, 1)).view_as(y).mean(1))


def test_values_of_two_samples_have_a_negative_product(monkeypatch):
    """What a norm centres sums to zero over samples; values hear that whole, so their bias has no gradient."""

    def heard() -> float:
        torch.manual_seed(0)
        found = fanin.predict(Normed(), tokens()).parameters
        return found["v.bias"]["grad_rms"] / found["out.bias"]["grad_rms"]

    torch.manual_seed(0)
    net = Normed()
    own, last = torch.autograd.grad(net(tokens()).square().sum(), (net.v.bias, net.out.bias))
    assert own.abs().max() < 1e-3 * last.abs().max()
    assert heard() < 0.05
    monkeypatch.setattr(rows.Rows, "at_one_place", lambda self, own: np.maximum(own, 0))
    assert heard() > 0.5
