"""Trials run the same way wherever and however they run, and nothing that ended is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import fanin.study as st
from fanin.errors import FaninError, StudyError
from fanin.study.engines import Unit, units_of
from fanin.study.engines.pool import Pool
from fanin.study.grid import cell, comparing, conditions
from fanin.study.store import Store
from fanin.study.trial import run_cells

TINY = {
    "name": "tiny",
    "task": {"model": "dense", "data": "teacher", "stream": False, "depth": 2, "width": 8},
    "rates": [0.03, 0.1],
    "arms": {"he": {"recipe": "he"}, "glorot": {"recipe": "glorot"}},
    "training": {"steps": 15, "batch": 16},
    "seeds": {"choose": 1, "compare": 4},
}


WIDE = {key: value for key, value in TINY["task"].items() if key != "width"}


def tiny(**changes) -> st.Study:
    return st.read({**TINY, **changes})


def cells_of(study: st.Study, rate: float = 0.05):
    return [c for condition in conditions(study) for arm in study.arms for c in comparing(study, condition, arm, rate)]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


TASKS = {
    "dense": TINY["task"],
    # a bias before BatchNorm has no gradient but rounding, and Adam makes full steps of that: none here
    "dense batchnorm adam": {**TINY["task"], "norm": "batch", "optimizer": "adam", "bias": False},
    "conv batchnorm": {"model": "conv", "data": "signals", "stream": False, "depth": 4, "width": 4, "norm": "batch"},
    "residual": {"model": "residual", "data": "signals", "stream": False, "depth": 2, "width": 4, "norm": "none"},
    "transformer": {"model": "transformer", "data": "text", "length": 8, "depth": 1, "width": 8, "heads": 2},
}


@pytest.mark.parametrize("task", TASKS)
def test_stacked_and_serial_agree(task):
    levels = dict(TASKS[task])
    training = {**TINY["training"], "steps": 8, "momentum": 0.9, "optimizer": levels.pop("optimizer", "sgd")}
    cells = cells_of(tiny(task=levels, training=training), 0.01)
    serial, stacked = run_cells(cells, "serial"), run_cells(cells, "stacked")
    assert {out.way for out in serial} == {"serial"} and {out.way for out in stacked} == {"stacked"}
    for one, other in zip(serial, stacked):
        assert one.status == other.status and one.status != "failed", one.error
        for name, value in one.numbers.items():
            # eight float32 steps; an argmax may flip for a sample at a tie
            assert other.numbers[name] == pytest.approx(value, rel=1e-4, abs=2e-3 if name == "test_error" else 1e-5)


def test_stacked_replicas_differ_and_one_that_diverges_harms_no_other():
    study = tiny()
    fine = cells_of(study)[:3]
    wild = replace(fine[0], rate=1e9)
    together = run_cells([*fine, wild], "stacked")
    assert together[3].status == "diverged" and np.isnan(together[3].value("test_loss"))
    alone = run_cells(fine, "stacked")
    assert [out.numbers for out in together[:3]] == [pytest.approx(out.numbers, rel=1e-5) for out in alone]
    assert len({out.numbers["test_loss"] for out in alone}) == 3


def test_a_trial_is_a_function_of_its_cell():
    cells = cells_of(tiny())
    assert [out.numbers for out in run_cells(cells, "serial")] == [
        out.numbers for out in run_cells(cells[::-1], "serial")[::-1]
    ]


@pytest.mark.parametrize("recipe", ["lsuv", "auto"])
def test_a_start_that_reads_the_model_is_not_touched_by_the_trial_before(recipe):
    """A tested network is left in evaluation mode, where batch norm does nothing and LSUV would find other scales."""
    from fanin.study import trial

    task = {"model": "residual", "data": "signals", "stream": False, "depth": 2, "width": 4, "norm": "batch"}
    study = tiny(task=task, arms={recipe: {"recipe": recipe}}, training={**TINY["training"], "steps": 3})
    cells = cells_of(study)[:2]
    trial._built.cache_clear()
    first, _ = run_cells(cells, "serial")
    again, _ = run_cells(cells, "serial")
    assert first.numbers == again.numbers
    trial._built.cache_clear()
    _, second = run_cells(cells[::-1], "serial")  # made first where another was before
    assert first.numbers == second.numbers


def test_arms_of_a_pair_share_the_base_noise_and_the_order_of_samples():
    from fanin.study.trial import _prepared

    study = tiny(arms={"he": {"recipe": "he"}, "double": {"recipe": "he", "scale": 2.0}})
    one, two = (next(comparing(study, (), arm, 0.1)) for arm in study.arms)
    problem, starter, _, _ = _prepared(one)
    a, b = starter.state(one.start, 0, 16), starter.state(two.start, 0, 16)
    assert torch.equal(2 * a["1.weight"], b["1.weight"])
    other = starter.state(one.start, 1, 16)
    assert not torch.equal(a["1.weight"], other["1.weight"])
    assert torch.equal(problem.batch(5, 3, 16)[0], problem.batch(5, 3, 16)[0])
    assert not torch.equal(problem.batch(5, 3, 16)[0], problem.batch(6, 3, 16)[0])


def test_every_sample_comes_once_an_epoch():
    from fanin.frameworks.torch.training.problem import _indices

    rows = np.concatenate([_indices(50, 7, step, 15) for step in range(10)])
    assert sorted(rows[:50]) == list(range(50)) and sorted(rows[50:100]) == list(range(50))
    assert list(rows[:50]) != list(rows[50:100])


def test_dropout_goes_serial_and_is_shared_by_arms(tmp_path):
    (tmp_path / "task.py").write_text(FACTORY)
    study = tiny(task={"factory": f"{tmp_path}/task.py:dropping"})
    cells = cells_of(study)
    out = run_cells(cells, "auto")
    assert {o.way for o in out} == {"serial"}
    assert run_cells(cells[:1], "serial")[0].numbers == out[0].numbers


FACTORY = """
import os, torch
from torch import nn

