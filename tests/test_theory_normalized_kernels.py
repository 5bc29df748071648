"""Batch norm behind few weights: a channel of large weights is divided by more, unless eps is what counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from networks import Networks  # noqa: E402
from test_theory_adjoint import errors, hold  # noqa: E402
from torch import nn  # noqa: E402

import fanin  # noqa: E402
from fanin.theory.adjoint import linear  # noqa: E402
from fanin.theory.statistic import mean_inverse  # noqa: E402

C = 96


def few_taps(eps: float, groups: int = C, kernel: int = 3) -> nn.Module:
    """A layer, a convolution of few inputs an output, its batch norm: all without borders."""
    narrow = nn.Conv2d(C, C, kernel, groups=groups, bias=False)
    nn.init.normal_(narrow.weight, 0, (C / groups * kernel**2) ** -0.5)
    return nn.Sequential(nn.Conv2d(C, C, 1, bias=False), nn.ReLU(), narrow, nn.BatchNorm2d(C, eps=eps), nn.ReLU())


CASES = {
    "depthwise, eps beside the variance": (1.0, C),
    "depthwise, small eps": (1e-5, C),
    "two inputs a group": (0.3, C // 2),
}


@pytest.mark.parametrize(("eps", "groups"), CASES.values(), ids=CASES)
def test_gradients_behind_few_weights(eps, groups):
    torch.manual_seed(1234)
    hold(errors(lambda: few_taps(eps, groups), torch.randn(4, C, 9, 9), 12), slack=0.03)


def test_a_control_without_eps(monkeypatch):
    """As if no eps were added: what few weights take away is then a fifth of the squared gradient too much."""
    regressed = linear.own_deviation

    def unheld(g, n, weight):
        parts = [replace(p, divided=p.divided and replace(p.divided, eps=1e-9)) for p in g.parts]
        return regressed(replace(g, parts=tuple(parts)), n, weight)

    monkeypatch.setattr(linear, "own_deviation", unheld)
    torch.manual_seed(1234)
    with pytest.raises(AssertionError):
        hold(errors(lambda: few_taps(1.0), torch.randn(4, C, 9, 9), 12), slack=0.03)


@pytest.mark.parametrize("gain", [0.0, 2.0])
def test_gains_in_evaluation_mode_and_gains_of_zero(gain):
    """Not normalized, x^ is as large as it is; and behind a gain of zero it is still there."""

    def make() -> nn.Module:
        net = few_taps(1e-5, groups=2)[:4]
        nn.init.constant_(net[3].weight, gain)
        nn.init.normal_(net[0].weight, 0, 3.0 * C**-0.5)
        return net

    for train in (True, False):
        torch.manual_seed(1234)
        found = errors(make, torch.randn(4, C, 9, 9), 12, train=train)
        hold({"3.weight": found["3.weight"]}, slack=0.04)


@pytest.mark.parametrize(("n", "eps"), [(9, 0.3), (9, 2.0), (36, 1.0)])
def test_weights_over_their_own_deviation(n, eps):
    """The mean over inputs of E[w_i^2 / (w C w + eps)] by drawing w."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((n, 8 * n))
    c = a @ a.T / (8 * n)
    w = rng.standard_normal((400_000, n)) / np.sqrt(n)
    drawn = (w**2).sum(1) / (np.einsum("ki,ij,kj->k", w, c, w) + eps)
    v, f = np.trace(c) / n, np.trace(c) ** 2 / np.trace(c @ c)
    said = mean_inverse(v, eps, f)
    share = 1 - f / n * (1 - mean_inverse(v * (1 + 2 / f), eps, f + 2) / said)
    assert abs(share * said / drawn.mean() - 1) < 4 * drawn.std() / drawn.mean() / np.sqrt(len(drawn)) + 0.01


def gained(padding: int) -> nn.Module:
    """A gain in front of a depthwise convolution and its batch norm, which undoes it but for eps."""
    kernel = nn.Conv2d(C, C, 3, groups=C, bias=False, padding=padding)
    nn.init.normal_(kernel.weight, 0, 1 / 3)
    return nn.Sequential(
        nn.Conv2d(C, C, 1, bias=False), nn.BatchNorm2d(C), nn.ReLU(), kernel, nn.BatchNorm2d(C, eps=0.3), nn.ReLU()
    )


@pytest.mark.parametrize("padding", [0, 1])
def test_gains_and_shifts_before_a_depthwise_convolution(padding):
    torch.manual_seed(1234)
    found = errors(lambda: gained(padding), torch.randn(4, C, 9, 9), 12)
    hold({n: found[n] for n in ("1.weight", "1.bias", "1", "0.weight")})


