"""`fanin study`: exit statuses, what goes where, how a run is followed and stopped. Stores are finished beforehand."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import studies

import fanin
from fanin.cli.live import clock, place
from fanin.cli.run import status_of
from fanin.cli.study import ENGINES, FORMATS, SIZES
from fanin.study import read
from fanin.study.grid import comparing, conditions
from fanin.study.running import Progress

TOML = """
name = "toy"
question = "Does he or lecun beat glorot under tanh, and does batch normalization change that?"
rates = [0.03, 0.1, 0.3]
[task]
model = "dense"
data = "digits"
depth = 3
width = 32
activation = "tanh"
[arms]
glorot = { recipe = "glorot" }
he = { recipe = "he" }
lecun = { recipe = "lecun" }
[factors]
norm = ["none", "batch"]
[seeds]
choose = 2
compare = 10
"""


@pytest.fixture
def toml(tmp_path) -> Path:
    (tmp_path / "toy.toml").write_text(TOML)
    return tmp_path / "toy.toml"


@pytest.fixture
def stored(tmp_path) -> Path:
    return studies.store(studies.results(), tmp_path / "toy.sqlite")


def failing(arm, levels, cell):
    if arm == "he" and cell.init_seed == 2:
        return studies.outcome(9.0, "failed", error="Traceback (most recent call last):\nValueError: no")
    return studies.usual(arm, levels, cell)


def test_choices_are_those_of_the_study():
    from fanin.study.engines import ENGINES as KNOWN
    from fanin.study.report import FORMATS as FORMS
    from fanin.study.spec import SIZES as KNOWN_SIZES

    assert (set(ENGINES), SIZES, FORMATS) == (set(KNOWN), KNOWN_SIZES, FORMS)


def test_help_does_not_load_what_studies_need():
    code = "import sys; from fanin.cli.run import status_of; status_of(['study', '-h'])"
    code += "; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "resume" in done.stdout
    assert not {"fanin.study", "scipy", "torch", "matplotlib"} & set(done.stderr.split())


def test_a_finished_study_is_reported_again_and_nothing_is_run(toml, stored, capsys):
    assert status_of(["study", "run", str(toml), "--store", str(stored)]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("toy (s)  96 trials")
    assert "he is worse than glorot on norm=none" in " ".join(said.out.split())
    assert "96 trials: 36 to choose learning rates" in said.err and "fanin study report" in said.err


def test_failed_trials_end_with_one(tmp_path, toml, capsys):
    store = studies.store(studies.results(failing), tmp_path / "f.sqlite")
    assert status_of(["study", "run", str(toml), "--store", str(store)]) == 1
    assert "2 trials failed, counted as diverged: ValueError: no" in capsys.readouterr().out.replace("\n  ", " ")
    assert status_of(["study", "report", str(store)]) == 0, "a report that was made is no failure"


def test_resume_says_the_same(stored, capsys):
    assert status_of(["study", "resume", str(stored)]) == 0
    assert "he is worse than glorot on norm=none" in " ".join(capsys.readouterr().out.split())


def test_outcomes_of_other_code_are_kept_apart(stored, tmp_path, monkeypatch, capsys):
    """They are reported as they are; a run refuses to mix them, and --update says that it may run them again."""
    from fanin.study import store

    monkeypatch.setattr(store, "versions", lambda cell: {"torch": "99", "code": "new"})
    assert status_of(["study", "report", str(stored)]) == 0
    assert "96 trials" in capsys.readouterr().out
    assert status_of(["study", "resume", str(stored)]) == 2
    said = capsys.readouterr().err
    assert "was computed by another version" in said and "--update" in said


def test_a_dry_run_touches_nothing(toml, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert status_of(["study", "run", "toy.toml", "--dry-run"]) == 0
    assert "60 to compare 3 arms in 2 conditions over 10 pairs" in capsys.readouterr().out
    assert {file.name for file in tmp_path.iterdir()} == {"toy.toml"}


def test_status_counts(tmp_path, capsys):
    store = studies.store(studies.results(failing, done=0.5), tmp_path / "half.sqlite")
    assert status_of(["study", "status", str(store)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("toy: 66 of 96 trials (64 trained, 2 failed)")
    assert "he      22 trials, 10 of them compared; rate chosen in 2 of 2 conditions" in said


@pytest.mark.parametrize(("name", "begins"), [("r.html", "<!DOCTYPE html>"), ("r.json", "{"), ("r.txt", "toy (s)")])
def test_the_file_says_the_format(stored, tmp_path, name, begins, capsys):
    assert status_of(["study", "report", str(stored), "-o", str(tmp_path / name)]) == 0
    assert (tmp_path / name).read_text().startswith(begins)
    said = capsys.readouterr()
    assert said.out == "" and "wrote" in said.err


def test_json_goes_to_stdout(stored, capsys):
    assert status_of(["study", "report", str(stored), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "toy"


def test_an_export_is_listed_and_runs_again(stored, tmp_path, capsys):
    assert status_of(["study", "export", str(stored), "-o", str(tmp_path / "out"), "--no-parquet"]) == 0
    files = [Path(line).name for line in capsys.readouterr().out.splitlines()]
    assert files == ["trials.csv", "comparisons.csv", "choices.csv", "arms.csv", "manifest.json"]
    manifest = tmp_path / "out" / "manifest.json"
    assert status_of(["study", "run", str(manifest), "--store", str(stored)]) == 0
    said = capsys.readouterr()
    assert (
        "toy, size s" in said.err and "not the environment of the manifest" in said.err and "torch 2.0 then" in said.err
    )
    assert "he is worse than glorot" in said.out


def test_built_in_studies_are_listed(capsys):
    assert status_of(["study", "list"]) == 0
    said = capsys.readouterr().out
    assert all(f"{name}\n" in said for name in fanin.study.names()) and said.count("trials: xs ") == len(
        fanin.study.names()
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "normal-vs-unifrom"], "did you mean 'normal-vs-uniform'"),
        (["rnu", "x"], "Did you mean 'run'?"),
        (["normal-vs-uniform"], "Did you mean 'fanin study run normal-vs-uniform'?"),
        (["run", "toy.toml", "--engine", "rya"], "'local', 'vectorized', 'ray'"),
        (["run", "toy.toml", "--size", "m"], "'xs', 's', 'l'"),
        (["run", "toy.toml", "--workers", "0"], "x>=1"),
        (["run", "none.toml"], "no study 'none.toml'"),
        (["run", "broken.toml"], "is not TOML"),
        (["run", "twice.toml"], "the study has no 'arm'"),
        (["resume", "none.sqlite"], "no store at none.sqlite"),
        (["status", "toy.toml"], "is no store of fanin"),
        (["report", "done"], "did you mean done-xs.sqlite?"),
        (["report", "none.sqlite", "-o", "nowhere/r.html"], "there is no folder"),
        (["export", "none.sqlite"], "Missing option '-o'"),
    ],
)
def test_mistakes_are_told(toml, tmp_path, monkeypatch, capsys, words, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.toml").write_text("name = ")
    (tmp_path / "done-xs.sqlite").touch()
    (tmp_path / "twice.toml").write_text(TOML.replace("[arms]", "[arm]"))
    assert status_of(["study", *words]) == 2
    said = capsys.readouterr()
    assert told in said.err and "Traceback" not in said.err and said.out == ""


# --- following a run ------------------------------------------------------------------------------------------------


def progress(done: int, seconds: float, total: int = 96) -> Progress:
    study = read(studies.DOCUMENT)
    condition = conditions(study)[1]
    cell = next(comparing(study, condition, study.arms[1], 0.1))
    left = (total - done) * seconds / done
    return Progress(done, total, seconds, left, 1, (cell, studies.outcome(0.3)))


def test_a_trial_is_named():
    study = read(studies.DOCUMENT)
    assert place(study, progress(1, 1.0).last[0]) == "he, norm=batch"  # type: ignore[index]


def test_factors_of_the_arm_are_named():
    study = read({**studies.DOCUMENT, "factors": {"arm.scale": [0.5, 1.0]}})
    cell = next(comparing(study, conditions(study)[0], study.arms[2], 0.1))
    assert place(study, cell) == "lecun, arm.scale=0.5"


def test_a_pipe_gets_a_line_now_and_then(toml, stored, monkeypatch, capsys):
    def run(*_, progress: object, **__):
        for done, seconds in ((1, 0.5), (2, 1.0), (40, 12.0), (41, 12.5), (96, 30.0)):
            progress(globals()["progress"](done, seconds))  # type: ignore[operator]
        return studies.results()

    monkeypatch.setattr(fanin.study, "run", run)
    assert status_of(["study", "run", str(toml), "--store", str(stored)]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if " of 96 trials" in line]
    assert lines == [
        "1 of 96 trials, 1 failed, 2 trials/s, 48 s left, last: he, norm=batch, rate 0.1: trained",
        "40 of 96 trials, 1 failed, 3.33 trials/s, 17 s left, last: he, norm=batch, rate 0.1: trained",
        "96 of 96 trials, 1 failed, 30 s in all, 0 s left, last: he, norm=batch, rate 0.1: trained",
    ]


def test_a_stopped_run_says_how_to_go_on(toml, tmp_path, monkeypatch, capsys):
    def run(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(fanin.study, "run", run)
    assert status_of(["study", "run", str(toml), "--store", str(tmp_path / "a.sqlite")]) == 130
    assert f"Go on with: fanin study resume {tmp_path / 'a.sqlite'}" in capsys.readouterr().err


def test_a_terminal_gets_a_table_that_lives(stored):
    """On a pseudo-terminal: the table is drawn, and gone when the report comes."""
    child = f"""