def data():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(64, 5, generator=g)
    return x, (x.sum(1) > 0).long()

def dropping(p=0.5):
    model = nn.Sequential(nn.Linear(5, 8), nn.Dropout(p), nn.ReLU(), nn.Linear(8, 2))
    return model, data(), data(), nn.functional.cross_entropy

def plain(width=8):
    model = nn.Sequential(nn.Linear(5, width), nn.ReLU(), nn.Linear(width, 2))
    return model, data(), torch.utils.data.TensorDataset(*data()), nn.functional.cross_entropy

def raising(width=8):
    if width == 9:
        raise RuntimeError("no such width")
    return plain(width)

def dying(width=8):
    if width == 9:
        os.kill(os.getpid(), 9)
    return plain(width)

def wrong():
    return nn.Linear(2, 2)

def start(model, batch, seed):
    nn.init.constant_(model[0].weight, 0.1 * (seed + 1))

def bad_start(model, batch, seed):
    raise ValueError("cannot")
"""


@pytest.fixture
def factory(tmp_path):
    path = tmp_path / "task.py"
    path.write_text(FACTORY)
    return lambda name: f"{path}:{name}"


def test_a_users_factory_and_init(factory, tmp_path):
    arms = {"he": {"recipe": "he"}, "mine": {"init": factory("start")}}
    found = st.run(
        {**TINY, "task": {"factory": factory("plain")}, "arms": arms}, store=tmp_path / "s.sqlite", engine="inline"
    )
    assert not found.missing and not found.failures()
    assert {trial.outcome.status for trial in found.trials} <= {"trained", "stalled"}
    assert all("test_error" in trial.outcome.numbers for trial in found.trials)


def test_a_factory_that_raises_in_a_worker_fails_its_trials_only(factory, tmp_path):
    spec = {**TINY, "task": {"factory": factory("raising")}, "factors": {"width": [8, 9]}, "rates": [0.1]}
    found = st.run(spec, store=tmp_path / "s.sqlite", workers=2)
    failed = found.failures()
    assert len(failed) == 8 and all("no such width" in trial.outcome.error for trial in failed)
    assert all(np.isnan(v) for v in found.outcomes(failed[0].condition, "he", "test_loss").values())
    assert not found.missing  # failed twice: not tried again by itself


def test_a_worker_that_dies_costs_its_own_trials_only(factory, tmp_path):
    spec = {**TINY, "task": {"factory": factory("dying")}, "factors": {"width": [8, 9]}}
    spec |= {"arms": {"he": {"recipe": "he"}}, "rates": [0.1], "seeds": {"compare": 2}}
    found = st.run(spec, store=tmp_path / "s.sqlite", workers=2)
    status = [trial.outcome.status for trial in found.trials if dict(trial.condition)["width"] != 9]
    assert len(status) == 2 and set(status) <= {"trained", "stalled"}
    assert len(found.failures()) == 2 and all("worker was lost" in t.outcome.error for t in found.failures())


def test_when_everything_fails_the_reason_is_told_at_once(factory, tmp_path):
    for task, text in ((factory("wrong"), "returned Linear"), (factory("nothing"), "no 'nothing'")):
        with pytest.raises(FaninError, match=text):
            st.run({**TINY, "task": {"factory": task}}, store=tmp_path / "s.sqlite", engine="inline")
    arms = {"he": {"init": factory("bad_start")}}
    with pytest.raises(StudyError, match="cannot"):
        st.run(
            {**TINY, "task": {"factory": factory("plain")}, "arms": arms}, store=tmp_path / "s.sqlite", engine="inline"
        )


def test_resume_is_a_set_difference_and_the_grid_can_grow(tmp_path):
    store = tmp_path / "s.sqlite"
    seen = []
    first = st.run(TINY, store=store, engine="inline", progress=lambda p: seen.append(p.done))
    assert seen[-1] == len(first.trials) == 2 * (2 + 4)
    again = []
    st.run(TINY, store=store, engine="inline", progress=lambda p: again.append(p.done))
    assert again == []
    larger = {**TINY, "seeds": {"choose": 1, "compare": 6}}
    grown = st.run(larger, store=store, engine="inline", progress=again.append)
    assert len(grown.trials) == len(first.trials) + 4
    assert sum(1 for _ in again) <= 4


def test_engines_give_the_same_table(tmp_path):
    tables = []
    for engine in ("local", "vectorized", "inline"):
        found = st.run(TINY, store=tmp_path / f"{engine}.sqlite", engine=engine, workers=2)
        assert not found.failures()
        tables.append(
            {
                (c, arm.name): (found.choices[c, arm.name].rate, found.outcomes(c, arm.name, "test_loss"))
                for c in found.conditions
                for arm in found.study.arms
            }
        )
    for place, (rate, outcomes) in tables[0].items():
        for other in tables[1:]:
            assert other[place][0] == rate
            assert other[place][1] == pytest.approx(outcomes, rel=1e-4)


RUN = """
import sys, fanin.study as st
if __name__ == "__main__":
    st.run({spec!r}, store=sys.argv[1], engine="vectorized", workers=2)
