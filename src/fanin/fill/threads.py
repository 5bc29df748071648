"""Sharing rows of work among threads. Which thread does what never enters the numbers."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

_ALONE = 1 << 15  # values below which starting a thread costs more than it saves


def count() -> int:
    """Threads to use: ``$FANIN_THREADS``, else ``$OMP_NUM_THREADS`` (torchrun sets it), else the cores we may use."""
    for name in ("FANIN_THREADS", "OMP_NUM_THREADS"):
        value = os.environ.get(name, "")
        if value.isdecimal() and int(value) > 0:
            return int(value)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share(work: Callable[[int, int], object], sizes: NDArray[np.int64], portion: int) -> None:
    """Call ``work(first, stop)`` over all rows, in runs of about ``portion`` values, from as many threads as pay.

    Threads are started anew each time: that costs 50 us, and leaves nothing behind that a fork could break. A run is
    handed out when a thread is free, so a busy core does less of the work.
    """
    total = np.cumsum(sizes)
    if not len(total):
        return
    cuts = np.searchsorted(total, np.arange(portion, int(total[-1]) + portion, portion), side="left") + 1
    cuts = np.unique(np.minimum(np.append(0, cuts), len(sizes)))
    helpers = min(count(), len(cuts) - 1, 1 + int(total[-1]) // _ALONE) - 1
    if helpers < 1:
        work(0, len(sizes))
        return
    ticket, errors = itertools.count(), []

    def loop() -> None:
        try:
            while not errors and (i := next(ticket)) < len(cuts) - 1:
                work(int(cuts[i]), int(cuts[i + 1]))
        except BaseException as error:  # the caller's thread raises it
            errors.append(error)

    threads = [threading.Thread(target=loop, daemon=True) for _ in range(helpers)]
    for thread in threads:
        thread.start()
    loop()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
