"""Correlations of every two places from their pair moments, and levels that stay as they are."""

from __future__ import annotations

import numpy as np

from fanin.theory import grid, places
from fanin.theory.levels import compress


def series(coefficients: np.ndarray, r: np.ndarray) -> np.ndarray:
    return np.sum([np.outer(c, c) * r**k for k, c in enumerate(coefficients.T)], axis=0)


def drawn(n: int = 24) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    coefficients = np.abs(rng.standard_normal((n, 8))) / (1 + np.arange(8)) ** 2
    r = rng.uniform(0, 0.9, (n, n))  # where all terms rise
    return coefficients, (r + r.T) / 2


def test_pairs_are_solved_each_way_where_they_differ():
    coefficients, r = drawn()
    wanted = series(coefficients, r)
    found = places.solved_pairs(coefficients, (coefficients**2)[:, 1:].sum(1), wanted)
    assert np.allclose(series(coefficients, found), wanted, atol=1e-9)
    wanted[3, 7] += 1e-3  # one of both ways alone
    apart = places.solved_pairs(coefficients, (coefficients**2)[:, 1:].sum(1), wanted)
    assert np.allclose(series(coefficients, apart), wanted, atol=1e-9)
    assert apart[3, 7] != apart[7, 3]
    changed = np.abs(apart - found) > 1e-9
    assert changed[3, 7] and changed.sum() == 1


def test_levels_of_which_none_are_alike_are_left_alone():
    values = np.array([1.0, 2.0, 3.0])[:, None] * grid.Z_UNIT
    level = np.array([0, 1, 2, 1], np.int32)
    kept, same = compress(values, level)
    assert kept is values and np.array_equal(same, level)
    for other, of in ((np.concatenate([values, values[:1]]), np.array([0, 1, 2, 3])), (values, np.array([0, 1, 1]))):
        merged, where = compress(other, of)  # two alike, and one that no place has
        assert len(merged) < len(other) and np.allclose(merged[where], other[of])


def test_places_of_one_law_have_one_coefficient_a_degree():
    coefficients, r = drawn()
    one = np.repeat(coefficients[:1], len(coefficients), 0)
    assert np.allclose(places.mehler_sum(one, r), series(one, r))
    assert np.allclose(places.mehler_sum(coefficients, r), series(coefficients, r))
    assert not np.allclose(series(one, r), series(coefficients, r))
    found = places.solved_pairs(one, (one**2)[:, 1:].sum(1), series(one, r))
    assert np.allclose(found, r, atol=1e-8)
