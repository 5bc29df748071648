"""Keys and values read off one tensor by layers of their own: how far their agreement by chance is one."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from test_theory_adjoint import errors, hold  # noqa: E402
from torch import nn  # noqa: E402

import fanin  # noqa: E402
from fanin.theory import spread  # noqa: E402
from fanin.theory.descent import ROOT, in_common, renamed  # noqa: E402

WIDTH, SIDE = 48, 12
IDS = torch.randperm(900, generator=torch.Generator().manual_seed(0))[: 2 * SIDE**2].reshape(2, SIDE**2)


class Kernel(nn.Module):
    """A depthwise convolution and its batch norm over tokens laid out as a map."""

    def __init__(self):
        super().__init__()
        self.kernel, self.norm = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH), nn.BatchNorm2d(WIDTH)

    def forward(self, x):
        return self.norm(self.kernel(x.transpose(1, 2).unflatten(2, (SIDE, SIDE)))).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Attention of tokens whose keys and values are each read through kernels of their own, or one for both."""

    def __init__(self, fused: bool, one: bool):
        super().__init__()
        self.table, self.fused = nn.Embedding(900, WIDTH), fused
        self.of_k = Kernel()
        self.of_v = None if one else Kernel()
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))

    def forward(self, ids):
        x = self.table(ids)
        near = self.of_k(x)
        far = near if self.of_v is None else self.of_v(x)
        q, k, v = self.q(x), self.k(near), self.v(far)
        if self.fused:
            return nn.functional.scaled_dot_product_attention(*(t[:, None] for t in (q, k, v)))
        return (q @ k.transpose(1, 2) / WIDTH**0.5).softmax(-1) @ v


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("one", [True, False])
def test_queries_behind_kernels_of_their_own(fused: bool, one: bool) -> None:
    found = errors(lambda: Attention(fused, one), IDS, 16)
    hold({n: found[n] for n in ("q", "k", "v", "q.weight", "k.weight", "v.weight")}, 0.06)


def test_one_is_told_from_the_other() -> None:
    """A control: what is said of one kernel for both, with networks of two."""
    said, other = (fanin.predict(Attention(True, one).train(), IDS) for one in (True, False))
    (one,), (two,) = ([r.grad_rms for r in p.rows if r.name == "q"] for p in (said, other))
    assert one is not None and two is not None
    assert one > 1.3 * two


def test_what_two_have_in_common_is_of_the_nearest_that_both_heard() -> None:
    keys, values = ((5, 1.0, 1.0), (3, 0.25, 0.5), (ROOT, 0.1, 0.5)), ((7, 1.0, 1.0), (3, 0.04, 0.5), (ROOT, 0.01, 0.5))
    assert in_common(keys, values) == pytest.approx(0.1)
    assert in_common(keys, ((3, 0.04, 1.0),)) == pytest.approx(0.05)  # a mean over taps beside none
    assert in_common(keys, keys) == 1.0
    assert in_common(keys, ()) == 1.0  # not followed
    assert in_common(keys[:1], values[:1]) == 0.0
    assert renamed(keys[1:], lambda i: i + 1) == ((4, 0.25, 0.5), (ROOT, 0.1, 0.5))


class Stream(nn.Module):
    """Attention behind branches that are added to the stream that they read."""

    def __init__(self, width: int = 64, depth: int = 5):
        super().__init__()
        self.stem = nn.Linear(192, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth + 1))
        self.up = nn.ModuleList(nn.Linear(width, 4 * width) for _ in range(depth))
        self.down = nn.ModuleList(nn.Linear(4 * width, width) for _ in range(depth))
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x):
        x = self.stem(x)
        for norm, up, down in zip(self.norms, self.up, self.down, strict=False):
            x = x + 3 * down(nn.functional.gelu(up(norm(x))))
        x = self.norms[-1](x)
        return nn.functional.scaled_dot_product_attention(*(f(x)[:, None] for f in (self.q, self.k, self.v)))


TOKENS = torch.randn(4, 96, 192, generator=torch.Generator().manual_seed(1))


def of_queries(nets: int) -> dict:
    found = errors(Stream, TOKENS, nets)
    return {n: found[n] for n in ("q", "k", "v", "q.weight", "k.weight")}


def test_branches_agree_as_the_stream_does_that_they_read() -> None:
    hold(of_queries(24), 0.05)


def test_branches_that_agree_for_themselves(monkeypatch) -> None:
    """A control: deviations of stream and branch added by their squares."""
    monkeypatch.setattr(spread, "_together", lambda whole, *rest: whole)
    error, noise = of_queries(8)["q"]
    assert error < -0.1 - 4 * noise
