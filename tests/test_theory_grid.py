"""Numbers on the grid of the latent: sorted, and read from the coarse grid."""

import numpy as np
import pytest

from fanin.theory import grid

COUNT = grid.COARSE**2


@pytest.mark.parametrize(
    "values",
    [
        lambda r: r.normal(size=COUNT),
        lambda r: np.maximum(r.normal(size=COUNT), 0),
        lambda r: -np.maximum(r.normal(size=grid.MANY), 0) - 1,
        lambda r: np.round(r.normal(size=5000), 1) + 0.05,
        lambda r: r.normal(size=COUNT) * 1e300,
        lambda r: np.append(r.normal(size=grid.MANY), [np.inf, -np.inf, np.nan]),
        lambda r: r.normal(size=7),
        lambda r: np.zeros(0),
    ],
    ids=["normal", "zeros", "negative", "ties", "huge", "not finite", "few", "none"],
)
def test_numbers_are_ordered_as_by_a_stable_sort(values):
    numbers = values(np.random.default_rng(0))
    np.testing.assert_array_equal(grid.order_of(numbers), np.argsort(numbers, kind="stable"))


def test_numbers_that_are_nearly_equal_keep_their_places():
    numbers = np.pi + np.random.default_rng(0).normal(size=COUNT) * 1e-14
    assert (grid.order_of(numbers) == np.arange(COUNT)).all()
    assert not (np.argsort(numbers, kind="stable") == np.arange(COUNT)).all()  # the control: as they are they differ


def test_the_coarse_grid_is_read_as_lines_between_its_nodes():
    rows = np.random.default_rng(0).normal(size=(3, grid.COARSE))
    wanted = [np.interp(grid.Z_UNIT, grid.Z_COARSE, row) for row in rows]
    np.testing.assert_allclose(grid.from_coarse(rows), wanted, rtol=0, atol=1e-13)
