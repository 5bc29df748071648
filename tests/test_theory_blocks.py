"""Attention over windows that a mask cuts into blocks (shifted windows): how many queries look at a key, backward."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from networks import Networks  # noqa: E402
from torch import nn  # noqa: E402

import fanin  # noqa: E402
from fanin.theory.rows import columns  # noqa: E402

WIDTH, TOKENS, WINDOWS, NETWORKS = 48, 24, 4, 16


def cut(at: int) -> torch.Tensor:
    """A mask of a window that is cut into two blocks."""
    block = torch.arange(TOKENS) >= at
    return torch.zeros(TOKENS, TOKENS).masked_fill(block[:, None] != block[None, :], -100.0)


class Windowed(nn.Module):
    """Attention in windows; four sums of places are read by weights of their own, as where patches are merged."""

    def __init__(self, masked: bool, fused: bool):
        super().__init__()
        self.fused = fused
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.out, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        masks = [cut(at if masked else 0) for at in (0, 12, 8, 4)]
        self.register_buffer("mask", torch.stack(masks)[:, None])

    def forward(self, x):
        n = len(x)
        heads = [f(x.reshape(-1, TOKENS, WIDTH)).view(-1, TOKENS, 2, WIDTH // 2).transpose(1, 2) for f in
                 (self.q, self.k, self.v)]  # fmt: skip
        mask = self.mask.repeat(n, 1, 1, 1)
        if self.fused:
            y = nn.functional.scaled_dot_product_attention(*heads, attn_mask=mask)
        else:
            y = (heads[0] @ heads[1].transpose(-2, -1) * (WIDTH // 2) ** -0.5 + mask).softmax(-1) @ heads[2]
        y = self.out(y.transpose(1, 2).reshape(n, WINDOWS * TOKENS, WIDTH))
        return self.head(y.reshape(n, -1, 4 * WIDTH)).mean(1)


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "spelled out"])
@pytest.mark.parametrize("masked", [True, False], ids=["blocks", "control"])
def test_values_hear_those_queries_that_look_at_them(masked, fused):
    torch.manual_seed(0)
    x, found = torch.randn(8, WINDOWS * TOKENS, WIDTH), []
    networks = Networks(x)
    for seed in range(NETWORKS):
        torch.manual_seed(seed + 1)
        rows = networks.measure(Windowed(masked, fused))
        found.append((rows["v"].grad_rms / rows["out"].grad_rms) ** 2)
    rows = fanin.predict(Windowed(masked, fused), x)
    said, mean = (rows["v"].grad_rms / rows["out"].grad_rms) ** 2, float(np.mean(found))
    error = float(np.std(found, ddof=1) / np.sqrt(NETWORKS))
    assert abs(said - mean) < 4 * error + 0.1 * mean  # one number of keys stands for rows of 4 to 24


def test_hidden_keys_and_blocks_differ_in_who_looks_where():
    padded = np.zeros((6, 6))
    padded[:, :3] = 1 / 3  # all six look at three
    blocks = np.kron(np.eye(2), np.full((3, 3), 1 / 3))  # all six are looked at by three
    hidden, cut_, plain = columns(padded, 6, 6), columns(blocks, 6, 6), columns(np.full((1, 1), 1 / 6), 6, 6)
    assert (hidden.queries, hidden.counts, hidden.spread) == pytest.approx((6, 3, 0.5))
    assert (cut_.queries, cut_.counts, cut_.spread) == pytest.approx((3, 3, 1.0))
    assert (plain.queries, plain.counts, plain.spread) == pytest.approx((6, 6, 1.0))
