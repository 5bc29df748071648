"""While a graph is interpreted: one thread for small matrices of linear algebra, and few searches for cycles."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module

import numpy as np

_PREFIXES = ("scipy_openblas_{}_num_threads64_", "openblas_{}_num_threads64_", "openblas_{}_num_threads")


@lru_cache(maxsize=1)
def _controls() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """How many threads NumPy's OpenBLAS uses, and how to change it; None with another library."""
    try:
        core = import_module(
            "numpy._core._multiarray_umath" if hasattr(np, "_core") else "numpy.core._multiarray_umath"
        )
        library = ctypes.CDLL(core.__file__)  # its own symbols, and those of what it links
    except (ImportError, OSError, TypeError):
        return None
    for name in _PREFIXES:
        get, set_ = (getattr(library, name.format(verb), None) for verb in ("get", "set"))
        if get is not None and set_ is not None:
            return get, set_
    return None


ALLOCATIONS = 20_000
"""Objects made and not freed after which Python looks for cycles while a graph is interpreted."""


@contextmanager
def rarely_collected() -> Iterator[None]:
    """Python's search for cycles less often; as before afterwards.

    Laws and cotangents live as long as the graph is read: to look through all of them after every 700 new ones takes a
    tenth of the time. What was there before (the framework, the model, its graph) is not looked through at all. Who has
    switched the search off, or made it rarer still, or has objects frozen, keeps that.
    """
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    if not 0 < before[0] < ALLOCATIONS:
        yield
        return
    gc.set_threshold(ALLOCATIONS, *before[1:])
    if not frozen:
        gc.freeze()
    try:
        yield
    finally:
        gc.set_threshold(*before)
        if not frozen:
            gc.unfreeze()


@contextmanager
def one_thread() -> Iterator[None]:
    """Products of NumPy arrays in the caller's thread alone; as before afterwards.

    A product of two matrices of a hundred rows takes 30 microseconds, and a wait for a second thread on a busy
    machine a few milliseconds.
    """
    controls = _controls()
    before = controls[0]() if controls is not None else 1
    if controls is None or before <= 1:
        yield
        return
    controls[1](1)
    try:
        yield
    finally:
        controls[1](before)
