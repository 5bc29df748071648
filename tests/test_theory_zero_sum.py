"""Standardized weights: the weights of an output's inputs sum to zero, and the mean of the inputs is not heard."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from networks import Networks  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import fanin  # noqa: E402
from fanin.theory.adjoint import norm  # noqa: E402

NETS = 6


class Standardized(nn.Conv2d):
    """Weight standardization as BiT and NFNets write it."""

    def forward(self, x):
        flat = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(flat, None, None, training=True, momentum=0.0, eps=1e-6).reshape_as(self.weight)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Net(nn.Module):
    """Two kernels that read beyond the border and one that does not, each behind a ReLU."""

    def __init__(self, conv=Standardized):
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 3, padding=1)
        self.a, self.b = (conv(64, 64, 3, padding=1) for _ in range(2))
        self.c = conv(64, 64, 1)
        self.first, self.second = nn.GroupNorm(8, 64), nn.GroupNorm(8, 64)

    def forward(self, x):
        x = torch.relu(self.first(self.stem(x)))
        x = x + self.a(x)
        return self.c(torch.relu(self.second(self.b(torch.relu(x)))))


def measured(x, make=Net):
    """Mean squares of every network's rows, forward and backward, and of its weights' gradients."""
    forward, backward, weights = {}, {}, {}
    networks = Networks(x)
    for seed in range(NETS):
        torch.manual_seed(seed)
        seen = networks.measure(make())
        for row in seen.rows:
            forward.setdefault(row.name, []).append(row.rms**2)
            backward.setdefault(row.name, []).append((row.grad_rms or 0.0) ** 2)
        for name, row in seen.parameters.items():
            weights.setdefault(name, []).append(row["grad_rms"] ** 2)
    return forward, backward, weights


def apart(said: float, squares: list[float]) -> tuple[float, float]:
    """Relative error, and its standard error."""
    mean = float(np.mean(squares))
    return said / np.sqrt(mean) - 1, float(np.std(squares, ddof=1)) / np.sqrt(len(squares)) / mean / 2


def test_what_inputs_have_in_common_is_not_heard():
    torch.manual_seed(0)
    x = torch.randn(8, 3, 8, 8)
    said = fanin.predict(Net(), x)
    forward, backward, weights = measured(x)
    for row in said.rows:
        if row.op in ("conv2d", "group_norm", "relu", "add"):
            for guess, squares in ((row.rms, forward[row.name]), (row.grad_rms, backward[row.name])):
                error, deviation = apart(guess, squares)
                assert abs(error) < 4 * deviation + 2 / 64, (row.name, error)
    for name in ("a.weight", "b.weight", "c.weight"):
        error, deviation = apart(said.parameters[name]["grad_rms"], weights[name])
        assert abs(error) < 4 * deviation + 4 / 64, (name, error)


def test_plain_weights_hear_it():
    """The control: with the same variance but no norm over them, a ReLU's mean is heard, a fifth more."""

    class Plain(nn.Conv2d):
        def forward(self, x):
            return F.conv2d(x, self.weight / self.weight.std(), self.bias, self.stride, self.padding)

    torch.manual_seed(0)
    x = torch.randn(8, 3, 8, 8)
    heard, not_heard = (fanin.predict(Net(conv), x)["c"].rms for conv in (Plain, Standardized))
    assert heard / not_heard == pytest.approx(np.sqrt(0.5 / (0.5 - 1 / (2 * np.pi))), rel=0.05)


def test_known_inputs_with_a_mean():
    """A first layer reads the batch itself: a patch less its mean; only zeros beyond the border are told from it."""
    x = torch.randn(8, 3, 8, 8) + 3.0
    make = lambda: nn.Sequential(Standardized(3, 64, 3, padding=0), nn.ReLU())  # noqa: E731
    torch.manual_seed(0)
    said = fanin.predict(make(), x)
    forward, _, _ = measured(x, make)
    for row in said.rows:
        if row.op in ("conv2d", "relu"):
            error, deviation = apart(row.rms, forward[row.name])
            assert abs(error) < 4 * deviation + 1e-3, (row.name, error)


