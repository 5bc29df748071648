"""Moments of softmax rows between round variances: cubics against the integral itself."""

from __future__ import annotations

import numpy as np
import pytest

from fanin.theory import concentration as theory


@pytest.mark.parametrize("table", [theory._integrated, theory._jacobian, theory.along_query, theory._along_key])
@pytest.mark.parametrize("variance", [1e-5, 0.03, 1.0, 10.73, 400.0, 1599.0])
def test_cubics_between_round_variances(table, variance):
    counts = np.array([2.0, 7.0, 200.0])
    found, wanted = np.exp(theory._log_at(table, variance, tuple(counts))), table(variance, counts)
    assert found == pytest.approx(wanted, rel=1e-6)


def test_rows_of_one_key_and_equal_logits():
    counts = np.array([1.0, 4.0])
    assert theory.concentrations(0.0, counts) == pytest.approx(1 / counts)
    assert theory.concentrations(9.0, counts)[0] == pytest.approx(1.0)
    assert theory.let_through(0.0, counts) == pytest.approx((1 - 1 / counts) / counts)


def test_neighbouring_variances_share_their_integrals():
    theory._log_node.cache_clear()
    for variance in np.linspace(1.0, 1.02, 30):
        theory.concentrations(variance, np.array([3.0, 5.0]))
    assert theory._log_node.cache_info().misses <= 5
