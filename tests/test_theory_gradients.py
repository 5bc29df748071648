"""Figures of the literature on gradients and slopes, from the graph engine on real modules."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from test_theory_numbers import he, meta  # noqa: E402
from torch import nn  # noqa: E402

from fanin.distributions import Constant, Distribution, Normal, Rademacher, TruncatedNormal, Uniform  # noqa: E402
from fanin.frameworks.torch.verbs import read_model  # noqa: E402
from fanin.theory import interpret  # noqa: E402


def rows(net: nn.Module, batch, laws):
    """Predicted rows; ``laws(name, shape)`` gives the law of every parameter."""
    reading = read_model(net, batch)
    return interpret(reading.graph, {n: laws(n, p.shape) for n, p in net.named_parameters()})


def of_weights(law):
    """Weights by a law of their shape, vectors zero."""
    return lambda name, shape: law(shape) if len(shape) > 1 else Constant(0.0)


# --- He 2015 --------------------------------------------------------------------------------------------------------

VGG_B = (64, 64, "pool", 128, 128, "pool", 256, 256, "pool", 512, 512, "pool", 512, 512)


def vgg_b() -> nn.Module:
    layers, channels = [], 3
    for width in VGG_B:
        if width == "pool":
            layers.append(nn.MaxPool2d(2))
            continue
        layers += [nn.Conv2d(channels, int(width), 3, padding=1), nn.ReLU()]
        channels = int(width)
    return nn.Sequential(*layers)


def conv_backward(law) -> float:
    """rms of the gradient at what conv2 reads over that at what conv10 makes."""
    found = rows(meta(vgg_b), torch.ones(1, 3, 32, 32), of_weights(law))
    convs = [row for row in found.rows if row.op == "conv2d"]
    before_conv2 = found["1"]
    assert len(convs) == 10 and convs[-1].grad_rms and before_conv2.grad_rms
    return before_conv2.grad_rms / convs[-1].grad_rms


def test_vgg_b_with_weights_of_std_one_hundredth(numbers):
    """Against He's weights in fan-out mode: what padding and pooling do is in both and cancels."""
    wanted = numbers["he_2015"]["vgg_b_gradient_conv10_to_conv2_with_std_0_01"]
    derived = conv_backward(lambda shape: Normal((2 / (9 * shape[0])) ** 0.5))
    found = derived / conv_backward(lambda shape: Normal(0.01))
    assert "1.673e4" in wanted
    assert found == pytest.approx(1.673e4, rel=1e-3)
    fan_in = conv_backward(he)
    assert derived / fan_in != pytest.approx(1.0, rel=0.1)  # a control: fan-in is another scale


@pytest.mark.parametrize("slope", [0.0, 0.01, 0.25, 0.681])
def test_prelu_keeps_half_of_one_plus_its_squared_slope(slope):
    """Forward and backward: E f(z)^2 = E f'(z)^2 = (1 + a^2) / 2."""
    net = meta(lambda: nn.Sequential(nn.Linear(64, 64, bias=False), nn.PReLU(), nn.Linear(64, 64, bias=False)))
    laws = {"0.weight": Normal(1 / 8), "1.weight": Constant(slope), "2.weight": Normal(1 / 8)}
    found = rows(net, torch.ones(2, 64), lambda name, _: laws[name])
    wanted = (1 + slope**2) / 2
    assert (found["1"].rms / found["0"].rms) ** 2 == pytest.approx(wanted, rel=1e-4)
    assert (found["0"].grad_rms / found["1"].grad_rms) ** 2 == pytest.approx(wanted, rel=1e-4)


def test_prelu_slopes_of_the_paper(numbers):
    """A chain of layers of He weights for these slopes keeps signal and gradient; one for ReLU does not."""
    slopes = numbers["he_2015"]["prelu_slopes_table1"]["channel_wise"]
    net = meta(lambda: nn.Sequential(*[m for _ in slopes for m in (nn.Linear(64, 64, bias=False), nn.PReLU())]))

    def kept(gain) -> tuple[float, float]:
        laws = {f"{2 * i + 1}.weight": Constant(a) for i, a in enumerate(slopes)}
        laws |= {f"{2 * i}.weight": Normal((gain(a) / 64) ** 0.5) for i, a in enumerate(slopes)}
        found = rows(net, torch.ones(2, 64), lambda name, _: laws[name])
        first, last = found["1"], found[str(2 * len(slopes) - 1)]
        return (last.rms / first.rms) ** 2, (first.grad_rms / last.grad_rms) ** 2

    forward, backward = kept(lambda a: 2 / (1 + a**2))
    assert forward == pytest.approx(1, rel=1e-3) and backward == pytest.approx(1, rel=1e-3)
    assert kept(lambda a: 2.0)[0] == pytest.approx(np.prod([1 + a**2 for a in slopes[1:]]), rel=1e-3)


