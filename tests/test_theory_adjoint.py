"""The backward pass, predicted against measured: cotangents of every tensor and gradients of every parameter."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pytest
import torch
from networks import Networks
from torch import nn

import fanin

Errors = dict[str, tuple[float, float]]


@lru_cache(maxsize=2)  # a control asks for the same networks again
def measured(make: Callable[[], nn.Module], batch: torch.Tensor, nets: int, train: bool) -> dict[str, list[float]]:
    """Mean square of the gradient of every row and parameter in each of so many networks."""
    squares: dict[str, list[float]] = {}
    networks = Networks(batch)
    for seed in range(nets):
        torch.manual_seed(seed)
        found = networks.measure(make().train(train), seed=seed)  # another cotangent, other dropout
        for row in found.rows:
            if row.grad_rms is not None:
                squares.setdefault(row.name, []).append(row.grad_rms**2)
        for name, row in found.parameters.items():
            squares.setdefault(name, []).append(row["grad_rms"] ** 2)
    return squares


def errors(make: Callable[[], nn.Module], batch: torch.Tensor, nets: int, *, train: bool = True) -> Errors:
    """Predicted over measured, less one, and its standard error over networks: of every row and parameter."""
    torch.manual_seed(0)
    said = fanin.predict(make().train(train), batch)
    predicted = {row.name: row.grad_rms for row in said.rows} | {n: p["grad_rms"] for n, p in said.parameters.items()}
    out = {}
    for name, values in measured(make, batch, nets, train).items():
        mean, spread = np.mean(values), np.std(values, ddof=1) / np.sqrt(nets)
        if predicted.get(name) is not None and mean > 0:
            out[name] = (predicted[name] / np.sqrt(mean) - 1, float(spread / mean / 2))
    return out


def hold(found: Errors, slack: float = 0.02) -> None:
    """Every error within four standard errors, and what finite width leaves."""
    assert found
    wrong = {n: (round(e, 3), round(s, 3)) for n, (e, s) in found.items() if abs(e) > 4 * s + slack}
    assert not wrong, wrong


class Flattened(nn.Module):
    """Two dense layers, the second on all tokens of all samples at once, and a mean over tokens."""

    def __init__(self, width: int = 128):
        super().__init__()
        self.one, self.two = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, tokens, width) to (samples, width)."""
        y = self.one(x)
        return self.two(y.view(-1, y.shape[-1])).view_as(y).mean(1)


def test_tokens_that_hear_one_gradient_do_so_behind_a_view() -> None:
    torch.manual_seed(1234)
    hold(errors(Flattened, torch.randn(4, 16, 128), 8))


