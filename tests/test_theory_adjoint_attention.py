"""Backward through attention, fused and spelled out: queries, keys, values and their weights, against measured."""

from __future__ import annotations

import pytest
import torch
from test_theory_adjoint import errors, hold
from torch import nn

import fanin


class Attention(nn.Module):
    """Pre-norm attention with a residual, and a dense head of many outputs."""

    def __init__(self, layers: int, causal: bool, width: int = 128, heads: int = 4):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.stem = nn.Linear(width, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.ins = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(layers))
        self.outs = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, tokens, width) to the same."""
        x = self.stem(x)
        for norm, project, out in zip(self.norms, self.ins, self.outs, strict=True):
            parts = project(norm(x)).view(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            q, k, v = parts[0], parts[1], parts[2]
            y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
            x = x + out(y.transpose(1, 2).reshape(x.shape))
        return x


@pytest.mark.parametrize("causal", [True, False])
def test_queries_keys_and_values(causal: bool) -> None:
    torch.manual_seed(1234)
    batch = torch.randn(3, 12, 128) + torch.randn(3, 1, 128)  # tokens of a sample have something in common
    hold(errors(lambda: Attention(2, causal), batch, 10), slack=0.04)


class SpelledOut(Attention):
    """The same in its own operations, with dropout of the weights."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, tokens, width) to the same."""
        x = self.stem(x)
        for norm, project, out in zip(self.norms, self.ins, self.outs, strict=True):
            parts = project(norm(x)).view(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            logits = parts[0] @ parts[1].transpose(-1, -2) / parts.shape[-1] ** 0.5
            y = nn.functional.dropout(torch.softmax(logits, -1), 0.1, self.training) @ parts[2]
            x = x + out(y.transpose(1, 2).reshape(x.shape))
        return x


def test_spelled_out_what_all_keys_have_in_common_sends_queries_nothing() -> None:
    torch.manual_seed(1234)
    batch = torch.randn(3, 12, 128) + torch.randn(3, 1, 128)
    hold(errors(lambda: SpelledOut(2, causal=False), batch, 10), slack=0.04)


class Masked(Attention):
    """Causal and spelled out, the mask written in one of the usual ways."""

    how = "add"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, tokens, width) to the same."""
        n, lowest = x.shape[1], torch.finfo(x.dtype).min
        hidden = torch.ones(n, n, dtype=torch.bool).triu(1)
        x = self.stem(x)
        for norm, project, out in zip(self.norms, self.ins, self.outs, strict=True):
            parts = project(norm(x)).view(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            logits = parts[0] @ parts[1].transpose(-1, -2) * parts.shape[-1] ** -0.5
            if self.how == "capped":
                logits = 50 * torch.tanh(logits / 50)
            if self.how == "where":
                logits = torch.where(hidden, torch.full([], lowest), logits)
            else:
                logits = logits + torch.zeros(n, n).masked_fill(hidden, lowest)
            weights = torch.softmax(logits, -1)
            weights = nn.functional.dropout(weights, 0.2, self.training) if self.how == "dropped" else weights
            x = x + out((weights @ parts[2]).transpose(1, 2).reshape(x.shape))
        return x


@pytest.mark.parametrize("how", ["add", "where", "capped", "dropped"])
def test_spelled_out_behind_a_causal_mask_positions_have_moments_of_their_own(how: str) -> None:
    torch.manual_seed(1234)
    batch = torch.randn(2, 40, 128)

    def build() -> nn.Module:
        net = Masked(2, causal=True)
        net.how = how
        return net

    hold(errors(build, batch, 10), slack=0.04)


def test_a_bias_that_shifts_all_keys_has_no_gradient() -> None:
    """Softmax does not see what is added to all logits of a row, fused or spelled out."""

    class Keys(nn.Module):
        def __init__(self, fused: bool):
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(64, 64) for _ in range(3))
            self.fused = fused

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = self.q(x), self.k(x), self.v(x)
            if self.fused:
                return nn.functional.scaled_dot_product_attention(*(y.unsqueeze(1) for y in (q, k, v)))
            lowest = torch.finfo(x.dtype).min  # causal, and held where the type ends, as some do
            masked = q @ k.transpose(1, 2) / 8 + torch.full((8, 8), lowest).triu(1)
            return torch.softmax(torch.max(masked, torch.tensor(lowest)), -1) @ v

    for fused in (True, False):
        found = fanin.predict(Keys(fused), torch.randn(2, 8, 64)).parameters
        assert found["k.bias"]["grad_rms"] == 0
        assert found["q.bias"]["grad_rms"] > 0


class Apart(nn.Module):
    """Attention with projections of their own for queries, keys and values."""

    def __init__(self, width: int = 64):
        super().__init__()
        self.stem, self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, tokens, width) to the same."""
        x = self.stem(x)
        return nn.functional.scaled_dot_product_attention(*(f(x).unsqueeze(1) for f in (self.q, self.k, self.v)))


class ApartSpelled(Apart):
    """The same in its own operations."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, tokens, width) to the same."""
        x = self.stem(x)
        q, k, v = (f(x).unsqueeze(1) for f in (self.q, self.k, self.v))
        return torch.softmax(q @ k.mT / x.shape[-1] ** 0.5, -1) @ v


class ApartConvolved(ApartSpelled):
    """The same with convolutions of one tap."""

    def __init__(self, width: int = 64):
        super().__init__()
        self.q, self.k, self.v = (nn.Sequential(Turned(), nn.Conv1d(width, width, 1), Turned()) for _ in range(3))


class Turned(nn.Module):
    """Features and tokens swapped."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, a, b) to (samples, b, a)."""
        return x.mT


