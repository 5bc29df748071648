"""The table of operations: every row has a rule, and its page is the one that the code writes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("torch")

from fanin.frameworks.torch.ops import TABLE
from fanin.graph import Kind
from fanin.theory.engine import RULES

DOCS = Path(__file__).parent.parent / "docs"


def generator():
    spec = importlib.util.spec_from_file_location("make_ops", DOCS / "make_ops.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_row_has_a_rule():
    make = generator()
    assert {make.kind_of(row) for row in TABLE.values()} <= set(RULES) | {Kind.CONSTANT}


def test_something_is_said_of_every_rule():
    assert set(generator().CLAIMS) == set(RULES)


def test_the_page_is_up_to_date():
    assert (DOCS / "ops.md").read_text() == generator().page(), "run: python docs/make_ops.py"
