"""``torch.nn.Transformer`` with a causal mask: attention spelled out by a softmax of its own, or one operation."""

import numpy as np
import pytest
import torch
from networks import Networks
from torch import nn

import fanin

NETWORKS = 6


class Translator(nn.Module):
    def __init__(self, dropout: float):
        super().__init__()
        self.words = nn.Embedding(50, 64)
        self.body = nn.Transformer(64, 4, 1, 1, 128, dropout=dropout, batch_first=True)
        self.head = nn.Linear(64, 50)

    def forward(self, x):
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], device=x.device)
        return self.head(self.body(self.words(x), self.words(x), tgt_mask=mask))


@pytest.mark.parametrize(
    ("dropout", "op", "count"), [(0.1, "_safe_softmax", 3), (0.0, "_scaled_dot_product_flash_attention_for_cpu", 3)]
)
def test_every_tensor_is_modelled_and_attention_is_what_is_measured(dropout, op, count):
    batch = torch.randint(0, 50, (4, 12), generator=torch.Generator().manual_seed(0))
    said, signals = None, {}
    networks = Networks(batch)
    for seed in range(NETWORKS):
        torch.manual_seed(seed)
        model = Translator(dropout)
        said = said or fanin.predict(model, batch)
        for row in networks.measure(model, seed=seed).rows:
            signals.setdefault(row.name, []).append((row.rms**2, (row.grad_rms or 0.0) ** 2))
    assert said is not None and not [row.name for row in said.rows if row.rms is None or row.grad_rms is None]
    weights = [row for row in said.rows if row.op == op]
    assert len(weights) == count, sorted({row.op for row in said.rows})
    for row in weights:
        squares = np.array(signals[row.name])
        error = np.std(squares, axis=0, ddof=1) / np.sqrt(NETWORKS) / squares.mean(0) / 2
        found = np.array([row.rms, row.grad_rms]) / np.sqrt(squares.mean(0)) - 1
        assert (np.abs(found) < 4 * error + 0.03).all(), (row.name, found, error)
