"""Curves that collapse are told from those that do not; what layers of trained networks say is told with intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from studies import outcome, results

from fanin.errors import ArgumentError
from fanin.study import analyse
from fanin.study.layers import with_depth
from fanin.study.report.figures import drawings
from fanin.study.report.tables import collapse_rows, layer_rows
from fanin.study.report.text import to_text
from fanin.study.statistics import collapse

SCALES, RATES = (0.1, 0.3, 1.0, 3.0), tuple(np.geomspace(1e-3, 10, 7))


def losses(power: float, noise: float = 0.02, seeds: int = 4) -> np.ndarray:
    """A valley in rate / scale^power, and noise of each run."""
    u = np.log(np.array(RATES) / np.array(SCALES)[:, None] ** power)
    return np.exp(0.05 * (u + 2) ** 2 + np.random.default_rng(0).normal(0, noise, (seeds, *u.shape)))


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_the_power_of_the_scale_is_found(power):
    found = collapse(SCALES, RATES, losses(power))
    assert found.power.low <= power <= found.power.high and abs(found.power.estimate - power) < 0.2
    assert found.best.estimate > 0.95
    assert (found.by_effective.estimate > 0.95) == (power == 2) and (found.by_rate.estimate > 0.95) == (power == 0)


def test_noise_explains_nothing():
    values = np.exp(np.random.default_rng(1).normal(0, 1, (4, len(SCALES), len(RATES))))
    assert collapse(SCALES, RATES, values).by_effective.estimate < 0.3


def test_diverged_runs_are_the_worst():
    values = losses(2)
    low = np.unravel_index(values.argmin(), values.shape)
    values[low] = math.nan
    told = values.copy()
    told[low] = np.nanmax(values)
    assert collapse(SCALES, RATES, values).by_effective == collapse(SCALES, RATES, told).by_effective


def test_what_has_no_logarithm_is_refused():
    with pytest.raises(ArgumentError, match="positive"):
        collapse(SCALES, RATES, 0 * losses(2))
    with pytest.raises(ArgumentError, match="two scales"):
        collapse((1.0,), RATES, losses(2)[:, :1])


def valley(arm, levels, cell):
    """Loss by the effective rate where a norm is behind every matrix, by the rate elsewhere."""
    power = 2.0 if levels["norm"] == "batch" else 0.0
    u = math.log(cell.rate / cell.start.get("scale", 1.0) ** power)
    noise = np.random.default_rng([cell.init_seed, len(arm)]).normal()
    slopes = [0.6 + 0.01 * noise, 0.3, 0.2 + 0.01 * noise, 0.15, 0.1]
    made = outcome(math.exp(0.05 * (u + 2) ** 2 + 0.02 * noise))
    return made.__class__(**{**made.__dict__, "observed": {"start": {"slopes": [0.25] * 5}, "end": {"slopes": slopes}}})


def scaled_study():
    arms = {f"gain {scale:g}": {"recipe": "he", **({"scale": scale} if scale != 1 else {})} for scale in SCALES}
    return analyse(results(valley, arms=arms, rates=list(RATES), seeds={"choose": 3, "compare": 6}), draws=200)


def test_a_study_of_scales_says_whether_its_curves_collapse():
    found = scaled_study()
    rows = {row["factor.norm"]: row for row in collapse_rows(found)}
    assert rows["batch"]["explained_by_effective_rate"] > 0.95 > 0.5 > rows["batch"]["explained_by_rate"]
    assert rows["none"]["explained_by_rate"] > 0.95 > 0.5 > rows["none"]["explained_by_effective_rate"]
    assert "R² of rate" in to_text(found, {})
    assert "collapse" in [drawing.name for drawing in drawings(found)]
    assert not analyse(results(), draws=200).collapses  # arms that differ in more than scale


def test_layers_are_told_first_against_rest_and_with_depth():
    row = next(row for row in layer_rows(scaled_study()) if row["observed"] == "slopes")
    assert row["first_minus_rest"] == pytest.approx(0.41, abs=0.01) and row["first_minus_rest_low"] > 0.4
    assert row["rank_correlation"] == -1 and row["p_depth"] == 2 / 2**6 and row["runs"] == 6
    assert with_depth(np.array([1.0, 1.0])) == 0
    assert not layer_rows(analyse(results(), draws=200))  # nothing observed