def test_a_control_whose_gains_are_not_undone(monkeypatch):
    monkeypatch.setattr(linear.orthogonal, "behind", lambda *_: None)
    torch.manual_seed(1234)
    found = errors(lambda: gained(0), torch.randn(4, C, 9, 9), 8)
    with pytest.raises(AssertionError):
        hold({"1.weight": found["1.weight"]})


def inverted(channels: int = 24) -> nn.Module:
    """A stem and two depthwise blocks, whose places differ in size: borders, and borders of borders."""

    def block() -> list[nn.Module]:
        wide = [nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
        deep = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        return [*wide, deep, nn.BatchNorm2d(channels)]

    stem = [nn.Conv2d(3, channels, 3, 2, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
    last = nn.Conv2d(channels, channels, 1, bias=False)
    return nn.Sequential(*stem, *block(), *block(), last, nn.BatchNorm2d(channels), nn.ReLU())


def undone() -> list[float]:
    """Gradients of the gains that depthwise kernels' norms undo, over those of the shifts beside them, as predicted."""
    torch.manual_seed(1234)
    said = fanin.predict(inverted(), torch.randn(4, 3, 16, 16)).parameters
    return [said[f"{i}.weight"]["grad_rms"] / said[f"{i}.bias"]["grad_rms"] for i in (4, 9)]


def test_gains_are_undone_where_places_differ_in_size():
    """ReLU hands a scale on, a kernel of one channel too, and its batch norm divides by it: nothing but eps is left."""
    torch.manual_seed(1234)
    net = inverted()
    measured = fanin.measure(net, torch.randn(4, 3, 16, 16)).parameters
    assert all(measured[f"{i}.weight"]["grad_rms"] < 2e-3 * measured[f"{i}.bias"]["grad_rms"] for i in (4, 9))
    assert max(undone()) < 2e-3


def test_a_control_that_forgets_where_a_gradient_is_large(monkeypatch):
    monkeypatch.setattr(linear.orthogonal, "_weight", lambda part, law: law.level_weight)
    assert max(undone()) > 1e-2


def capped() -> nn.Module:
    """A layer, its batch norm, a ReLU6, a depthwise convolution and its batch norm."""
    deep = nn.Conv2d(C, C, 3, padding=1, groups=C, bias=False)
    head = (nn.Conv2d(16, C, 1, bias=False), nn.BatchNorm2d(C), nn.ReLU6())
    return nn.Sequential(*head, deep, nn.BatchNorm2d(C), nn.ReLU6())


def of_the_gain_before() -> tuple[float, list[float]]:
    """Predicted and, of eight networks, measured, for a batch whose places differ in size."""
    torch.manual_seed(1234)
    batch = torch.randn(4, 16, 14, 14)
    name = "1.weight"
    networks = Networks(batch)
    measured = [networks.measure(capped()).parameters[name]["grad_rms"] for _ in range(8)]
    return fanin.predict(capped(), batch).parameters[name]["grad_rms"], measured


def test_what_no_element_of_the_tensor_reaches_leaves_a_gain_no_gradient():
    """The mean over networks is that of the one in many that has an element beyond six: ten times all others'."""
    said, measured = of_the_gain_before()
    assert abs(said / np.median(measured) - 1) < 0.3


def test_a_control_that_counts_on_elements_that_are_not_there(monkeypatch):
    monkeypatch.setattr("fanin.theory.adjoint.orthogonal._largest", lambda law: np.inf)
    said, measured = of_the_gain_before()
    assert said > 5 * np.median(measured)


class Narrowed(nn.Module):
    """A batch norm with a shift, a skip over a branch, and what reads the sum: a convolution and its batch norm."""

    def __init__(self, kernel: int):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(16, 32, 1, bias=False), nn.BatchNorm2d(32))
        self.branch = nn.Sequential(nn.Conv2d(32, 32, 1, bias=False), nn.BatchNorm2d(32), nn.SiLU())
        self.back = nn.Sequential(nn.Conv2d(32, 32, 1, bias=False), nn.BatchNorm2d(32))
        self.last = nn.Sequential(nn.Conv2d(32, C, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(C))

    def forward(self, x):
        x = self.first(x)
        return torch.nn.functional.silu(self.last(x + self.back(self.branch(x)))).mean((2, 3))


@pytest.mark.parametrize(("kernel", "zero"), [(1, True), (3, False)])
def test_a_shift_before_kernels_of_one_tap_has_no_gradient(kernel, zero):
    """Whatever it adds to all places the next batch norm takes away; beyond a border three taps read something else."""
    torch.manual_seed(1234)
    batch = torch.randn(4, 16, 9, 9)
    said, measured = (f(Narrowed(kernel), batch).parameters for f in (fanin.predict, fanin.measure))
    for name in ("first.1.bias", "back.1.bias"):
        size = measured["last.1.bias"]["grad_rms"]
        assert (said[name]["grad_rms"] == 0) == (measured[name]["grad_rms"] < 1e-5 * size) == zero
