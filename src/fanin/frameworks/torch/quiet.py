"""Leave no trace: what reading or running a model could change is put back, also after an exception."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def untouched(seed: int | None = None) -> Iterator[None]:
    """Every random state (Python, NumPy, torch on all devices) and the gradient mode as before; seeded inside on request."""
    python, legacy = random.getstate(), np.random.get_state()
    cudas = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=cudas):
        try:
            if seed is not None:
                torch.manual_seed(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)
