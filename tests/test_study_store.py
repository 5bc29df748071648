"""The store: one writer, nothing half-written, and a clear word where it cannot be used."""

from __future__ import annotations

import json
import os
import sqlite3
import stat

import pytest

import fanin.study as st
from fanin.errors import FaninError, StudyError
from fanin.study.grid import CHOOSING, choosing, comparing, conditions
from fanin.study.outcome import Outcome
from fanin.study.store import Store

BASE = {
    "name": "tiny",
    "task": {"model": "dense", "data": "teacher"},
    "rates": [0.1, 0.3],
    "arms": {"he": {"recipe": "he"}, "glorot": {"recipe": "glorot"}},
}


def first_cell(**changes):
    study = st.read({**BASE, **changes})
    return next(comparing(study, conditions(study)[0], study.arms[0], 0.1))


FINE = Outcome("trained", {"test_loss": 0.5, "train_loss": float("nan")}, (1, 2), (0.7, 0.5))


def test_round_trip(tmp_path):
    cell = first_cell()
    with Store(tmp_path / "s.sqlite") as store:
        assert store.get(cell) is None
        store.put([(cell, FINE, 1)])
        found = store.get(cell)
    assert found is not None and found.numbers["test_loss"] == 0.5 and list(found.curve) == [0.7, 0.5]
    with Store(tmp_path / "s.sqlite", writing=False) as store:
        assert [out.status for _, out in store.rows()] == ["trained"]


