"""Gates before a maximum over windows, and inputs that are the largest of several windows."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from test_theory_adjoint import errors, hold  # noqa: E402
from torch import nn  # noqa: E402

from fanin.theory.adjoint import binary, pool  # noqa: E402

C = 48


class Gated(nn.Module):
    """A squeeze and excitation: every channel times a number that its means over the map make."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(C, C, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.nn.functional.hardsigmoid(self.layer(x.mean((2, 3), keepdim=True)))


def net(pooled: nn.Module) -> nn.Module:
    """A map, its gate, a pool, and layers that end in a mean, by which gradients are alike over the map."""
    return nn.Sequential(
        nn.Conv2d(3, C, 3, padding=1, bias=False), nn.BatchNorm2d(C), nn.ReLU(), Gated(), pooled,
        nn.Conv2d(C, C, 1, bias=False), nn.BatchNorm2d(C), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(C, 10),
    )  # fmt: skip


def found(pooled: nn.Module, names: tuple[str, ...]) -> dict:
    torch.manual_seed(1234)
    every = errors(lambda: net(pooled), torch.randn(4, 3, 12, 12), 48)
    return {name: every[name] for name in names}


SUMS = ("3/hardsigmoid", "3.layer.bias")
"""What gates hear of a map, and its sum over samples."""


def test_a_gate_before_a_maximum():
    hold(found(nn.MaxPool2d(2), (*SUMS, "3.layer.weight")), slack=0.06)


def test_a_gate_before_windows_that_overlap():
    hold(found(nn.MaxPool2d(3, 2, 1), SUMS), slack=0.06)


def test_a_control_with_what_the_map_alone_has_in_common(monkeypatch):
    monkeypatch.setattr(binary.repeated, "is_repeated", lambda *_: False)
    with pytest.raises(AssertionError):
        hold(found(nn.MaxPool2d(3, 2, 1), SUMS), slack=0.06)


def test_an_input_of_several_windows():
    hold(found(nn.MaxPool2d(3, 2, 1), ("3",)), slack=0.05)


def test_a_control_with_windows_that_have_nothing_in_common(monkeypatch):
    monkeypatch.setattr(pool, "_of_drawn", lambda *_: (0.0, 0.0))
    with pytest.raises(AssertionError):
        hold(found(nn.MaxPool2d(3, 2, 1), ("3",)), slack=0.05)


def test_how_many_windows_have_one_largest():
    """Against maxima of random numbers."""
    size, k, step = 17, 3, 2
    x = torch.rand(4000, 1, size, size, generator=torch.Generator().manual_seed(0))
    _, where = nn.functional.max_pool2d(x, k, step, return_indices=True)
    out = where.shape[-1]

    class Node:
        shape, attrs = (1, 1, out, out), {"kernel": (k, k), "stride": (step, step), "dilation": (1, 1)}

    counts = torch.zeros(len(x), size * size).scatter_add_(1, where.flatten(1), torch.ones(len(x), out * out))
    others = (counts * (counts - 1)).sum(1) / out**2
    said, _ = pool.windows_with_one_largest(Node, 2)  # type: ignore[arg-type]
    assert abs(said - float(others.mean())) < 4 * float(others.std()) / len(x) ** 0.5
