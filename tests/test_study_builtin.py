"""Every built-in study at size xs: the same table from the process pool, stacked, and on Ray; and after being killed.

Networks that train one by one are the same bit for bit wherever they run. Stacked ones agree to float32 rounding, which
training amplifies: where a ReLU's argument crosses zero by it, or a deep net is chaotic, by many powers of ten. How far
is measured: the same study on the pool with every weight moved by two units in the last place.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fanin.study as st
from fanin.errors import StudyError

pytestmark = pytest.mark.slow

ROUNDING = 2.0**-22
"""Relative change of the weights in a run that shows what rounding does: two units in the last place of float32."""

FACTOR = 10
"""Engines may differ by so many times what rounding does. Both are largest differences over the trials of a condition,
each decided by the one or two trials that it threw off most: alike in order of magnitude, not in more."""

FLOOR = 1e-5
"""Share of a condition's mean outcome below which no difference counts."""

MOMENTS = 20

Key = tuple[object, str, float, int, int]


def trials(found: st.Results) -> dict[Key, tuple[str, float]]:
    """(condition, arm, rate, seeds) -> status and outcome; those that chose a rate, too."""
    assert not found.missing and not [t for t in found.failures() if t.arm != "anyinit"]
    name = found.study.compare.outcome
    cells = ((t, t.cell) for t in found.trials)
    return {
        (t.condition, t.arm, c.rate, c.init_seed, c.data_seed): (t.outcome.status, t.outcome.value(name))
        for t, c in cells
    }


def by_condition(one: dict, other: dict) -> dict[object, np.ndarray]:
    """condition -> largest difference of a finite outcome, and the mean outcome, over the trials that both have."""
    places: dict[object, list[tuple[float, float]]] = {}
    for key in one.keys() & other.keys():
        a, b = one[key][1], other[key][1]
        if math.isfinite(a) and math.isfinite(b):
            places.setdefault(key[0], []).append((abs(a - b), abs(a)))
    return {place: np.array([max(d for d, _ in seen), np.mean([a for _, a in seen])]) for place, seen in places.items()}


def assert_close(one: dict, rounded: list[dict], other: dict) -> None:
    """Differences are those of rounding; so are the statuses and chosen rates that differ."""
    noise = [by_condition(one, moved) for moved in rounded]
    for place, (far, mean) in by_condition(one, other).items():
        allowed = FACTOR * max(seen[place][0] for seen in noise) + FLOOR * mean
        assert far <= allowed, (place, far, allowed)
    assert len(one.keys() & other.keys()) > 0.9 * len(one)  # another chosen rate moves an arm's compared trials
    assert flipped(one, other) <= set().union(*(flipped(one, moved) for moved in rounded))


def flipped(one: dict, other: dict) -> set[object]:
    """Conditions in which a trial ended with another status: on the brink of divergence rounding decides."""
    return {key[0] for key in one.keys() & other.keys() if one[key][0] != other[key][0]}


@pytest.fixture(scope="module")
def pooled(tmp_path_factory):
    """Trials of the process pool, each study run once; with the weights moved by rounding, too."""
    folder, made = tmp_path_factory.mktemp("pool"), {}

    def of(name: str, moved: int = 0) -> dict:
        if (name, moved) not in made:
            study = st.read(name, "xs")
            if moved:
                study = replace(
                    study, arms=tuple(replace(a, scale=a.scale * (1 + moved * ROUNDING)) for a in study.arms)
                )
            found = st.run(study, store=folder / f"{name}{moved}.sqlite", engine="local")
            made[name, moved] = trials(found)
        return made[name, moved]

    return of


@pytest.mark.parametrize("engine", ["vectorized", "ray"])
@pytest.mark.parametrize("name", st.names())
def test_engines_give_the_same_table(name, engine, pooled, tmp_path):
    if engine == "ray":
        pytest.importorskip("ray", reason="the extra ray is not installed")
    found = st.run(name, size="xs", store=tmp_path / "s.sqlite", engine=engine, workers=2)
    assert_close(pooled(name), [pooled(name, 1), pooled(name, -1)], trials(found))


def test_another_start_is_no_rounding(pooled):
    """The control: of weights a thousandth larger the tables differ by more."""
    name = "glorot-2010"
    with pytest.raises(AssertionError):
        assert_close(pooled(name), [pooled(name, 1), pooled(name, -1)], pooled(name, 4000))


@pytest.mark.parametrize("name", st.names())
def test_killed_at_twenty_moments_it_ends_with_the_same_table(name, pooled, tmp_path):
    store, done, killed = tmp_path / "s.sqlite", 0, 0
    begin = [sys.executable, "-c", "from fanin.cli import main; main()"]
    command = [*begin, "study", "run", name, "--size", "xs", "--engine", "local"]
    for moment in np.random.default_rng(0).uniform(3, 15, MOMENTS):
        killed += _killed([*command, "--store", str(store)], float(moment))
        now = _stored(store)
        assert now >= done  # nothing that ended is lost
        done = now
    assert killed
    again, whole = trials(_finished(name, store)), pooled(name)
    assert again.keys() == whole.keys()
    for key, (status, value) in whole.items():
        assert again[key][0] == status and (again[key][1] == value or math.isnan(value)), key


def _killed(command: list[str], moment: float) -> bool:
    """Whether it was still running."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        process.wait(moment)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        return True
    return False


def _stored(store: Path) -> int:
    try:
        return len(st.load(store).trials)
    except StudyError:  # killed before there was a store, or a study in it
        return 0


def _finished(name: str, store: Path) -> st.Results:
    deadline = time.monotonic() + 20
    while True:  # orphaned workers notice within a second
        try:
            return st.run(name, size="xs", store=store, engine="local")
        except StudyError:
            assert time.monotonic() < deadline
            time.sleep(0.2)
