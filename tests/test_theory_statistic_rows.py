"""A norm written out: its statistic fluctuates by itself, and yet what is divided by it has unit mean square."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from test_theory_rules_contraction import Made  # noqa: E402
from test_theory_statistics import compared, normal  # noqa: E402


def rms_norm(x):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


@pytest.mark.parametrize("n", [8, 16, 64])
def test_root_mean_square_norm_over_few_elements(n):
    net = Made(lambda m, x: rms_norm(x @ m.w), w=(96, n))
    assert compared(net, normal(16, 96), networks=96).misses(0.01) == []


def test_without_fluctuation_it_would_be_missed():
    """A control: the same statistic over many elements."""
    from dataclasses import replace

    few, many = (compared(Made(lambda m, x: rms_norm(x @ m.w), w=(96, n)), normal(16, 96)) for n in (8, 4096))
    assert replace(few, predicted=many.predicted).misses(0.01)
