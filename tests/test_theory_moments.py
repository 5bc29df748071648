"""What is worked out once and shared: moments of values, sums over pairs of places, slopes and kinds of functions."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.special import polygamma

from fanin.theory import grid, places
from fanin.theory.adjoint import slopes
from fanin.theory.contraction import known_pairs
from fanin.theory.law import Atom, Law, fresh_latent, uniform_level
from fanin.theory.levels import of_both, sums_of
from fanin.theory.mehler import solve_correlation
from fanin.theory.moments import mean_of, moments_of
from fanin.theory.rules import convolution
from fanin.theory.state import Known, reshaped
from fanin.theory.width import interval, pairs
from fanin.theory.width.state import COLUMNS, DEGREES

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


@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "padding", "dilation", "lead"),
    [
        ((4, 3, 11, 9), (3, 2), (2, 1), (1, 0), (1, 2), (Atom(4, "sample"),)),
        ((6, 2, 8, 8), (3, 3), (1, 1), (1, 1), (1, 1), (Atom(2, "sample"), Atom(3, "position"))),
        ((5, 3, 20), (4,), (3,), (2,), (2,), (Atom(5, "sample"),)),
        ((1, 3, 7, 7), (7, 7), (1, 1), (0, 0), (1, 1), ()),
        ((3, 2, 6, 5, 4), (3, 2, 2), (1, 2, 1), (1, 0, 1), (1, 1, 1), (Atom(3, "sample"),)),
    ],
)
def test_moments_of_patches_need_no_patches(shape, kernel, stride, padding, dilation, lead):
    x = np.random.default_rng(0).standard_normal(shape) + 0.3
    places = zip(shape[2:], kernel, stride, padding, dilation, strict=True)
    out = [(n + 2 * p - (k - 1) * d - 1) // s + 1 for n, k, s, p, d in places]
    node: Any = SimpleNamespace(
        shape=(shape[0], 8, *out), attrs={"dilation": dilation, "stride": stride, "padding": padding}
    )
    axes = (lead, *[(Atom(n, "position"),) for n in shape[2:]])
    patches = convolution.unfold(x, node, kernel)
    second, plain = known_pairs(patches, (*axes, ()), patches.ndim - 1)
    mean, found = convolution.patch_pairs(x, node, kernel, axes)
    assert np.isclose(mean, second.mean(), rtol=1e-13) and found.keys() == plain.keys()
    assert all(np.isclose(found[s], plain[s], rtol=1e-10, atol=1e-13) for s in plain)
    some = np.array([0, patches[..., 0].size - 1])
    assert np.array_equal(convolution.unfold(x, node, kernel, some), patches.reshape(-1, patches.shape[-1])[some])


def test_correlations_solve_mehlers_series():
    random = np.random.default_rng(0)
    coefficients = random.standard_normal((5, 7)) / 2.0 ** np.arange(7)
    r = random.uniform(0, 0.9, (5, 5))
    r = (r + r.T) / 2
    variance = (coefficients[:, 1:] ** 2).sum(1)
    for matrix in (r, np.triu(r)):  # equal both ways round, and not
        wanted = places.mehler_sum(np.abs(coefficients), matrix)
        assert np.allclose(places.solved_pairs(np.abs(coefficients), variance, wanted), matrix, atol=1e-9)
    alone = np.sum(coefficients**2 * np.diag(r)[:, None] ** np.arange(7), axis=1)
    assert np.allclose(places.solved_alone(coefficients, variance, alone), np.diag(r), atol=1e-9)


def test_shapes_of_log_gamma_variables():
    shapes = np.geomspace(1e-2, 1e5, 50)
    assert np.allclose(interval.shape_of(polygamma(1, shapes), polygamma(2, shapes)), shapes, rtol=1e-10)
    assert np.allclose(interval.shape_of(np.ones(2), np.array([0.0, -1e3])), [interval.NORMAL, np.exp(-7)])
    _, second, third = interval.log_cumulants(np.eye(1, COLUMNS) * 0.03)
    assert np.allclose((second, third), ([polygamma(1, 1 / 0.0009)], [polygamma(2, 1 / 0.0009)]), rtol=1e-12)


def test_sums_of_rows_by_owner():
    rows, owner = np.random.default_rng(0).standard_normal((9, 4)), np.array([0, 2, 2, 0, 4, 1, 2, 0, 4])
    plain = np.zeros((6, 4))
    np.add.at(plain, owner, rows)
    assert np.array_equal(sums_of(rows, owner, 6), plain)
    numbers, level = of_both(owner % 3.0, owner % 2.0)
    assert np.array_equal(numbers[:, level], [owner % 3, owner % 2])


def test_known_arrays_in_another_shape_are_not_read_again():
    known = Known(np.arange(6.0).reshape(2, 3), ((), ()))
    other = reshaped(known, (3, 2), ((), ()))
    assert other.key == Known(np.arange(6.0).reshape(3, 2), ((), ())).key != known.key


def test_no_correlation_is_solved_for_infinite_moments():
    """A mask of minus infinity that depends on weights has none; its rows stay as they are."""
    assert solve_correlation(np.array([1.0, 0.5]), np.inf, np.nan) == 0.0
    assert solve_correlation(np.array([0.0, 0.5, 0.3]), 0.5, np.nan) == 0.0