@pytest.mark.parametrize("common", [0.0, 1.0])
@pytest.mark.parametrize("make", [Apart, ApartSpelled, ApartConvolved])
def test_keys_hear_of_tokens_that_agree_by_chance(make, common) -> None:
    torch.manual_seed(1234)
    batch = torch.randn(2, 96, 64) + common * torch.randn(2, 1, 64)  # what all have in common is no agreement
    found = errors(make, batch, 10)
    ends = ("q", "k", "v") if make is not ApartConvolved else ("q.1", "k.1", "v.1")
    hold({n: found[n] for n in (*ends, *(f"{n}.weight" for n in ends))}, slack=0.06)


class Windows(Apart):
    """The same inside windows of eight tokens."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, tokens, width) to (windows, 1, 8, width)."""
        x = self.stem(x).view(-1, 8, x.shape[-1])
        return nn.functional.scaled_dot_product_attention(*(f(x).unsqueeze(1) for f in (self.q, self.k, self.v)))


def test_windows_have_nothing_to_do_with_each_other() -> None:
    def make() -> nn.Module:
        net = Windows()
        net.v = nn.Linear(64, 64)
        return net

    torch.manual_seed(1234)
    found = errors(make, torch.randn(2, 96, 64), 12)
    hold({n: found[n] for n in ("v.bias", "v.weight", "q.weight", "k.weight")}, slack=0.06)


class ReadByOne(nn.Module):
    """Patches that a class token attends to, of which alone the head reads."""

    def __init__(self, width: int = 192, tokens: int = 48):
        super().__init__()
        self.embed, self.norm = nn.Linear(width, width), nn.LayerNorm(width)
        self.qkv, self.head = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.first = nn.Parameter(torch.randn(1, 1, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, tokens, width) to (samples, width)."""
        y = torch.cat([self.first.expand(len(x), -1, -1), self.embed(x)], 1)
        q, k, v = self.qkv(self.norm(y)).chunk(3, -1)
        return self.head((y + nn.functional.scaled_dot_product_attention(q, k, v))[:, 0])


def test_patches_that_one_token_looks_at_hear_one_gradient() -> None:
    torch.manual_seed(1234)
    found = errors(ReadByOne, torch.randn(4, 48, 192), 8)
    hold({name: found[name] for name in ("embed", "embed.bias", "embed.weight", "first")}, 0.03)


class SharedHeads(nn.Module):
    """Causal attention with two queries to a head of keys and values, which are repeated."""

    def __init__(self, width: int = 128, heads: int = 2):
        super().__init__()
        self.stem, self.norm, self.q = nn.Linear(width, width), nn.LayerNorm(width), nn.Linear(width, width)
        self.k, self.v, self.out = nn.Linear(width, width // 2), nn.Linear(width, width // 2), nn.Linear(width, width)
        self.heads = heads

    def repeated(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, tokens, features) to (samples, 2 heads, tokens, features of a head)."""
        x = x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)
        return x[:, :, None].expand(-1, -1, 2, -1, -1).reshape(len(x), 2 * self.heads, *x.shape[2:])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, tokens, width) to the same."""
        y = self.norm(self.stem(x))
        q = self.q(y).view(*x.shape[:2], 2 * self.heads, -1).transpose(1, 2)
        k, v = self.repeated(self.k(y)), self.repeated(self.v(y))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(x.shape))


def test_heads_that_share_keys_and_values_sum_what_tokens_have_in_common() -> None:
    torch.manual_seed(1234)
    found = errors(SharedHeads, torch.randn(3, 32, 128), 10)
    assert "k.bias" not in found or found["k.bias"][0] == -1.0  # shifts change nothing: what is measured is rounding
    hold({name: e for name, e in found.items() if name != "k.bias"}, 0.06)


class OnSinusoids(nn.Module):
    """Attention on tokens that are mostly their position, of which neighbours are alike; a mask that hides nothing."""

    def __init__(self, width: int = 128, tokens: int = 32):
        super().__init__()
        self.stem, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        angle = torch.arange(float(tokens))[:, None] * 1000.0 ** -torch.linspace(0, 1, width // 2)
        self.register_buffer("places", torch.cat([torch.sin(angle), torch.cos(angle)], -1))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, tokens, width) to the same."""
        y = self.norm(0.05 * self.stem(x) + self.places)
        q, k, v = (f(y).view(*x.shape[:2], 4, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        mask = torch.ones(len(x), 1, x.shape[1], x.shape[1], dtype=torch.bool)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(mixed.transpose(1, 2).reshape(x.shape))


def test_what_near_positions_have_in_common_reaches_queries_behind_a_mask_that_hides_nothing() -> None:
    torch.manual_seed(1234)
    found = errors(OnSinusoids, torch.randn(2, 32, 128), 10)
    hold({name: found[name] for name in ("q", "k", "v", "q.weight", "k.weight", "v.weight", "q.bias")}, 0.06)


class SharedHeadsSpelled(SharedHeads):
    """The same in its own operations, and every query looks at all keys."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, tokens, width) to the same."""
        y = self.norm(self.stem(x))
        q = self.q(y).view(*x.shape[:2], 2 * self.heads, -1).transpose(1, 2)
        k, v = self.repeated(self.k(y)), self.repeated(self.v(y))
        mixed = torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1) @ v
        return self.out(mixed.transpose(1, 2).reshape(x.shape))


def test_copies_of_keys_and_values_in_spelled_out_attention_hear_of_heads_of_their_own() -> None:
    torch.manual_seed(1234)
    found = errors(SharedHeadsSpelled, torch.randn(3, 32, 128), 10)
    hold({name: found[name] for name in ("q", "k", "v", "q.weight", "k.weight", "v.weight", "v.bias")}, 0.06)
