"""Leave no trace: what reading or running a model could change is put back, also after an exception."""

from __future__ import annotations

import contextlib
import io
import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

STREAM = 0x6A09E667F3BCC908
"""Set apart from the seeds of users: a batch drawn after ``manual_seed(0)`` must not be the cotangent of seed 0."""


@contextmanager
def untouched(seed: int | None = None) -> Iterator[None]:
    """Random states (Python, NumPy, torch on all devices) and the gradient mode as before; seeded inside on request."""
    python = random.getstate()
    legacy = np.random.get_state()  # noqa: NPY002  the global state is what models draw from and must find again
    cudas = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=cudas):
        try:
            if seed is not None:
                torch.manual_seed(seed ^ STREAM)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002  as above


@contextmanager
def hushed() -> Iterator[None]:
    """No log records and nothing on stderr: of what it cannot trace the tracer shows code and tracebacks."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(level)
