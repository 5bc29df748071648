"""The benchmarks' command lines: all of them begin, and `--json` prints JSON and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(p.name for p in FOLDER.glob("*.py") if "add_json(parser)" in p.read_text())


def run(script: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, FOLDER / script, *words], capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_case_behind_the_option_is_not_taken_for_a_file(script):
    done = run(script, "--json", "mlp")
    assert done.returncode == 2 and "does not end in .json" in done.stderr


def test_json_alone_on_standard_output(tmp_path):
    done = run("lsuv.py", "--depths", "2", "--rounds", "1", "--json")
    assert json.loads(done.stdout)["2"]["worst_variance_error"] < 0.02
    assert "2 layers" in done.stderr


def test_json_in_a_file(tmp_path):
    file = tmp_path / "lsuv.json"
    done = run("lsuv.py", "--depths", "2", "--rounds", "1", "--json", str(file))
    assert json.loads(file.read_text())["2"]["worst_variance_error"] < 0.02 and "2 layers" in done.stdout
