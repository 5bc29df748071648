"""What the documentation must hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fanin.checks.table import RULES
from fanin.cli.run import fanin

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_every_rule_has_its_section(rule):
    text = (ROOT / "docs" / "checks.md").read_text()
    assert f"### {rule.code}: {rule.title} {{#{rule.anchor}}}" in text
    assert f"| [{rule.code}](#{rule.anchor}) | {rule.severity} | {rule.title} | {rule.summary} |" in text


def test_every_command_is_documented():
    text = (ROOT / "docs" / "cli.md").read_text()
    assert all(f"`fanin {name}" in text for name in fanin.commands)


def test_every_figure_of_the_theory_has_its_test():
    """The last cell of a row names tests, and the file that holds them where it is not the common one."""
    text = (ROOT / "docs" / "theory.md").read_text()
    rows = [row for row in text.splitlines() if row.startswith("|") and "`test_" in row]
    assert len(rows) > 20
    for row in rows:
        names = re.findall(r"`(test_\w+)`", row)
        files = re.findall(r"`(test_\w+\.py)`", row) or ["test_theory_numbers.py"]
        held = "".join((ROOT / "tests" / file).read_text() for file in files)
        assert [name for name in names if f"def {name}(" not in held] == [], row