"""


def killed_and_resumed(tmp_path: Path, spec: dict, moments: list[float]) -> st.Results:
    """Start, kill -9 after so many seconds, start again, ...; then to the end."""
    script, store = tmp_path / "run.py", tmp_path / "killed.sqlite"
    script.write_text(RUN.format(spec=spec))
    done = 0
    for moment in moments:
        process = subprocess.Popen([sys.executable, script, store], start_new_session=True)
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        if store.exists():
            now = len(st.load(store).trials) if Store(store, writing=False).about("study") else 0
            assert now >= done  # nothing that ended is lost
            done = now
    deadline = time.monotonic() + 20
    while True:  # orphaned workers notice within a second; they hold no lock
        try:
            return st.run(spec, store=store, engine="vectorized", workers=2)
        except StudyError:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def same(found: st.Results, other: st.Results) -> None:
    assert not found.missing and len(found.trials) == len(other.trials)
    for one, two in zip(found.trials, other.trials):
        assert one.cell == two.cell
        assert one.outcome.numbers == pytest.approx(two.outcome.numbers, rel=1e-3)


def test_kill_9_and_resume(tmp_path):
    spec = {**TINY, "task": WIDE, "training": {"steps": 60, "batch": 16}, "factors": {"width": [8, 12]}}
    same(killed_and_resumed(tmp_path, spec, [9.0]), st.run(spec, store=tmp_path / "whole.sqlite", engine="inline"))


@pytest.mark.slow
def test_kill_9_at_twenty_random_moments(tmp_path):
    spec = {**TINY, "task": WIDE, "training": {"steps": 400, "batch": 16}, "factors": {"width": [8, 12, 16, 20]}}
    moments = list(np.random.default_rng(0).uniform(4, 14, 20))
    same(killed_and_resumed(tmp_path, spec, moments), st.run(spec, store=tmp_path / "whole.sqlite", workers=2))


def test_units_group_by_shape_and_keep_workers_busy():
    cells = cells_of(tiny(task=WIDE, factors={"width": [8, 16]}))
    units = units_of(cells, "auto", 2)
    assert sum(len(unit.cells) for unit in units) == len(cells) == 16
    assert all(len({c.shape for c in unit.cells}) == 1 for unit in units) and len(units) == 2
    assert len(units_of(cells[:8], "auto", 2)) == 2
    assert all(len(unit.cells) == 1 for unit in units_of(cells, "serial", 2))


def test_a_pool_ends_its_processes():
    study = tiny()
    with Pool(1) as pool:
        assert len(list(pool.run([Unit((cell(study, (), study.arms[0], 0.1, 0, 0),))]))) == 1
        worker = next(iter(pool._processes._processes.values()))
    worker.join(10)
    assert not worker.is_alive()


def test_early_stopping_ends_clear_conditions(tmp_path):
    spec = {
        **TINY,
        "arms": {"he": {"recipe": "he"}, "nothing": {"recipe": "he", "scale": 1e-6}},
        "training": {"steps": 60, "batch": 16},
        "rates": [0.05],
        "seeds": {"compare": 30, "looks": [20]},
    }
    found = st.run(spec, store=tmp_path / "s.sqlite", engine="inline")
    assert list(found.stopped.values()) == [20]
    assert len(found.compared((), "he")) == 20 and not found.missing
    same_arms = {**spec, "arms": {law: {"recipe": "he", "distribution": law} for law in ("normal", "uniform")}}
    assert not st.run(same_arms, store=tmp_path / "t.sqlite", engine="inline").stopped


def many(**task):
    study = tiny(task={**TINY["task"], **task}, rates=[0.05])
    return [c for condition in conditions(study) for arm in study.arms for c in comparing(study, condition, arm, 0.05)]


def test_ways_are_chosen_by_timings(monkeypatch):
    from fanin.study.engines import ways

    class Now:
        def __init__(self, function, *arguments):
            self.result = lambda: function(*arguments)

    cells, shape = many(), many()[0].shape

    def chosen(serial: float, stacked: float, wide: float) -> str:
        monkeypatch.setattr(ways, "on_one_thread", lambda cells: ways.Seconds(serial, stacked))
        monkeypatch.setattr(ways, "on_all_threads", lambda cells, threads: wide)
        return ways.fastest([cells], 2, Now)[shape]

    assert chosen(1.0, 0.1, 0.0) == "stacked"  # calls are the limit: all threads are not tried
    assert chosen(1.0, 0.9, 0.4) == "wide" and chosen(1.0, 1.2, 0.4) == "wide"
    assert chosen(1.0, 0.9, 0.6) == "stacked" and chosen(1.0, 1.2, 0.6) == "serial"
    assert chosen(1.0, float("inf"), 0.0) == "serial"  # cannot be stacked


def test_timed_units_hold_every_cell_once(monkeypatch):
    from fanin.study.engines import ways

    cells = many() + many(width=16)
    for way, threads in (("wide", 2), ("serial", 1), ("stacked", 1)):
        monkeypatch.setattr(ways, "fastest", lambda groups, workers, call, way=way: {g[0].shape: way for g in groups})
        units = ways.timed_units(cells, 2, {}, None)
        assert sorted(c.text() for unit in units for c in unit.cells) == sorted(c.text() for c in cells)
        assert {unit.threads for unit in units} == {threads}
        assert {unit.way for unit in units} == {"serial" if way == "serial" else "stacked"}


def test_a_unit_with_all_threads_runs_alone_and_gives_the_same():
    cells = many()
    with Pool(2) as pool:
        units = [Unit(tuple(cells[:3]), "stacked"), Unit(tuple(cells[4:]), "stacked", 2), Unit(tuple(cells[:1]))]
        found = {len(unit.cells) + unit.threads: outcomes for unit, outcomes in pool.run(units)}
        timed = pool.units(cells, "auto")
    assert len(found) == 3 and {c for unit in timed for c in map(str, unit.cells)} == set(map(str, cells))
    for one, other in zip(found[4 + 2], run_cells(cells[4:], "serial")):
        assert one.numbers == pytest.approx(other.numbers, rel=1e-4, abs=1e-5)
