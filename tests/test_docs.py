"""What the documentation must hold."""

from __future__ import annotations

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