def test_two_writers(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        with pytest.raises(StudyError, match="has a writer already"):
            Store(tmp_path / "s.sqlite")
        with Store(tmp_path / "s.sqlite", writing=False) as reader:  # looking is allowed
            store.put([(first_cell(), FINE, 1)])
            assert reader.get(first_cell()) is not None
    Store(tmp_path / "s.sqlite").close()  # and writing is again


def test_a_full_disk_loses_nothing_that_was_stored(tmp_path):
    cells = [
        next(comparing(s, (), s.arms[0], 0.1))
        for s in [st.read({**BASE, "training": {"steps": n}}) for n in range(1, 60)]
    ]
    large = Outcome("trained", {"test_loss": 0.5}, tuple(range(2000)), tuple([0.123456789] * 2000))
    kept: list[int] = []

    def fill(store: Store) -> None:
        for cell in cells:
            store.put([(cell, large, 1)])
            kept.append(1)

    with Store(tmp_path / "s.sqlite") as store:
        store._base.execute("PRAGMA max_page_count = 60")
        with pytest.raises(StudyError, match=r"disk .* is full"):
            fill(store)
    with Store(tmp_path / "s.sqlite") as store:
        assert 0 < len(kept) == sum(1 for _ in store.rows())
        store.put([(cells[-1], large, 1)])  # room was made


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission(tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(StudyError, match="permissions"):
        Store(tmp_path / "s.sqlite")


def test_not_a_store(tmp_path):
    path = tmp_path / "s.sqlite"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(StudyError, match="no store of fanin"):
        Store(path)
    assert path.read_bytes().startswith(b"not a database")
    with pytest.raises(StudyError, match="no store at"):
        Store(tmp_path / "none.sqlite", writing=False)
    sqlite3.connect(tmp_path / "other.sqlite").execute("CREATE TABLE x (y)").connection.commit()
    with pytest.raises(StudyError):
        Store(tmp_path / "other.sqlite", writing=False)
    Store(tmp_path / "empty.sqlite").close()
    with pytest.raises(StudyError, match="holds no study"):
        st.load(tmp_path / "empty.sqlite")


def test_a_store_of_another_format(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        store._base.execute("UPDATE about SET value = '99' WHERE key = 'format'")
        store._base.commit()
    with pytest.raises(StudyError, match="format 99"):
        Store(tmp_path / "s.sqlite")


def test_a_store_from_another_version(tmp_path):
    cell = first_cell()
    with Store(tmp_path / "s.sqlite") as store:
        store.put([(cell, FINE, 1)])
        known = store.about("versions")
        store.tell("versions", {place: {**old, "torch": "0.1"} for place, old in known.items()})
        (key,) = store._base.execute("SELECT key FROM trials").fetchone()
        old = cell.key({**known[next(iter(known))], "torch": "0.1"})
        store._write("UPDATE trials SET key = ? WHERE key = ?", [(old, key)])
    with Store(tmp_path / "s.sqlite", writing=False) as store:
        assert store.get(cell) is not None  # a report reads what there is
    with Store(tmp_path / "s.sqlite") as store, pytest.raises(StudyError, match=r"torch 0\.1 is"):
        store.get(cell)
    with Store(tmp_path / "s.sqlite", update=True) as store:
        assert store.get(cell) is None  # to be run again, and the old row stays
        store.put([(cell, FINE, 1)])
        assert sum(1 for _ in store.rows()) == 2


def test_a_store_that_lists_its_sources_is_read_and_goes_on(tmp_path):
    cell, listed = first_cell(), "frameworks/torch/training|study/trial.py|distributions|recipes|axes.py|activations"
    with Store(tmp_path / "s.sqlite") as store:
        store.put([(cell, FINE, 1)])
        (found,) = store.about("versions").values()
        store.tell("versions", {listed: found})
    for writing in (False, True):
        with Store(tmp_path / "s.sqlite", writing=writing) as store:
            assert store.get(cell) is not None
    with Store(tmp_path / "s.sqlite") as store:
        store.tell("versions", {listed: {**found, "code": "another"}})
        with pytest.raises(StudyError, match="code another is"):
            store.get(cell)


def test_failed_trials_are_forgotten_when_asked(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        store.put([(first_cell(), Outcome("failed", error="no"), 2)])
        assert store.get(first_cell()).status == "failed"
        store.forget_failed()
        assert store.get(first_cell()) is None


BAD = {
    "no arms": ({"arms": {}}, "no arms"),
    "empty factor": ({"factors": {"norm": []}}, "no levels"),
    "factor not a list": ({"factors": {"norm": "batch"}}, "a list of levels"),
    "level twice": ({"factors": {"norm": ["batch", "batch"]}}, "twice"),
    "factor and fixed": ({"task": {**BASE["task"], "depth": 2}, "factors": {"depth": [2, 3]}}, "fixed in the task"),
    "all excluded": ({"factors": {"norm": ["batch"]}, "exclude": [{"norm": "batch"}]}, "no condition"),
    "no rates": ({"rates": []}, "positive"),
    "negative rate": ({"rates": [-0.1]}, "positive"),
    "infinite rate": ({"rates": [float("inf")]}, "positive"),
    "unknown key": ({"seed": {"compare": 3}}, "did you mean 'seeds'"),
    "unknown field": ({"training": {"step": 3}}, "did you mean 'steps'"),
    "unknown baseline": ({"compare": {"baseline": "hee"}}, "no arm"),
    "unknown outcome": ({"compare": {"outcome": "loss"}}, "one of"),
    "unknown optimizer": ({"training": {"optimizer": "sdg"}}, "one of"),
    "one seed": ({"seeds": {"compare": 1}}, "2 or more"),
    "no choosing seeds": ({"seeds": {"choose": 0}}, "choose a learning rate"),
    "no steps": ({"training": {"steps": 0}}, "1 or more"),
    "two starts": ({"arms": {"a": {"recipe": "he", "init": "x:y"}}}, "exactly one"),
    "no start": ({"arms": {"a": {}}}, "exactly one"),
    "no model": ({"task": {"data": "digits"}}, "model and data"),
    "model and factory": ({"task": {**BASE["task"], "factory": "a:b"}}, "model and data, or factory"),
    "looks out of order": ({"seeds": {"compare": 8, "looks": [6, 4]}}, "increasing"),
    "scale of zero": ({"arms": {"a": {"recipe": "he", "scale": 0.0}}}, "positive"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_study_that_cannot_be(name):
    changes, text = BAD[name]
    with pytest.raises(StudyError, match=text):
        conditions(st.read({**BASE, **changes}))


BAD_RUNS = {
    "recipe": ({"arms": {"a": {"recipe": "hee"}}}, "did you mean 'he'"),
    "option": ({"arms": {"a": {"recipe": "he", "distibution": "normal"}}}, "did you mean 'distribution'"),
    "model": ({"task": {"model": "dence", "data": "teacher"}}, "did you mean 'dense'"),
    "data": ({"task": {"model": "dense", "data": "digit"}}, "did you mean 'digits'"),
    "level": ({"task": {**BASE["task"], "widht": 3}}, "did you mean 'width'"),
    "activation": ({"task": {**BASE["task"], "activation": "rleu"}}, "one of"),
    "observer": ({"task": {**BASE["task"], "observe": ["slope"]}}, "one of"),
    "plan": ({"arms": {"a": {"plan": "/nowhere.json"}}}, "cannot be read"),
    "convolution": ({"task": {"model": "conv", "data": "teacher"}}, "position axes"),
}


@pytest.mark.parametrize("name", BAD_RUNS)
def test_a_study_that_cannot_run_says_so_at_once(name, tmp_path):
    changes, text = BAD_RUNS[name]
    with pytest.raises(FaninError, match=text):
        st.run({**BASE, **changes}, store=tmp_path / "s.sqlite", engine="inline")


def test_unknown_names_and_files(tmp_path):
    with pytest.raises(StudyError, match="did you mean 'he-2015'"):
        st.read("he-2016")
    with pytest.raises(StudyError, match="size"):
        st.read("he-2015", "m")
    with pytest.raises(StudyError, match="engine"):
        st.run(BASE, engine="gpu", store=tmp_path / "s.sqlite")
    (tmp_path / "bad.toml").write_text("a = [")
    with pytest.raises(StudyError, match="not TOML"):
        st.read(tmp_path / "bad.toml")


@pytest.mark.parametrize("size", ["xs", "s", "l"])
@pytest.mark.parametrize("name", st.names())
def test_built_in_studies_can_be_planned_and_written(name, size):
    study = st.read(name, size)
    assert study.question.endswith("?") and conditions(study)
    again = st.read(json.loads(json.dumps(st.written(study))))
    cells = [
        [c.text() for k in conditions(s) for arm in s.arms for c in (*choosing(s, k, arm), *comparing(s, k, arm, 0.1))]
        for s in (study, again)
    ]
    assert cells[0] == cells[1]


def test_choosing_and_comparing_share_no_seed():
    study = st.read({**BASE, "seeds": {"choose": 3, "compare": 9, "data": 2}})
    choose = [c.init_seed for c in choosing(study, (), study.arms[0])]
    compare = [(c.init_seed, c.data_seed) for c in comparing(study, (), study.arms[0], 0.1)]
    assert set(choose) == {CHOOSING, CHOOSING + 1, CHOOSING + 2} and len(compare) == 18
    assert {data for _, data in compare} == {0, 1}  # crossed: initialization and data are separate axes
