"""Parts of vision models: shifted windows, gates, few channels; predicted against drawn networks."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")
from test_theory_rules_contraction import Made  # noqa: E402
from test_theory_statistics import compared, normal  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from fanin.distributions import Normal  # noqa: E402

N, SIDE, WINDOW, HEADS = 64, 4, 2, 2


class Padded(nn.Module):
    """Padding by copies."""

    def __init__(self, mode: str):
        super().__init__()
        self.mode = mode

    def forward(self, x):
        return F.pad(x, (3, 3, 3, 3), mode=self.mode)


def windows(x, n: int = WINDOW):
    """(sample, height, width, feature) -> (sample * windows, n * n, feature)."""
    b, h, w, f = x.shape
    return x.view(b, h // n, n, w // n, n, f).transpose(2, 3).reshape(-1, n * n, f)


def shift_mask(size: int = SIDE, n: int = WINDOW):
    """Minus a hundred between places of one window that were not neighbours before the shift."""
    region = torch.zeros(1, size, size, 1)
    parts = (slice(0, -n), slice(-n, -n // 2), slice(-n // 2, None))
    for i, rows in enumerate(parts):
        for j, columns in enumerate(parts):
            region[:, rows, columns] = 3 * i + j
    of = windows(region).squeeze(-1)
    return torch.where(of[:, None] == of[:, :, None], 0.0, -100.0)


def test_windows_that_are_shifted_and_masked():
    """A known mask beside a table of biases by relative position: both keep what they are, row by row."""
    known = shift_mask()
    where = torch.randint(0, 9, (WINDOW**4,), generator=torch.Generator().manual_seed(0))

    def forward(m, x):
        parts = windows(x.roll((-1, -1), (1, 2)))
        q, k, v = ((parts @ w).view(-1, WINDOW**2, HEADS, N // HEADS).transpose(1, 2) for w in (m.q, m.k, m.v))
        bias = m.table[where].view(WINDOW**2, WINDOW**2, HEADS).permute(2, 0, 1).unsqueeze(0)
        mask = known.repeat(x.shape[0], 1, 1).unsqueeze(1) + bias
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)

    net = Made(forward, q=(N, N), k=(N, N), v=(N, N), table=(9, HEADS))
    laws = {n: Normal(math.sqrt(1 / N)) for n in "qkv"} | {"table": Normal(0.02)}
    assert compared(net, normal(8, SIDE, SIDE, N), laws).misses(1 / N) == []


def joined(y, size: int = SIDE, n: int = WINDOW):
    """(sample * windows, n * n, feature) -> (sample, height, width, feature)."""
    return y.view(-1, size // n, size // n, n, n, y.shape[-1]).transpose(2, 3).reshape(-1, size, size, y.shape[-1])


@pytest.mark.parametrize("fused", [True, False])
def test_windows_are_told_apart_from_the_places_within(fused):
    """Places of one window become alike, windows do not: the mean over the map says which, and so does a residual's."""

    def forward(m, x):
        parts = windows(x)
        q, k, v = (parts @ w for w in (m.q, m.k, m.v))
        if fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = torch.softmax(q @ k.transpose(1, 2) / N**0.5, -1) @ v
        y = joined(y @ m.o)
        return y.mean((1, 2)), (x + y).mean((1, 2)), F.conv2d(y.permute(0, 3, 1, 2), m.c).mean((2, 3))

    net = Made(forward, q=(N, N), k=(N, N), v=(N, N), o=(N, N), c=(N, N, 1, 1))
    laws = {n: Normal(math.sqrt(1 / N)) for n in "qkvoc"} | {"q": Normal(0.01)}
    assert compared(net, normal(8, SIDE, SIDE, N), laws).misses(1 / N) == []


def test_attention_over_patches_of_neighbours():
    """Sequences that are split from the slow part of an axis: places of the fast part are windows then."""

    def forward(m, x):
        b, s, f = x.shape
        parts = x.view(b, s // 4, 4, f).transpose(1, 2).reshape(-1, s // 4, f)
        y = torch.softmax((parts @ m.q) @ (parts @ m.k).transpose(1, 2) / N**0.5, -1) @ (parts @ m.v)
        return y.mean(1), y.view(b, 4, s // 4, f).mean((1, 2))

    net = Made(forward, q=(N, N), k=(N, N), v=(N, N))
    laws = {n: Normal(math.sqrt(1 / N)) for n in "qkv"} | {"q": Normal(0.01)}
    assert compared(net, normal(8, 16, N), laws).misses(1 / N) == []


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_copies_places_of_their_own_mean_square(mode):
    """Behind zero padding the border is weaker than the middle; what is copied beside it depends on the mode."""
    middle = nn.Conv2d(N, N, 3, padding=1, bias=False)
    net = nn.Sequential(nn.Conv2d(N, N, 3, padding=1, bias=False), middle, Padded(mode))
    assert compared(net, normal(8, N, 6, 6)).misses(0.01) == []


def test_windows_of_a_padded_map_have_mean_squares_of_their_own():
    """The largest of four border pixels is less than that of four in the middle."""
    first, second = (nn.Conv2d(N, N, 3, padding=1, bias=False) for _ in range(2))
    net = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.MaxPool2d(2))
    assert compared(net, normal(16, N, 6, 6)).misses(0.01) == []


def test_pieces_of_a_concatenation_keep_their_own_correlations():
    """Strong white noise beside a weak signal that places share: behind a ReLU the mean over places is the latter's."""

    def forward(m, x):
        a = F.conv2d(x, m.a, padding=1)
        b = F.conv2d(torch.relu(F.conv2d(torch.relu(a), m.b)), m.c)
        return F.conv2d(torch.relu(torch.cat([a, b], 1)), m.d).mean((2, 3))

    net = Made(forward, a=(N, 8, 3, 3), b=(N, N, 1, 1), c=(3 * N, N, 1, 1), d=(N, 4 * N, 1, 1))
    laws = {"a": Normal(0.1), "b": Normal(0.15), "c": Normal(0.1), "d": Normal(0.1)}
    assert compared(net, normal(8, 8, 8, 8), laws).misses(0.02) == []
