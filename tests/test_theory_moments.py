"""What is worked out once and shared: moments of values, sums over pairs of places, slopes and kinds of functions."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

from fanin.theory import grid, places
from fanin.theory.adjoint import slopes
from fanin.theory.law import Law, fresh_latent, uniform_level
from fanin.theory.moments import mean_of, moments_of
from fanin.theory.width import pairs
from fanin.theory.width.state import DEGREES

VALUES = np.maximum(np.stack([grid.Z_UNIT, 2 * grid.Z_UNIT - 1]), 0)


def test_moments_are_those_of_the_grid_and_are_shared():
    values = VALUES.copy()
    laws = [Law((3,), ((),), values, uniform_level(1), fresh_latent({})) for _ in range(2)]
    assert laws[0].moments is laws[1].moments
    assert np.array_equal(laws[0].means, values @ grid.WEIGHT)
    assert np.array_equal(laws[0].seconds, values**2 @ grid.WEIGHT)
    assert np.array_equal(laws[0].coefficients, grid.hermite_coefficients(values))
    assert not laws[0].gaussian and not laws[0].deterministic
    assert moments_of(np.repeat([[1.0]], grid.POINTS, 1)).deterministic


def test_moments_are_forgotten_with_their_values():
    values = VALUES + 1
    found = weakref.ref(moments_of(values))
    assert found() is not None
    del values
    gc.collect()
    assert found() is None


@pytest.mark.parametrize("shape", [(1,), (1, 1), (5,), (3, 7)])
def test_the_mean_is_that_of_numpy(shape):
    array = np.random.default_rng(0).standard_normal(shape)
    assert mean_of(array) == np.mean(array)


def test_sums_over_pairs_of_places():
    random = np.random.default_rng(0)
    coefficients, r = random.standard_normal((6, 9)), random.uniform(-1, 1, (6, 6))
    coefficients[:, 3] = 0
    plain = sum(np.outer(c, c) * r**n for n, c in enumerate(coefficients.T))
    assert np.allclose(places.mehler_sum(coefficients, r), plain, rtol=1e-13)
    again = places.mehler_sum(coefficients.copy(), r)
    assert again is places.mehler_sum(coefficients, r)
    assert not np.allclose(places.mehler_sum(2 * coefficients, r), plain)  # other numbers are not taken for these


def test_powers_about_a_correlation():
    for r, variance in ((0.3, 0.0), (0.3, 0.04), (0.9, 0.09), (1.0, 0.0), (-0.5, 1e-6)):
        ends = np.clip([r - variance**0.5, r + variance**0.5], -1, 1)
        plain = (ends[:, None] ** np.arange(DEGREES + 1)).mean(0)
        assert np.allclose(pairs.about(r, variance), plain, rtol=1e-14)


def test_slopes_are_shared_by_function_and_values():
    values = grid.Z_UNIT[None].copy()
    first = slopes.slope(np.tanh, values)
    assert first is slopes.slope(np.tanh, values)
    assert np.allclose(first, 1 / np.cosh(values) ** 2, atol=1e-8)
    assert np.allclose(slopes.slope(np.sin, values), np.cos(values), atol=1e-8)
    assert np.allclose(slopes.slope(np.tanh, 2 * values), 1 / np.cosh(2 * values) ** 2, atol=1e-8)


def test_functions_of_one_key_are_one():
    asked = []

    @slopes.asked_once
    def question(fn):
        asked.append(fn)
        return True

    def plain(x):
        return x

    def keyed(x):
        return x

    keyed.key = plain.key = ("identity",)
    assert question(plain) and question(keyed) and question(np.sin) and asked == [plain, np.sin]
    assert slopes.is_sum(slopes._sum(2.0)) and not slopes.is_sum(slopes._product)
    assert slopes.is_product(slopes.flipped(slopes._product))
