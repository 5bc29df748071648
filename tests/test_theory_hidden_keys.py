"""Padding whose rows are zero: what a mask hides is no part of what attention averages."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import Networks
from torch import nn

import fanin
from fanin.theory.contraction import _same_id, _same_row
from fanin.theory.latent import Atom
from fanin.theory.state import Known

WIDTH, NETWORKS = 64, 10


class Padded(nn.Module):
    """An embedding with a row of zeros, attention that sees the others (or all), and a norm over the sum."""

    def __init__(self, masked: bool = True):
        super().__init__()
        self.masked = masked
        self.embed = nn.Embedding(100, WIDTH, padding_idx=0)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.norm, self.out = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 32)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        q, k, v = self.qkv(x).view(*ids.shape, 3, 2, WIDTH // 2).permute(2, 0, 3, 1, 4)
        mask = (ids != 0)[:, None, None, :] if self.masked else None
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(self.norm(x + y.transpose(1, 2).flatten(2)))


def ids() -> torch.Tensor:
    found = torch.randint(1, 100, (4, 32), generator=torch.Generator().manual_seed(2))
    for sample, length in enumerate((32, 20, 8, 12)):
        found[sample, length:] = 0
    return found


def compared(masked: bool) -> dict[str, tuple[float, float, float]]:
    """Predicted, measured and relative standard error: attention's rms, and the gradient before the norm."""
    said, seen = None, []
    networks = Networks(ids())
    for seed in range(NETWORKS):
        torch.manual_seed(seed)
        model = Padded(masked)
        said = fanin.predict(model, ids()) if said is None else said
        measured = networks.measure(model, seed=seed)
        seen.append([measured["/scaled_dot_product_attention"].rms ** 2, measured["/add"].grad_rms ** 2])
    mean, error = np.mean(seen, 0), np.std(seen, 0, ddof=1) / NETWORKS**0.5
    own = (said["/scaled_dot_product_attention"].rms, said["/add"].grad_rms)
    return {n: (own[i], mean[i] ** 0.5, error[i] / mean[i] / 2) for i, n in enumerate(("attention", "gradient"))}


@pytest.mark.parametrize("masked", [True, False], ids=["hidden", "seen"])
def test_attention_averages_what_it_sees(masked: bool) -> None:
    """Over all places values are .75 as large: attention was 27 % too small, a norm's gradient as much too large."""
    for said, measured, error in compared(masked).values():
        assert said == pytest.approx(measured, rel=4 * error + 0.05)


def test_hidden_keys_make_a_difference() -> None:
    """A control: what is right where zeros are seen is not where they are hidden."""
    torch.manual_seed(0)
    hidden, seen = (fanin.predict(Padded(m), ids())["/scaled_dot_product_attention"].rms for m in (True, False))
    assert hidden > 1.25 * seen


def test_pairs_of_rows_that_are_not_zero() -> None:
    """Pair moments are (share of rows)^2 r: r counts pairs of the others alone."""
    axes = ((Atom(4, "sample"),), (Atom(32, "position"),))
    known = Known(ids().numpy(), axes, True)
    array = known.array
    beside = frozenset(("position",))
    pairs = [(a, b) for row in array for i, a in enumerate(row) for j, b in enumerate(row) if i != j]
    share = sum(a == b != 0 for a, b in pairs) / len(pairs)
    assert _same_row(known, 0)[beside] == pytest.approx(share / (array != 0).mean() ** 2)
    assert _same_row(known, -1) == _same_id(known)