import studies, fanin, time
from test_study_cli import progress as state
def run(*_, progress, **__):
    progress(state(40, 12.0)); time.sleep(0.6); progress(state(96, 30.0))
    return studies.results()
fanin.study.run = run
from fanin.cli.run import status_of
raise SystemExit(status_of(["study", "run", {str(stored.parent / "toy.toml")!r}, "--store", {str(stored)!r}]))
"""
    (stored.parent / "toy.toml").write_text(TOML)
    said, status = _on_a_terminal([sys.executable, "-c", child])
    assert status == 0
    assert "40 of 96" in said and "3.33 trials/s" in said and "left" in said and "he, norm=batch" in said
    assert "\x1b[?25h" in said, "the cursor stays hidden"


@pytest.mark.slow
def test_ctrl_c_and_resume(toml, tmp_path):
    """A real run, stopped by Ctrl-C after its first trials, goes on where it was."""
    pytest.importorskip("torch")
    small = TOML.replace('"batch"]', '"batch"]\n[training]\nsteps = 60').replace("compare = 10", "compare = 6")
    toml.write_text(small)
    command = [str(Path(sys.executable).with_name("fanin")), "study"]
    store = str(tmp_path / "c.sqlite")
    said, status = _on_a_terminal([*command, "run", str(toml), "--store", store, "--workers", "1"], stop="trials/")
    assert status == 130 and f"fanin study resume {store}" in said and "Traceback" not in said
    kept = subprocess.run([*command, "status", store], capture_output=True, text=True, timeout=60).stdout
    assert int(kept.split()[1]) > 0
    done = subprocess.run([*command, "resume", store, "--workers", "1"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "toy (s)  72 trials" in done.stdout


def _on_a_terminal(command: list[str], stop: str = "", seconds: float = 200) -> tuple[str, int]:
    """What a command writes to a terminal, and its status; Ctrl-C once ``stop`` is seen."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ |= {"TERM": "xterm", "COLUMNS": "100", "PYTHONPATH": str(Path(__file__).parent)}
        os.environ.pop("NO_COLOR", None)
        os.execv(command[0], command)
    said, until = b"", time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            if select.select([terminal], [], [], 1)[0]:
                try:
                    chunk = os.read(terminal, 1 << 16)
                except OSError:
                    break
                if not chunk:
                    break
                said += chunk
            if stop and stop.encode() in said:
                os.write(terminal, b"\x03")
                stop = ""
        else:
            os.kill(pid, signal.SIGKILL)
        return said.decode(errors="replace"), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        os.close(terminal)


def test_times_are_told_as_people_do():
    assert [clock(s) for s in (None, 0.4, 59.6, 3600)] == ["unknown time", "0 s", "1 min 0 s", "1 h 0 min"]
