"""A torch tensor's memory: as a flat array where it is one, through a bounded copy where it is not."""

from __future__ import annotations

import bisect
import math
import sys
from typing import Any

import torch
from numpy.typing import NDArray

from fanin.fill.formats import FORMATS, Format
from fanin.fill.jobs import Job, run

_FORMAT = {
    torch.float32: FORMATS["float32"],
    torch.float64: FORMATS["float64"],
    torch.bfloat16: FORMATS["bfloat16"],
    torch.float16: FORMATS["float16"],
    torch.complex64: FORMATS["complex64"],
    torch.complex128: FORMATS["complex128"],
}
_AT_ONCE = 1 << 24  # elements copied together where a tensor cannot be written directly


def is_meta(tensor: torch.Tensor) -> bool:
    return tensor.device.type == "meta"


def obstacle(tensor: torch.Tensor) -> tuple[str, str] | None:
    """(what is wrong, what to do) for a tensor that cannot be filled at all, else None."""
    if tensor.is_quantized or not (tensor.is_floating_point() or tensor.is_complex()):
        return f"has dtype {tensor.dtype}", "only floating-point weights can be drawn; leave it out of the plan"
    if tensor.layout != torch.strided:
        return f"has layout {tensor.layout}", "only dense tensors can be drawn; leave it out of the plan"
    if any(step == 0 and size > 1 for size, step in zip(tensor.shape, tensor.stride(), strict=True)):
        return "is expanded: several elements share one place in memory", "replace it by a contiguous copy"
    return None


def direct(tensor: torch.Tensor) -> bool:
    """Whether the tensor is one contiguous run of host memory in a dtype that the generators write."""
    return (
        tensor.device.type == "cpu"
        and type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and tensor.dtype in _FORMAT
        and tensor.is_contiguous()
    )


def flat(tensor: torch.Tensor) -> tuple[NDArray, Format]:
    """A ``direct`` tensor's storage as a flat array (shared, not copied) and its format."""
    format, data = _FORMAT[tensor.dtype], tensor.detach()
    if data.is_complex():
        data = torch.view_as_real(data)
    elif format.storage.itemsize == 2:
        data = data.view(torch.int16)
    return data.numpy().reshape(-1).view(format.storage), format


def copied(target: Any, seed: int) -> None:
    """Fill a strided, remote or exotic tensor through host memory, a bounded number of rows at a time."""
    tensor = target.tensor.detach()
    if not target.shape:
        tensor.copy_(_drawn(target, seed, 0, 1, tensor.dtype).reshape(()))
        return
    row = math.prod(target.shape[1:])
    whole = target.distribution.kind in ("orthogonal", "delta_orthogonal", "sparse", "identity")
    step = target.shape[0] if whole else max(1, _AT_ONCE // max(1, row))
    for first in range(0, target.shape[0], max(1, step)):
        part = tensor[first : first + step]
        part.copy_(_drawn(target, seed, first * row, part.numel(), tensor.dtype).reshape(part.shape))


def _drawn(target: Any, seed: int, start: int, count: int, dtype: torch.dtype) -> torch.Tensor:
    values = torch.empty(count, dtype=dtype if dtype in _FORMAT else torch.float32)
    out, format = flat(values)
    run([Job(out, target.name, target.shape, target.distribution, format, start)], seed)
    return values


def read_only(tensors: list[torch.Tensor]) -> int | None:
    """Index of the first tensor in memory mapped without write permission, where the system tells (Linux)."""
    if not sys.platform.startswith("linux"):
        return None
    starts, stops = _locked_ranges()
    for i, tensor in enumerate(tensors):
        if tensor.device.type == "cpu" and tensor.layout == torch.strided and tensor.numel():
            address = _address(tensor)
            at = bisect.bisect_right(starts, address) - 1
            if at >= 0 and address < stops[at]:
                return i
    return None


def _address(tensor: torch.Tensor) -> int:
    return tensor.data_ptr()


def _locked_ranges() -> tuple[list[int], list[int]]:
    starts, stops = [], []
    with open("/proc/self/maps") as maps:
        for line in maps:
            span, mode = line.split(None, 2)[:2]
            if mode[1] != "w":
                low, high = span.split("-")
                starts.append(int(low, 16))
                stops.append(int(high, 16))
    return starts, stops