# --- how often ReLU passes a gradient -------------------------------------------------------------------------------

SYMMETRIC = {
    "normal": Normal, "uniform": Uniform, "rademacher": Rademacher, "truncated": TruncatedNormal,
}  # fmt: skip


def passing(weight: Distribution, bias: Distribution) -> float:
    """P(f' = 1) behind a layer of 64 inputs of mean square one: the squared gradient that a ReLU lets through."""
    net = meta(lambda: nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64, bias=False)))
    laws = {"0.weight": weight, "0.bias": bias, "2.weight": Normal(1 / 8)}
    found = rows(net, torch.ones(4, 64), lambda name, _: laws[name])
    return (found["0"].grad_rms / found["1"].grad_rms) ** 2  # type: ignore[operator]


def normal_cdf(x: float) -> float:
    return 0.5 * (1 + math.erf(x / 2**0.5))


@pytest.mark.parametrize("name", SYMMETRIC)
def test_half_of_the_slopes_are_one_for_any_symmetric_law(name):
    assert passing(SYMMETRIC[name](0.1), Constant(0.0)) == pytest.approx(0.5, abs=1e-6)
    assert passing(SYMMETRIC[name](0.1), Normal(0.5)) == pytest.approx(
        0.5, abs=1e-6
    )  # a symmetric bias changes nothing


@pytest.mark.parametrize("bias", [-0.5, 0.1, 1.0])
def test_a_bias_shifts_the_share_of_slopes_that_are_one(bias):
    """P = Phi(b / sigma), sigma the std of the weighted sum."""
    assert passing(Normal(0.1), Constant(bias)) == pytest.approx(normal_cdf(bias / 0.8), abs=0.01)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1.0, 0.5), (0.5, -0.5), (-1.0, 0.5)])
def test_batch_norms_shift_sets_the_share_of_slopes_that_are_one(scale, shift):
    """P = Phi(beta / |gamma|), whatever the weights and the bias before it."""
    net = meta(lambda: nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 64, bias=False)))
    laws = {"0.weight": Uniform(0.3), "0.bias": Constant(0.7), "1.weight": Constant(scale), "1.bias": Constant(shift)}
    laws |= {"3.weight": Normal(1 / 8)}
    x = torch.randn(256, 64, generator=torch.Generator().manual_seed(0))
    found = rows(net, x / x.square().mean(1, keepdim=True).sqrt(), lambda name, _: laws[name])
    passed = (found["1"].grad_rms / found["2"].grad_rms) ** 2  # type: ignore[operator]
    assert passed == pytest.approx(normal_cdf(shift / abs(scale)), abs=0.01)


def test_half_of_the_slopes_are_one_in_a_real_layer():
    """Three inputs, weights of plus or minus one: P(w x > 0) = 1/2 without any central limit."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, generator=generator)
    w = torch.randint(0, 2, (100_000, 3), generator=generator) * 2.0 - 1
    assert float((w @ x > 0).float().mean()) == pytest.approx(0.5, abs=4 * 0.5 / 100_000**0.5)
    assert float((w.abs() @ x > 0).float().mean()) != pytest.approx(0.5, abs=0.1)  # a control: not symmetric


# --- chaos ----------------------------------------------------------------------------------------------------------


@cache
def tanh_net():
    """Forty tanh layers with biases, traced."""
    net = meta(lambda: nn.Sequential(*[m for _ in range(40) for m in (nn.Linear(64, 64), nn.Tanh())]))
    return read_model(net, torch.randn(8, 64, generator=torch.Generator().manual_seed(0)))


def chi(sigma_w: float, sigma_b: float) -> float:
    """Growth of the squared gradient a layer, far from both ends."""
    graph = tanh_net().graph
    bias = Normal(sigma_b) if sigma_b else Constant(0.0)
    laws = {n: Normal(sigma_w / 8) if len(p.shape) > 1 else bias for n, p in graph.parameters.items()}
    found = interpret(graph, laws)
    return (found["60"].grad_rms / found["62"].grad_rms) ** 2  # type: ignore[operator]


def test_tanh_gain_five_thirds_makes_gradients_grow(numbers):
    """chi = 1.21 a layer at the fixed point: gradients grow by its root, 1.10."""
    assert chi(5 / 3, 0.0) == pytest.approx(numbers["mean_field_tanh_critical_line"]["gain_5_3"]["chi"], rel=2e-3)


@pytest.mark.parametrize("b", ["0.05", "0.1", "0.2236068", "1.0"])
def test_tanh_on_the_critical_line_keeps_gradients(numbers, b):
    w = numbers["mean_field_tanh_critical_line"]["sigma_b_to_sigma_w"][b]
    assert chi(w, float(b)) == pytest.approx(1.0, abs=0.01)
    assert chi(1.2 * w, float(b)) > 1.05 > 0.95 > chi(0.8 * w, float(b))  # a control on either side
