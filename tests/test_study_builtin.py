"""Every built-in study at size xs: the same table from the process pool, stacked, and on Ray; and after being killed.

Networks that train one by one are the same bit for bit wherever they run. Stacked ones agree to float32 rounding, which
training amplifies step by step: over the 8 to 100 steps of size xs to less than a hundredth of what seeds differ by.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import fanin.study as st
from fanin.errors import StudyError

pytestmark = pytest.mark.slow

CLOSE = 0.01
MOMENTS = 20


def table(found: st.Results) -> dict:
    """(condition, arm) -> chosen rate, statuses, outcomes by seed."""
    name = found.study.compare.outcome
    return {
        (c, arm.name): (
            found.choices[c, arm.name].rate,
            [trial.outcome.status for trial in found.compared(c, arm.name)],
            list(found.outcomes(c, arm.name, name).values()),
        )
        for c in found.conditions
        for arm in found.study.arms
    }


def assert_same(one: dict, other: dict, *, exact: bool) -> None:
    assert list(one) == list(other)
    for place, (rate, statuses, values) in one.items():
        assert other[place][:2] == (rate, statuses), place
        fine = [v for v in values if math.isfinite(v)]
        close = 0.0 if exact else CLOSE * float(np.std(fine)) + 1e-3 * float(np.mean(np.abs(fine))) if fine else 0.0
        assert other[place][2] == pytest.approx(values, abs=close, rel=0, nan_ok=True), place


@pytest.fixture(scope="module")
def pooled(tmp_path_factory):
    """Tables of the process pool, each made once."""
    folder, made = tmp_path_factory.mktemp("pool"), {}

    def of(name: str) -> dict:
        if name not in made:
            found = st.run(name, size="xs", store=folder / f"{name}.sqlite", engine="local")
            assert not found.missing and not [t for t in found.failures() if t.arm != "anyinit"]
            made[name] = table(found)
        return made[name]

    return of


@pytest.mark.parametrize("name", st.names())
def test_stacked_gives_the_same_table(name, pooled, tmp_path):
    assert_same(pooled(name), table(st.run(name, size="xs", store=tmp_path / "s.sqlite")), exact=False)


@pytest.mark.parametrize("name", st.names())
def test_ray_gives_the_same_table(name, pooled, tmp_path):
    pytest.importorskip("ray", reason="the extra ray is not installed")
    found = st.run(name, size="xs", store=tmp_path / "s.sqlite", engine="ray", workers=2)
    assert_same(pooled(name), table(found), exact=False)


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
    assert_same(pooled(name), table(_finished(name, store)), exact=True)


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
