"""Named tensors of a model, a state dict or a safetensors file as NumPy arrays, one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fanin.errors import ArgumentError, MissingDependency, TargetError

Named = Iterator[tuple[str, tuple[int, ...], "np.ndarray | None"]]


def named_arrays(source: Any, *, buffers: bool = True) -> Named:
    """(name, shape, array) of every tensor; the array is None where there are no values (meta device).

    Args:
        source: a model with ``named_parameters``, a mapping of names to tensors or arrays, or a safetensors path.
        buffers: whether integer and boolean tensors of a mapping or file are given, too.

    Errors: ArgumentError for anything else, TargetError for a file that is missing or no safetensors file.
    """
    if hasattr(source, "named_parameters"):
        for name, tensor in source.named_parameters(remove_duplicate=False):
            yield name, tuple(tensor.shape), array_of(tensor)
    elif isinstance(source, Mapping):
        for name, tensor in source.items():
            if isinstance(tensor, Mapping):  # parameters of Flax are nested
                yield from ((f"{name}/{n}", shape, array) for n, shape, array in named_arrays(tensor, buffers=buffers))
            elif hasattr(tensor, "shape") and (buffers or _is_float(tensor)):
                yield str(name), tuple(tensor.shape), array_of(tensor)
    elif isinstance(source, str | Path):
        yield from _stored(Path(source))
    else:
        raise ArgumentError(
            f"a {type(source).__name__} has no named tensors",
            remedy="give a model, a state dict, or the path of a safetensors file",
        )


def array_of(tensor: Any) -> np.ndarray | None:
    """A tensor of any framework as an array; None on the meta device. bfloat16 comes as float32."""
    if isinstance(tensor, np.ndarray):
        return tensor
    if getattr(getattr(tensor, "device", None), "type", "") == "meta":
        return None
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu()
        if str(tensor.dtype) in ("torch.bfloat16", "torch.float8_e4m3fn", "torch.float8_e5m2"):
            tensor = tensor.float()
        return tensor.numpy()
    return np.asarray(tensor)


def _is_float(tensor: Any) -> bool:
    return any(word in str(tensor.dtype) for word in ("float", "complex"))


def _stored(path: Path) -> Named:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise MissingDependency("reading a safetensors file", remedy="pip install safetensors") from error
    if not path.is_file():
        raise TargetError(f"there is no file {path}", remedy="give the path of a safetensors file")
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  a file, not a dict
                tensor = file.get_tensor(name)
                yield name, tuple(tensor.shape), array_of(tensor)
    except SafetensorError as error:
        raise TargetError(f"{path} is no safetensors file", cause=str(error)) from error
