"""The safetensors file format, read and laid out without the package: a JSON header, then the tensors' bytes.

Source: https://github.com/huggingface/safetensors (format section of the README): eight bytes of header length,
the header, padded with spaces to a multiple of eight, and data without gaps.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fanin.errors import TargetError
from fanin.fill.formats import FORMATS, Format

DTYPES = {
    "F64": FORMATS["float64"],
    "F32": FORMATS["float32"],
    "F16": FORMATS["float16"],
    "BF16": FORMATS["bfloat16"],
    "C64": FORMATS["complex64"],
}
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


class Tensor(NamedTuple):
    """One tensor to store: drawn from ``distribution``, or, where that is None, the bytes of ``value``."""

    name: str
    dtype: str  # as safetensors spells it
    shape: tuple[int, ...]
    itemsize: int
    distribution: Any = None
    value: Any = None  # a callable that gives the bytes

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.itemsize


class Stored(NamedTuple):
    """Where a stored tensor lies."""

    path: Path
    begin: int
    dtype: str
    shape: tuple[int, ...]

    @property
    def format(self) -> Format | None:
        return DTYPES.get(self.dtype)


def header(tensors: Sequence[Tensor], metadata: Mapping[str, str]) -> bytes:
    """What stands before the data of a file that holds these tensors in this order."""
    entries: dict[str, Any] = {"__metadata__": dict(metadata)}
    at = 0
    for tensor in tensors:
        entries[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [at, at + tensor.nbytes],
        }
        at += tensor.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def shards(tensors: Sequence[Tensor], limit: int | None) -> list[list[Tensor]]:
    """Tensors in order, cut into files of at most ``limit`` bytes of data (one tensor is never cut).

    Within a file wider numbers come first, so that every tensor is aligned.
    """
    found: list[list[Tensor]] = [[]]
    size = 0
    for tensor in tensors:
        if limit is not None and found[-1] and size + tensor.nbytes > limit:
            found.append([])
            size = 0
        found[-1].append(tensor)
        size += tensor.nbytes
    return [sorted(shard, key=lambda tensor: -tensor.itemsize) for shard in found]


def read(path: str | os.PathLike[str]) -> dict[str, Stored]:
    """Every tensor of a file, or of a folder with an index or a single file.

    Errors: TargetError for what is no such file or folder, or a damaged one.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    return _read_file(path)[0]


def metadata(path: Path) -> dict[str, str]:
    """The ``__metadata__`` of one file."""
    return _read_file(path)[1]


def _read_folder(path: Path) -> dict[str, Stored]:
    if not (path / INDEX).exists():
        if (path / SINGLE).exists():
            return _read_file(path / SINGLE)[0]
        raise TargetError(f"{path} holds neither {INDEX} nor {SINGLE}", remedy="give the folder fanin.save wrote")
    try:
        files = sorted(set(json.loads((path / INDEX).read_text())["weight_map"].values()))
    except (ValueError, KeyError, OSError) as error:
        raise TargetError(f"{path / INDEX} cannot be read: {error}", cause="it is damaged") from error
    return {name: stored for file in files for name, stored in _read_file(path / file)[0].items()}


def _read_file(path: Path) -> tuple[dict[str, Stored], dict[str, str]]:
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= min(size - 8, 1 << 30):
                raise ValueError("its header's length is impossible")
            entries = json.loads(file.read(length))
            about = entries.pop("__metadata__", {})
            found = {
                name: Stored(path, 8 + length + e["data_offsets"][0], e["dtype"], tuple(e["shape"]))
                for name, e in entries.items()
            }
            if any(8 + length + e["data_offsets"][1] > size for e in entries.values()):
                raise ValueError("it is shorter than its header says")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TargetError(f"{path} cannot be read: {error}", cause="it is no safetensors file, or damaged") from error
    return found, about
