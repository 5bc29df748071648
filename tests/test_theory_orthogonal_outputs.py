"""In front of batch norm a gradient is orthogonal to what a layer makes: weights, and gains before it, hear less."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from test_theory_adjoint import Errors, hold  # noqa: E402
from torch import nn  # noqa: E402

import fanin  # noqa: E402
from fanin.theory.adjoint import joining, linear, places  # noqa: E402


def layer(inputs: int, outputs: int, kernel: int = 1, groups: int = 1, eps: float = 1e-5) -> list[nn.Module]:
    """A convolution, whose weights are of exactly the size that predictions read off them, and its batch norm."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    with torch.no_grad():
        w = conv.weight.normal_()
        w.sub_(w.mean()).mul_((groups / inputs) ** 0.5 / kernel / w.std())
    return [conv, nn.BatchNorm2d(outputs, eps=eps)]


def bottleneck() -> nn.Module:
    """Twelve features, of which every two agree by chance, in front of forty, and a depthwise kernel behind them."""
    return nn.Sequential(
        *layer(3, 24, 3), nn.ReLU(), *layer(24, 12), *layer(12, 40), nn.ReLU(), *layer(40, 40, 3, 40), nn.ReLU()
    )


NAMES = ("5.weight", "4.weight", "3.weight", "6.weight", "8.weight")


def of(names: tuple[str, ...], make=bottleneck, nets: int = 200) -> Errors:
    """Predicted over measured, less one, and its standard error over networks, of these parameters' gradients."""
    torch.manual_seed(1234)
    batch, squares = torch.randn(4, 3, 12, 12), {n: [] for n in names}
    torch.manual_seed(0)
    said = fanin.predict(make(), batch).parameters
    for seed in range(nets):
        torch.manual_seed(seed)
        net = make()
        out = net(batch)
        out.backward(torch.randn_like(out))
        for n, one in net.named_parameters():
            if n in squares:
                squares[n].append(float(one.grad.double().square().mean()))
    found = {}
    for n, values in squares.items():
        mean, spread = np.mean(values), np.std(values, ddof=1) / np.sqrt(nets)
        found[n] = (said[n]["grad_rms"] / np.sqrt(mean) - 1, float(spread / mean / 2))
    return found


def test_weights_and_gains_in_front_of_batch_norm():
    """Weights of 9 taps or 12 channels are orthogonal to their gradients, and a gain is a part of every output."""
    hold(of(NAMES), slack=0.02)


def test_a_control_whose_outputs_are_not_orthogonal(monkeypatch):
    """As if gradients knew nothing of outputs: gains are a tenth too large, weights of nine taps 4 percent."""
    monkeypatch.setattr(linear, "along_outputs", lambda *_: 0.0)
    monkeypatch.setattr(linear.orthogonal, "behind", lambda *_: None)
    found = of(("4.weight", "8.weight"))
    for name, error in found.items():
        with pytest.raises(AssertionError):
            hold({name: error}, slack=0.02)


class Three(nn.Module):
    """A batch norm, and three depthwise kernels that read it, each with a norm whose eps counts."""

    def __init__(self, eps: float = 0.1, channels: int = 48):
        super().__init__()
        self.first = nn.Sequential(*layer(3, channels, 3))
        self.three = nn.ModuleList(nn.Sequential(*layer(channels, channels, 3, channels, eps)) for _ in range(3))

    def forward(self, x):
        x = self.first(x)
        return torch.cat([one(x) for one in self.three], 1)


def test_gains_in_front_of_several_depthwise_kernels():
    """Each part is orthogonal to its channels, and so is their sum, but for eps."""
    hold(of(("first.1.weight",), Three, 100), slack=0.02)


def test_a_control_that_forgets_it_where_parts_meet(monkeypatch):
    monkeypatch.setattr(joining.orthogonal, "merged", lambda *_: None)
    with pytest.raises(AssertionError):
        hold(of(("first.1.weight",), Three, 20), slack=0.02)


