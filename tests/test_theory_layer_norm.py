"""Normalization over few features: gradients are divided by a variance that is small at times."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from fanin.distributions import Constant, Normal  # noqa: E402
from fanin.frameworks.torch.verbs import read_model  # noqa: E402
from fanin.theory import interpret  # noqa: E402

STD = 0.3


def passed(norm: nn.Module, n: int) -> float:
    """Predicted squared gradient behind a norm over n Gaussians of variance one, for a cotangent of one."""
    net = nn.Sequential(nn.Linear(16, n, bias=False), norm)
    reading = read_model(net, torch.ones(4, 16))
    laws = {k: Normal(STD / 4) if p.dim() > 1 else Constant(float(p.detach()[0])) for k, p in net.named_parameters()}
    return interpret(reading.graph, laws)["0"].grad_rms ** 2 * STD**2  # type: ignore[operator]


@pytest.mark.parametrize("n", [8, 16, 64, 512])
def test_layer_norm(n):
    """A projection that keeps n - 2 of n directions, and E[1/s^2] = n / (n - 3)."""
    assert passed(nn.LayerNorm(n, eps=1e-12), n) == pytest.approx((n - 2) / (n - 3), rel=1e-3)


@pytest.mark.parametrize("n", [8, 16, 64, 512])
def test_rms_norm(n):
    """Not centred: n - 1 directions, and n / (n - 2)."""
    assert passed(nn.RMSNorm(n, eps=1e-12), n) == pytest.approx((n - 1) / (n - 2), rel=1e-3)


def test_layer_norm_in_real_nets():
    n, networks = 16, 20_000
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(networks, n, generator=generator, dtype=torch.float64).requires_grad_()
    y = nn.functional.layer_norm(x, (n,), eps=1e-12)
    (g,) = torch.autograd.grad(y, x, torch.randn(y.shape, generator=generator, dtype=torch.float64))
    each = g.square().mean(1)
    error = float(each.std()) / networks**0.5
    assert float(each.mean()) == pytest.approx((n - 2) / (n - 3), abs=4 * error)
    assert abs(float(each.mean()) - (n - 2) / n) > 8 * error  # a control: what a variance without scatter would do
