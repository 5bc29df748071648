"""Weights that a style modulates and that are divided by their length (Karras et al. 2020), against what is drawn."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import fanin  # noqa: E402
from fanin.theory.adjoint import radial  # noqa: E402

NETWORKS, IN, OUT = 40, 64, 48
GENERATOR = torch.Generator().manual_seed(2)
MAPS, STYLES = torch.randn(8, IN, 6, 6, generator=GENERATOR), torch.randn(8, 24, generator=GENERATOR)


class Modulated(nn.Module):
    """A convolution with kernels of each sample's own, as groups."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.style = nn.Parameter(torch.randn(OUT, IN, 3, 3)), nn.Linear(24, IN)

    def forward(self, x, z):
        b, c, h, w = x.shape
        kernels = self.weight[None] * (IN * 9) ** -0.5 * (self.style(z) + 1)[:, None, :, None, None]
        kernels = kernels * torch.rsqrt(kernels.pow(2).sum((2, 3, 4), keepdim=True) + 1e-8)
        out = nn.functional.conv2d(x.reshape(1, b * c, h, w), kernels.reshape(-1, c, 3, 3), padding=1, groups=b)
        return out.view(b, OUT, h, w)


def measured() -> dict[str, tuple[float, float]]:
    found: dict[str, list[float]] = {}
    for seed in range(NETWORKS):
        torch.manual_seed(seed)
        net = Modulated()
        out = net(MAPS, STYLES)
        out.backward(torch.randn_like(out))
        for name, p in net.named_parameters():
            assert p.grad is not None
            found.setdefault(name, []).append(float(p.grad.square().mean()))
    return {k: (float(np.mean(v)), float(np.std(v) / len(v) ** 0.5)) for k, v in found.items()}


def errors() -> dict[str, tuple[float, float]]:
    torch.manual_seed(0)
    told = fanin.predict(Modulated(), (MAPS, STYLES)).parameters
    return {n: (told[n]["grad_rms"] ** 2 / square - 1, d / square) for n, (square, d) in measured().items()}


def test_gradients_of_kernels_and_styles():
    for name, (error, deviation) in errors().items():
        assert abs(error) < 4 * deviation + 0.04, (name, error, deviation)


def test_a_control_that_takes_a_style_for_a_length(monkeypatch):
    """As if a factor of every input got what all inputs of an output get together, which its norm takes away."""

    def any_axes(law, out):
        repeated = [n > 1 and m == 1 for n, m in zip(out.shape, law.shape, strict=True)]
        return any(repeated) and all({a.group for a in out.axes[i]} == {"feature"} for i, r in enumerate(repeated) if r)

    monkeypatch.setattr(radial, "_over_features", any_axes)
    assert errors()["style.weight"][0] < -0.9
