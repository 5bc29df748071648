"""The command line: exit statuses, formats, and that no mistake ends in a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import reports

import fanin
from fanin.cli.run import status_of
from fanin.errors import ModelError
from fanin.report import Report

torch = pytest.importorskip("torch")

FILE = """
import torch

def build():
    net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    return net, torch.randn(32, 8)

def broken():
    raise RuntimeError("no")
"""


@pytest.fixture
def net(tmp_path) -> str:
    (tmp_path / "tiny.py").write_text(FILE)
    return str(tmp_path / "tiny.py")


@pytest.fixture
def checked(monkeypatch):
    """`fanin.check` answers with a kept report and remembers what it was asked."""
    asked: dict = {}

    def check(model, batch, **options):
        asked.update(options, model=model, batch=batch)
        return asked.get("report", reports.stack())

    monkeypatch.setattr(fanin, "check", check, raising=False)
    return asked


def run(*words: object) -> subprocess.CompletedProcess:
    command = [Path(sys.executable).with_name("fanin"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def test_import_is_light_and_quick():
    code = (
        "import time; t = time.perf_counter(); import fanin, sys; t = time.perf_counter() - t\n"
        "heavy = {'torch', 'jax', 'keras', 'numba', 'plotly', 'pandas', 'transformers', 'scipy', 'rich', 'click'}\n"
        "print(t, sorted(heavy & set(sys.modules)))"
    )
    times = []
    for _ in range(3):
        seconds, loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split(
            " ", 1
        )
        assert loaded.strip() == "[]"
        times.append(float(seconds))
    assert min(times) < 0.2


def test_the_package_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "fanin", "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and fanin.__version__ in done.stdout


def test_public_names_are_there_and_no_others():
    assert set(fanin.__all__) <= set(dir(fanin))
    for name in fanin.__all__:
        assert getattr(fanin, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'chek'"):
        fanin.chek  # noqa: B018


def test_gain_is_exact(capsys):
    assert status_of(["gain", "relu"]) == 0
    assert capsys.readouterr().out == (
        "1.414213562\n"
        "relu: weights of std 1.414 / sqrt(fan_in) keep the pre-activation std 1; "
        "gain = std / sqrt(E f(std z)^2), z ~ N(0, 1)\n"
    )
    assert status_of(["gain", "tanh", "--mode", "backward", "--std", "1.5"]) == 0
    assert capsys.readouterr().out.startswith("1.735497679\n")


def test_fans_are_exact(capsys):
    assert status_of(["fans", "5,5,3,8", "--layout", "HWIO"]) == 0
    assert capsys.readouterr().out == (
        "fan_in 75  fan_out 200\n"
        "5×5×3×8 HWIO: 75 inputs feed one output, one input feeds 200 outputs; "
        "std of he_normal 0.1633, glorot_normal 0.08528, lecun_normal 0.1155\n"
    )


def test_env_names_versions(capsys):
    assert status_of(["env"]) == 0
    out = capsys.readouterr().out
    assert f"fanin {fanin.__version__}" in out and "torch " in out and "GiB" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["chek", "x"], "Did you mean 'check'?"),
        (["net.py:build"], "Did you mean 'fanin check net.py:build'?"),
        (["check", "x:y", "--predict-onyl"], "--predict-only"),
        (["check"], "Missing argument 'TARGET'"),
        (["gain", "no_such_activation"], "no_such_activation"),
        (["gain", "relu", "--std", "-1"], "-1"),
        (["gain", "relu", "--mode", "sideways"], "forward"),
        (["fans", "5,five"], "write 5,5,3,8"),
        (["fans", ""], "empty"),
        (["check", "no.such.module:thing"], "no module 'no.such.module'"),
        (["verify", "no.safetensors", "no.json"], "there is no file no.json"),
        (["check", "hf:gpt2", "--html", "/no/such/folder/r.html"], "there is no folder"),
    ],
)
def test_mistakes_exit_2_and_help(words, said, capsys):
    assert status_of(words) == 2
    captured = capsys.readouterr()
    assert said in captured.err and captured.out == "" and "Traceback" not in captured.err


def test_no_arguments_show_help(capsys):
    assert status_of([]) == 2
    assert "Commands:" in capsys.readouterr().err
    assert status_of(["--help"]) == 0
    assert "hf:<model_type>" in capsys.readouterr().out


def test_broken_factory(net, capsys):
    assert status_of(["check", f"{net}:broken"]) == 2
    error = capsys.readouterr().err
    assert "RuntimeError: no" in error and "tiny.py:9" in error and "remedy:" in error


def test_check_status_follows_fail_on(net, checked, capsys):
    target = f"{net}:build"
    assert status_of(["check", target]) == 0
    checked["report"] = reports.transformer()
    assert status_of(["check", target]) == 1
    assert status_of(["check", target, "--fail-on", "never"]) == 0
    checked["report"] = Report(reports.transformer().findings[-1:])
    assert [status_of(["check", target, "--fail-on", level]) for level in ("error", "warning")] == [0, 1]
    capsys.readouterr()


def test_check_passes_its_options_on(net, checked, capsys):
    words = ["--seed", "3", "--predict-only", "--select", "FAN1,FAN203", "--ignore", "FAN9", "--input", "float32[5,8]"]
    assert status_of(["check", f"{net}:build", *words]) == 0
    assert (checked["seed"], checked["predict_only"]) == (3, True)
    assert (checked["select"], checked["ignore"]) == (["FAN1", "FAN203"], ["FAN9"])
    assert checked["batch"].shape == (5, 8) and checked["model"][0].weight.is_meta
    assert f"{net}:build" in capsys.readouterr().out.replace("\n", "")  # a long path folds


def test_check_formats(net, checked, capsys, tmp_path):
    checked["report"] = reports.transformer()
    target = f"{net}:build"
    assert status_of(["check", target, "--format", "json", "--html", str(tmp_path / "r.html")]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["target"] == target
    assert (tmp_path / "r.html").exists() and "wrote" in captured.err
    assert status_of(["check", target, "--format", "sarif"]) == 1
    assert json.loads(capsys.readouterr().out)["version"] == "2.1.0"
    assert status_of(["check", target, "--format", "github"]) == 1
    assert capsys.readouterr().out.startswith("::error file=")


def test_colors_follow_the_environment(net, checked, capsys, monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    status_of(["check", f"{net}:build"])
    assert "\x1b[" not in capsys.readouterr().out  # a pipe
    monkeypatch.setenv("FORCE_COLOR", "1")
    status_of(["check", f"{net}:build"])
    assert "\x1b[" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    status_of(["check", f"{net}:build"])
    assert "\x1b[" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "error", [ModelError("fc is nan", remedy="draw it"), ZeroDivisionError("inside"), KeyboardInterrupt()]
)
def test_what_is_raised_becomes_a_message(net, monkeypatch, capsys, error):
    def check(*_, **__):
        raise error

    monkeypatch.setattr(fanin, "check", check, raising=False)
    monkeypatch.delenv("FANIN_DEBUG", raising=False)
    status = status_of(["check", f"{net}:build"])
    said = capsys.readouterr().err
    assert status == (130 if isinstance(error, KeyboardInterrupt) else 2) and "Traceback" not in said
    if isinstance(error, ZeroDivisionError):
        assert "please report" in said and "FANIN_DEBUG=1" in said
        monkeypatch.setenv("FANIN_DEBUG", "1")
        status_of(["check", f"{net}:build"])
        assert "Traceback" in capsys.readouterr().err


def test_check_end_to_end(net):
    done = run("check", f"{net}:build", "--format", "json")
    assert done.returncode in (0, 1), done.stderr
    found = json.loads(done.stdout)
    assert {"0", "1", "2"} <= {row["name"] for row in found["measured"]["rows"]}
    assert done.stderr == ""


def test_init_plan_verify_identify_explain_end_to_end(net, tmp_path, capsys):
    """Weights that another process wrote."""
    weights, plan = str(tmp_path / "weights.safetensors"), str(tmp_path / "plan.json")
    target = f"{net}:build"
    done = run("init", target, "-o", weights, "--seed", 5)
    assert done.returncode == 0, done.stderr
    said = {}
    for words in (["plan", target, "-o", plan], ["identify", weights], ["explain", target]):
        assert status_of(words) == 0
        said[words[0]] = capsys.readouterr().out
    assert "0.weight" in said["plan"] and "0.weight" in said["identify"] and "0" in said["explain"]
    assert [status_of(["verify", weights, plan, "--seed", seed]) for seed in "56"] == [0, 1]


def test_a_closed_pipe_is_no_error(net):
    command = f"{Path(sys.executable).with_name('fanin')} gain relu | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


def test_init_into_a_folder_goes_on_where_it_stopped(tmp_path):
    out = tmp_path / "weights"
    arguments = ["init", "hf:gpt2", "--small", "-o", str(out), "--recipe", "gpt2", "--max-shard-size", "100000"]
    assert status_of(arguments) == 0
    files = sorted(p.name for p in out.iterdir())
    assert "model.safetensors.index.json" in files and "config.json" in files
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    again = run(*arguments)
    assert again.returncode == 0, again.stderr
    assert before == {p.name: p.read_bytes() for p in out.iterdir()}