def test_what_eps_leaves_is_of_the_sum_of_g_and_x():
    """``eps E[g x^]/(s^2 + eps)`` whatever the kernels' own gradient is: its mean square has no part in it."""

    def make():
        return nn.Sequential(*layer(3, 24, 3), nn.ReLU(), *layer(24, 24, 3, 24), nn.ReLU(), *layer(24, 24))

    hold(of(("1.weight",), make), slack=0.02)


def test_a_control_that_takes_it_from_the_gradient(monkeypatch):
    kept = linear.orthogonal.behind

    def of_the_gradient(g, x, sent, channels, n):
        known = kept(g, x, sent, channels, n)
        (d,) = {p.divided for p in g.parts}
        if known is None or not known.left:
            return known
        return replace(known, left=linear.orthogonal._left(d.variance, d.eps, d.freedom))

    monkeypatch.setattr(linear.orthogonal, "behind", of_the_gradient)

    def make():
        return nn.Sequential(*layer(3, 24, 3), nn.ReLU(), *layer(24, 24, 3, 24), nn.ReLU(), *layer(24, 24))

    with pytest.raises(AssertionError):
        hold(of(("1.weight",), make), slack=0.02)


class Split(nn.Module):
    """Channels of two kernels, joined, normalized, and split again for two depthwise kernels (MixNet)."""

    def __init__(self, channels: int = 48):
        super().__init__()
        half = channels // 2
        self.stem = nn.Sequential(*layer(3, 16, 3), nn.ReLU())
        self.wide = nn.ModuleList(layer(16, half)[0] for _ in range(2))
        self.norm = nn.BatchNorm2d(channels)
        self.deep = nn.ModuleList(layer(half, half, k, half)[0] for k in (3, 5))
        self.last = nn.Sequential(nn.BatchNorm2d(channels), nn.SiLU())

    def forward(self, x):
        x = self.stem(x)
        x = nn.functional.silu(self.norm(torch.cat([one(x) for one in self.wide], 1)))
        return self.last(torch.cat([one(y) for one, y in zip(self.deep, x.chunk(2, 1), strict=True)], 1))


def test_gains_in_front_of_a_split():
    """What each piece is orthogonal to is kept where the pieces come together again."""
    hold(of(("norm.weight", "norm.bias"), Split, 100), slack=0.03)


def test_a_control_that_forgets_it_where_pieces_meet(monkeypatch):
    cut = places.BACK["slice"]
    monkeypatch.setitem(places.BACK, "slice", lambda *args: replace(cut(*args), orthogonal=None))
    found = of(("norm.weight",), Split, 100)
    with pytest.raises(AssertionError):
        hold(found, slack=0.03)


class Head(nn.Module):
    """A layer behind which every place of a sample hears one number: a batch norm, a ReLU, a mean over the map."""

    def __init__(self, inputs: int = 32, outputs: int = 64):
        super().__init__()
        self.stem = nn.Sequential(*layer(3, 16, 3), nn.ReLU(), *layer(16, inputs), nn.ReLU())
        self.last = nn.Sequential(*layer(inputs, outputs), nn.ReLU())
        self.fc = nn.Linear(outputs, 10)

    def forward(self, x):
        return self.fc(self.last(self.stem(x)).mean((2, 3)))


def test_weights_whose_places_hear_one_number():
    """Places that agree by chance are open together: what is along the output by that is taken, and no more."""
    hold(of(("last.0.weight", "stem.3.weight", "stem.0.weight"), Head, 100), slack=0.04)


def test_a_control_that_takes_what_was_not_there(monkeypatch):
    """What sums over places have along the output by chance was not in ``paired``: more is taken than there is."""
    monkeypatch.setattr("fanin.theory.adjoint.coherent.met", lambda *_: 0.0)
    monkeypatch.setattr(linear, "_across", lambda total, *of: max(total - linear.along_outputs(*of), 0.0))
    with pytest.raises(AssertionError):
        hold(of(("last.0.weight",), Head, 20), slack=0.04)
