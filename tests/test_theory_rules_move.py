"""Where elements go: views, permutations, slices, concatenation, padding, expansion; what stays aligned."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from test_theory_rules_contraction import Made  # noqa: E402
from test_theory_statistics import compared, normal  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from fanin.distributions import Normal  # noqa: E402

N, T = 128, 6
X = normal(4, T, N)
LAWS = {name: Normal(N**-0.5) for name in "uvw"}
OPEN = {
    "cat of one weight twice": "pieces of one weight are taken for independent",
    "expand": "one position laid over all is taken for another position everywhere",
}


def net(fn, **shapes) -> nn.Module:
    """fn of the module and a hidden layer with a mean, so that what is mixed up shows."""
    return Made(lambda m, x: fn(m, torch.relu(x @ m.w)), w=(N, N), **({"v": (N, N), "u": (N, N)} | shapes))


CASES = {
    "view and back": lambda m, y: y.view(4, T * N).view(4, T, 8, 16).flatten(2) @ m.v,
    "transpose": lambda m, y: y.transpose(1, 2).transpose(1, 2) @ m.v,
    "sum over a transposed axis": lambda m, y: y.permute(2, 0, 1).sum(-1).t() @ m.v,
    "heads and back": lambda m, y: y.view(4, T, 4, 32).transpose(1, 2).transpose(1, 2).reshape(4, T, N) @ m.v,
    "positions flattened into features": lambda m, y: (y @ m.v).flatten(1).mean(1),
    "samples flattened into positions": lambda m, y: (y.flatten(0, 1) @ m.v).mean(0),
    "slice of features": lambda m, y: y[..., :32] @ m.v[:32],
    "slice of positions": lambda m, y: y[:, 1:3] @ m.v,
    "last position": lambda m, y: y[:, -1] @ m.v,
    "every other position": lambda m, y: y[:, ::2] @ m.v,
    "chunk and gate": lambda m, y: (lambda a, b: torch.sigmoid(a) * b)(*(y @ m.v).chunk(2, -1)),
    "split and sum": lambda m, y: sum(torch.split(y @ m.v, 32, -1)),
    "unbind": lambda m, y: sum(torch.unbind(y, 1)) @ m.v,
    "cat of features": lambda m, y: torch.cat([y, torch.tanh(y)], -1) @ torch.cat([m.v, m.u]),
    "cat of one weight twice": lambda m, y: torch.cat([y, torch.tanh(y)], -1) @ torch.cat([m.v, m.v]),
    "repeated rows": lambda m, y: y[:, [0, 1, 0]] @ m.v,
    "cat of positions": lambda m, y: torch.cat([y, y @ m.v], 1).mean(1),
    "stack": lambda m, y: torch.stack([y, y @ m.v], 1).mean(1),
    "cat with a constant": lambda m, y: torch.cat([y, torch.ones(4, 1, N)], 1) @ m.v,
    "pad with zeros": lambda m, y: F.pad(y, (0, 0, 1, 1)) @ m.v,
    "pad features": lambda m, y: F.pad(y, (4, 4)) + 0.5,
    "pad with a number": lambda m, y: F.pad(y @ m.v, (0, 0, 2, 0), value=3.0),
    "crop by negative padding": lambda m, y: F.pad(y, (0, 0, -1, -1)) @ m.v,
    "expand": lambda m, y: (y[:, :1].expand(-1, T, -1) + y) @ m.v,
    "broadcast": lambda m, y: (y.mean(1, keepdim=True) + 0 * y) @ m.v,
    "roll positions": lambda m, y: (y + y.roll(1, 1)) @ m.v,
    "roll features": lambda m, y: (y + y.roll(1, -1)) @ m.v,
    "flip features": lambda m, y: (y + y.flip(-1)) @ m.v,
    "shifted by one token": lambda m, y: (y[:, 1:] - y[:, :-1]) @ m.v,
    "rotated halves": lambda m, y: torch.cat([-y[..., N // 2 :], y[..., : N // 2]], -1) @ m.v,
    "index": lambda m, y: y[:, torch.tensor([0, 2, 2, 5])] @ m.v,
    "index_select": lambda m, y: y.index_select(1, torch.tensor([5, 0])) @ m.v,
    "repeat": lambda m, y: y.repeat(1, 2, 1) @ m.v,
    "repeat_interleave": lambda m, y: y.repeat_interleave(2, 1) @ m.v,
    "squeeze": lambda m, y: y.unsqueeze(1).squeeze(1) @ m.v,
    "clone and cast": lambda m, y: y.clone().double().float().contiguous() @ m.v,
    "product with itself": lambda m, y: y @ y.transpose(1, 2),
    "tril": lambda m, y: torch.tril((y @ m.v) @ (y @ m.u).transpose(1, 2)) @ y,
    "gather": lambda m, y: y.gather(1, torch.zeros(4, 2, N, dtype=torch.int64)) @ m.v,
    "written in place": lambda m, y: (y @ m.v).mul_(2).add_(1).relu_(),
    "movedim": lambda m, y: y.movedim(1, 0) @ m.v,
}


def cases(table: dict) -> list:
    return [
        pytest.param(value, id=name, marks=pytest.mark.xfail(strict=True, reason=OPEN[name]) if name in OPEN else ())
        for name, value in table.items()
    ]


@pytest.mark.parametrize("fn", cases(CASES))
def test_move(fn):
    # the input's rows have mean squares of their own: products of two rows see it to the order of 1 / N
    assert compared(net(fn), X, LAWS, networks=32).misses(1 / N) == []


def test_pixel_shuffle():
    shuffled = nn.Sequential(
        nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.ReLU(), nn.PixelShuffle(2), nn.Conv2d(16, 16, 3, bias=False)
    )
    assert compared(shuffled, normal(4, 32, 6, 6), networks=64).misses(0.01) == []


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_upsampling(mode):
    up = nn.Sequential(nn.Conv2d(32, 64, 1, bias=False), nn.Upsample(scale_factor=2, mode=mode), nn.Conv2d(64, 16, 1))
    assert compared(up, normal(4, 32, 6, 6), networks=64).misses(0.01) == []


def test_unfold_into_patches():
    patches = nn.Sequential(nn.Conv2d(32, 32, 1, bias=False), nn.Unfold(2, stride=2))
    assert compared(patches, normal(4, 32, 6, 6)).misses() == []


@pytest.mark.parametrize("across", [False, True])
def test_overlapping_windows_by_strides(across):
    """Windows of four positions, two apart, read off the storage as Longformer does, of a contiguous tensor or not."""

    def windows(m, y):
        y = y.transpose(0, 1).contiguous().transpose(0, 1) if across else y.contiguous()
        s, t, n = y.stride()
        wide = torch.as_strided(y, (4, 2, 4, N), (s, 2 * t, t, n))
        return wide.sum(2) @ m.v

    assert compared(net(windows), X, LAWS).misses() == []


@pytest.mark.xfail(
    strict=True, reason="places of overlapping windows count as others: windows that share some are alike"
)
def test_sums_over_overlapping_windows():
    """Windows of eight positions, four apart: the sum over all of them takes most positions twice."""
    apart, common = (torch.randn(4, t, N, generator=torch.Generator().manual_seed(t)) for t in (24, 1))
    both = compared(net(lambda m, y: y.unfold(1, 8, 4).sum(-1).sum(1)), apart + 0.5 * common, LAWS, networks=96)
    assert both.misses() == []


def test_a_shift_overlooked_is_missed():
    """A control: y + y is four times the mean square, y + shifted y is not."""
    from dataclasses import replace

    moved = compared(net(CASES["roll features"]), X, LAWS, networks=16)
    still = compared(net(lambda m, y: (y + y) @ m.v), X, LAWS, networks=2)
    assert replace(moved, predicted=still.predicted).misses()  # rows that both have


class Beside(nn.Module):
    """The batch's channels, and those of a convolution over them, averaged over the map."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(16, 48, 3, padding=1, padding_mode="circular")

    def forward(self, x):
        return torch.cat([x, self.conv(torch.relu(x))], 1).mean((2, 3))


def test_channels_of_the_batch_beside_those_of_a_convolution():
    """Channels of data are features beside features: what the average finds in common is that of places alone."""
    assert compared(Beside(), normal(8, 16, 6, 6)).misses() == []
