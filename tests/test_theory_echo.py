"""Heads tied to an embedding: predicted against drawn networks."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from test_theory_rules_contraction import Made  # noqa: E402
from test_theory_statistics import compared  # noqa: E402

from fanin.distributions import Normal  # noqa: E402

N, V = 64, 40
IDS = torch.randint(0, V, (4, 10), generator=torch.Generator().manual_seed(0))
F = torch.nn.functional


def head(forward, **shapes):
    """What is left unexplained of ``forward(module, embeddings) @ table.T``."""
    net = Made(lambda m, i: F.linear(forward(m, F.embedding(i, m.table)), m.table), table=(V, N), **shapes)
    return compared(net, IDS, {"table": Normal(0.5)}).misses()


def test_embedding_itself():
    assert head(lambda m, x: x) == []


def test_behind_a_residual_branch():
    assert head(lambda m, x: x + 2 * F.linear(x, m.w), w=(N, N)) == []


def test_behind_a_layer_norm():
    assert head(lambda m, x: F.layer_norm(x + F.linear(x, m.w), (N,)), w=(N, N)) == []


def test_behind_a_root_mean_square_norm_written_out():
    rms = lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)  # noqa: E731
    assert head(lambda m, x: rms(3 * x + F.linear(x, m.w)), w=(N, N)) == []


def test_behind_an_odd_function():
    assert head(lambda m, x: torch.tanh(3 * x)) == []


def test_behind_dropout():
    assert head(lambda m, x: F.dropout(x, 0.3, training=True)) == []


def test_fresh_weights_end_it():
    assert head(lambda m, x: torch.relu(F.linear(x, m.w)), w=(N, N)) == []


def test_transposed_table():
    net = Made(lambda m, i: F.embedding(i, m.table) @ m.table.t(), table=(V, N))
    assert compared(net, IDS, {"table": Normal(0.5)}).misses() == []


def test_a_head_of_its_own_is_told_apart():
    """A control: networks whose head is tied against the prediction for one that is not."""
    from dataclasses import replace

    tied = compared(Made(lambda m, i: F.linear(F.embedding(i, m.table), m.table), table=(V, N)), IDS)
    own = Made(lambda m, i: F.linear(F.embedding(i, m.table), m.head), table=(V, N), head=(V, N))
    assert replace(tied, predicted=compared(own, IDS, networks=2).predicted).misses()


def test_an_empty_tensor_has_no_signal():
    net = Made(lambda m, x: torch.cat([x @ m.w, (x @ m.w)[..., :0]], -1), w=(N, N))
    rows = compared(net, torch.randn(3, N), networks=2).predicted.rows
    assert [r.rms for r in rows if 0 in r.shape] == [0.0]