class Spelled(nn.Module):
    """GPT-2's GELU in its eight operations, on tokens that differ in scale."""

    def __init__(self, width: int = 256):
        super().__init__()
        self.one, self.two = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.register_buffer("scale", torch.linspace(0.3, 1.5, 24)[:, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, tokens, width) to the same."""
        y = self.one(x) * self.scale
        return self.two(0.5 * y * (1 + torch.tanh(0.7978845608 * (y + 0.044715 * torch.pow(y, 3.0)))))


def test_a_chain_adds_up_before_it_is_squared_where_tokens_differ() -> None:
    torch.manual_seed(1234)
    hold(errors(Spelled, torch.randn(4, 24, 256), 6))


@pytest.mark.parametrize("name", ["one.weight", "two.weight"])
def test_the_comparison_sees_a_gradient_that_is_off(name: str) -> None:
    torch.manual_seed(1234)
    found = errors(Flattened, torch.randn(4, 16, 128), 4)
    wrong = {**found, name: (found[name][0] + 0.2, found[name][1])}
    with pytest.raises(AssertionError):
        hold(wrong)


def test_a_bias_before_batch_norm_has_no_gradient_in_training() -> None:
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 4, 3))
    batch = torch.randn(4, 3, 12, 12)
    assert fanin.predict(net, batch).parameters["0.bias"]["grad_rms"] == 0
    assert fanin.predict(net.eval(), batch).parameters["0.bias"]["grad_rms"] > 0


def test_outputs_at_opposite_borders_share_fewer_taps() -> None:
    """What a map has in common is less than if all outputs had all taps: seen in its mean, and so by batch norm."""
    torch.manual_seed(1234)
    batch = torch.rand(2, 64, 5, 5)
    ratios = []
    for seed in range(12):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Conv2d(64, 256, 1), nn.ReLU(), nn.Conv2d(256, 256, 3, padding=1, bias=False))
        net.append(nn.AdaptiveAvgPool2d(1))
        said, got = fanin.predict(net, batch).rows[-1], fanin.measure(net, batch).rows[-1]
        ratios.append((got.rms / said.rms) ** 2)
    error = np.std(ratios) / np.sqrt(len(ratios))
    assert abs(np.mean(ratios) - 1) < 4 * error + 0.02, (np.mean(ratios), error)


class Bottleneck(nn.Module):
    """Two residual blocks of batch-normalized layers, narrow inside: scales of channels are divided out again."""

    def __init__(self, width: int = 128, narrow: int = 32):
        super().__init__()
        self.stem = nn.Linear(width, width)
        make = lambda a, b: nn.Sequential(nn.Linear(a, b, bias=False), nn.BatchNorm1d(b))  # noqa: E731
        self.down = nn.ModuleList(make(width, narrow) for _ in range(2))
        self.up = nn.ModuleList(make(narrow, width) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, width) to the same."""
        x = torch.relu(self.stem(x))
        for down, up in zip(self.down, self.up, strict=True):
            x = torch.relu(x + up(torch.relu(down(x))))
        return x


def test_batch_normalized_bottlenecks_with_their_gains_and_shifts() -> None:
    torch.manual_seed(1234)
    hold(errors(Bottleneck, torch.randn(200, 128), 12), slack=0.04)


def test_a_gain_of_zero_beside_what_it_gains() -> None:
    """w * x + x with w = 0: a finite step in the first summand would be lost beside the second."""

    class Gained(nn.Module):
        def __init__(self, width: int = 128):
            super().__init__()
            self.one, self.two = nn.Linear(width, width), nn.Linear(width, width)
            self.gain = nn.Parameter(torch.zeros(width))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.nn.functional.gelu(self.one(x))
            return self.two(self.gain * y + y)

    torch.manual_seed(1234)
    found = errors(Gained, torch.randn(64, 128), 8)
    assert "gain" in found and "/mul" in found
    hold(found)


class ClassToken(nn.Module):
    """A vision transformer without its blocks: the class token is small beside the patches, and one of many places."""

    def __init__(self, width: int = 192, tokens: int = 48):
        super().__init__()
        self.embed, self.norm, self.head = nn.Linear(width, width), nn.LayerNorm(width), nn.Linear(width, width)
        self.first = nn.Parameter(1e-6 * torch.randn(1, 1, width))
        self.table = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, tokens + 1, width), std=0.02))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, tokens, width) to (samples, width)."""
        y = self.embed(x)
        y = torch.cat([self.first.expand(len(x), -1, -1), y], 1) + self.table
        return self.head(self.norm(y)[:, 0])


def test_a_small_class_token_is_divided_by_its_own_deviation() -> None:
    torch.manual_seed(1234)
    found = errors(ClassToken, torch.randn(4, 48, 192), 8)
    hold(found, 0.03)
    assert {"first", "table"} <= found.keys()


def test_a_gain_of_one_plus_zero() -> None:
    """(1 + w) * x with w = 0, as Gemma spells it: one plus a step relative to w is one."""

    class Gained(nn.Module):
        def __init__(self, width: int = 128):
            super().__init__()
            self.one, self.two = nn.Linear(width, width), nn.Linear(width, width)
            self.gain = nn.Parameter(torch.zeros(width))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.two((1.0 + self.gain.float()) * self.one(x))

    torch.manual_seed(1234)
    found = errors(Gained, torch.randn(64, 128), 8)
    assert "gain" in found
    hold(found)
