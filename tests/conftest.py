"""Fixtures that many test files share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fanin.theory.failures import loud

collect_ignore = ["reference/make_defaults.py"]  # needs Flax and Keras, which made the files that it wrote


@pytest.fixture(scope="session")
def numbers() -> dict[str, Any]:
    """Facts and figures to check against, each block with its source (tests/reference/numbers.json)."""
    return json.loads((Path(__file__).parent / "reference" / "numbers.json").read_text())


@pytest.fixture(autouse=True)
def failures_are_loud():
    """A slip in a rule of the theory fails the test instead of leaving a row without a prediction."""
    token = loud.set(True)
    yield
    loud.reset(token)
