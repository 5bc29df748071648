"""Batch normalization over finitely many samples: how fast gradients grow, from the graph engine and in real nets."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import fanin  # noqa: E402
from fanin.theory.statistic import mean_inverse  # noqa: E402

DEPTH, WIDTH = 6, 2**20  # nothing is drawn: the figures are those of the mean field
SIZES = [4, 5, 6, 8, 10, 16, 32, 64, 128, 256, 512, 1024]


def stack(activation: type[nn.Module], inputs: int, width: int = WIDTH, eps: float = 1e-12) -> nn.Module:
    def layer(n: int) -> tuple[nn.Module, ...]:
        return nn.Linear(n, width, bias=False), nn.BatchNorm1d(width, eps=eps), activation()

    return nn.Sequential(*[m for i in range(DEPTH) for m in layer(inputs if i == 0 else width)])


def samples(size: int) -> torch.Tensor:
    """Orthogonal samples of one length, of a mean square of one: what correlations they get, the net makes."""
    return size**0.5 * torch.eye(size)


def growth(activation: type[nn.Module], size: int) -> float:
    """Predicted growth of the squared gradient over a layer deep in the net, from its end to its start."""
    with torch.device("meta"):
        net = stack(activation, size)
    rows = fanin.predict(net, samples(size))
    return (rows["6"].grad_rms / rows["9"].grad_rms) ** 2  # type: ignore[operator]


def closed_form(size: int) -> float:
    """(B/2 - 1 + J0 + J1) / ((B - 3) (1/2 - J1)): derived in docs/theory.md."""
    r = -1 / (size - 1)
    j0 = (math.pi - math.acos(r)) / (2 * math.pi)
    j1 = (math.sqrt(1 - r * r) + r * (math.pi - math.acos(r))) / (2 * math.pi)
    return (size / 2 - 1 + j0 + j1) / ((size - 3) * (0.5 - j1))


@pytest.mark.parametrize("size", SIZES)
def test_growth_of_relu_nets(numbers, size):
    wanted = numbers["batch_norm"]["squared_gradient_growth_per_layer_relu"][str(size)]
    assert closed_form(size) == pytest.approx(wanted, rel=1e-4)
    assert growth(nn.ReLU, size) == pytest.approx(wanted, rel=2e-3)


def test_growth_of_relu_nets_tends_to_that_of_infinitely_many_samples(numbers):
    wanted = numbers["batch_norm"]["squared_gradient_growth_per_layer_relu"]["inf"]
    assert wanted == pytest.approx(math.pi / (math.pi - 1), rel=1e-6)
    assert closed_form(10**6) == pytest.approx(wanted, rel=1e-5)
    assert growth(nn.ReLU, 1024) != pytest.approx(wanted, rel=9e-4)  # a control: a thousand samples are not infinite


@pytest.mark.parametrize("size", SIZES)
def test_growth_of_linear_nets(numbers, size):
    assert numbers["batch_norm"]["squared_gradient_growth_per_layer_linear"] == "(B-2)/(B-3)"
    assert growth(nn.Identity, size) == pytest.approx((size - 2) / (size - 3), rel=1e-3)


def gradients(size: int, width: int, networks: int) -> np.ndarray:
    """Mean squared gradient of every pre-activation, first layer first, in real nets: (networks, layers)."""
    generator, found = torch.Generator().manual_seed(1), []
    for _ in range(networks):
        x, made = samples(size), []
        for _ in range(DEPTH):
            w = torch.randn(width, x.shape[1], generator=generator) * x.shape[1] ** -0.5
            made.append((x @ w.T).requires_grad_())
            x = torch.relu(nn.functional.batch_norm(made[-1], None, None, training=True, eps=1e-12))
        cotangent = torch.randn(x.shape, generator=generator)
        found.append([float(g.square().mean()) for g in torch.autograd.grad(x, made, cotangent)])
    return np.array(found)


def test_growth_in_real_nets():
    """Eight samples: over networks the mean squared gradient of the second layer over that of the last."""
    size, layers = 8, DEPTH - 2
    found = gradients(size, 256, 32)
    each = found[:, 1] / found[:, -1]
    error = each.std(ddof=1) / len(each) ** 0.5
    assert each.mean() == pytest.approx(closed_form(size) ** layers, abs=4 * error)
    assert abs(each.mean() - (math.pi / (math.pi - 1)) ** layers) > 8 * error  # what infinitely many samples would do


@pytest.mark.parametrize(("freedom", "eps"), [(3.0, 0.1), (1.0, 0.2), (7.0, 0.0), (20.0, 1.0), (2.0, 1e-2)])
def test_mean_inverse_of_a_variance(freedom, eps):
    """Against quadrature over the chi-squared law: E[1 / (v chi^2 / f + eps)]."""
    from scipy import integrate, stats

    law, v = stats.chi2(freedom), 0.7
    wanted = integrate.quad(lambda u: 1 / (v * law.ppf(u) / freedom + eps), 0, 1, limit=500, epsabs=1e-10)[0]
    assert mean_inverse(v, eps, freedom) == pytest.approx(wanted, rel=1e-4)