class SpelledOut(nn.Conv2d):
    """Weight standardization as its authors write it: means axis by axis, a deviation, a quotient."""

    def forward(self, x):
        w = self.weight
        w = w - w.mean(1, keepdim=True).mean(2, keepdim=True).mean(3, keepdim=True)
        w = w / (w.flatten(1).std(1).view(-1, 1, 1, 1) + 1e-5)
        return F.conv2d(x, w, self.bias, self.stride, self.padding)


class Scaled(nn.Conv2d):
    """The same with variance and mean at once, and the root of the fan in, as normalizer-free nets have it."""

    def forward(self, x):
        var, mean = torch.var_mean(self.weight, (1, 2, 3), keepdim=True)
        w = (self.weight - mean) * torch.rsqrt(var * self.weight[0].numel() + 1e-4)
        return F.conv2d(x, w, self.bias, self.stride, self.padding)


class Less(nn.Conv2d):
    """Not centred: the sum of the weights of an output is as large as before, less than their mean."""

    def forward(self, x):
        return F.conv2d(
            x, self.weight - 0.5 * self.weight.mean((1, 2, 3), keepdim=True), self.bias, padding=self.padding
        )


@pytest.mark.parametrize("conv", [SpelledOut, Scaled])
def test_spelled_out_it_is_the_same(conv):
    torch.manual_seed(0)
    x = torch.randn(8, 3, 8, 8)
    said = fanin.predict(Net(conv), x)
    forward, backward, _ = measured(x, lambda: Net(conv))
    for row in said.rows:
        if row.op in ("conv2d", "group_norm", "relu"):
            for guess, squares in ((row.rms, forward[row.name]), (row.grad_rms, backward[row.name])):
                error, deviation = apart(guess, squares)
                assert abs(error) < 4 * deviation + 3 / 64, (row.name, error)


def test_weights_less_half_their_mean_hear_it():
    torch.manual_seed(0)
    x = torch.randn(8, 3, 8, 8)
    rows = {conv: fanin.predict(Net(conv), x)["c"].rms for conv in (Less, nn.Conv2d)}
    assert rows[Less] == pytest.approx(rows[nn.Conv2d], rel=0.02)


class Bright(nn.Module):
    """A standardized kernel with a gain for every output, which reads a map whose mean is far from zero."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 4, 1)
        self.weight, self.gain = nn.Parameter(torch.randn(32, 32)), nn.Parameter(torch.ones(32))

    def forward(self, x):
        x = torch.relu(self.first(x) + 2)
        weight = F.batch_norm(self.weight[None], None, None, weight=self.gain / 32**0.5, training=True, eps=1e-6)
        return self.last(torch.relu(F.conv2d(x, weight[0][..., None, None])))


def bright() -> dict[str, tuple[float, float]]:
    """Relative errors of the gradients of a weight and of its gain, and their standard errors."""
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    said, seen = {}, {}
    for seed in range(32):
        torch.manual_seed(seed)
        net = Bright()
        if seed < 4:
            for name, row in fanin.predict(net, x).parameters.items():
                said.setdefault(name, []).append(row["grad_rms"] ** 2)
        out = net(x)
        out.backward(torch.randn_like(out))
        for name, weight in net.named_parameters():
            seen.setdefault(name, []).append(float(weight.grad.pow(2).mean()))
    return {name: apart(float(np.mean(said[name])) ** 0.5, seen[name]) for name in ("weight", "gain")}


def test_what_all_inputs_have_in_common_goes_with_the_mean_of_the_weights():
    assert all(abs(error) < 4 * noise + 0.04 for error, noise in bright().values())


def test_a_control_where_inputs_have_nothing_in_common(monkeypatch):
    monkeypatch.setattr(norm, "_common", lambda g: 0.0)
    assert all(abs(error) > 0.5 for error, _ in bright().values())
