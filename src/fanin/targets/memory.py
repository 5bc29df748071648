"""Refuse a model before it fills the memory, and say how large it would be."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fanin.errors import TargetError

if TYPE_CHECKING:
    from fanin.targets.resolve import Request


def check_size(shapes: Any, request: Request) -> None:
    """Raise where weights and gradients in float32 would take more than the limit.

    Args:
        shapes: the model on the meta device.
        request: holds the limit; without one it is half of the free memory.
    """
    count = sum(p.numel() for p in shapes.parameters())
    need, limit = 8 * count, request.limit_bytes or free_bytes() // 2
    if need > limit:
        raise TargetError(
            f"{request.text} has {count / 1e9:.1f} billion parameters: weights and gradients take "
            f"{need / 2**30:.0f} GiB, the limit here is {limit / 2**30:.0f} GiB",
            remedy="add --small to shrink the configuration, --set num_hidden_layers=2 to choose yourself, "
            "or --predict-only, which allocates no weight",
        )


def free_bytes() -> int:
    """Memory that can be had now, from the kernel where it says."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 8 * 2**30
