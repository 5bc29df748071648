"""Fixtures that many test files share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def numbers() -> dict[str, Any]:
    """Facts and figures to check against, each block with its source (tests/reference/numbers.json)."""
    return json.loads((Path(__file__).parent / "reference" / "numbers.json").read_text())
