"""``save``: a checkpoint of a model whose weights were never in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import torch

from fanin.errors import ModelError, PlanError
from fanin.fill.keys import check_seed
from fanin.fill.safetensors import Tensor
from fanin.fill.shards import Progress, Saved, save_tensors
from fanin.frameworks.torch.fill_meta import known_buffer
from fanin.frameworks.torch.fill_targets import targets

_DTYPE = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def save(
    plan: Any,
    model: torch.nn.Module,
    path: str | os.PathLike[str],
    *,
    seed: int,
    max_shard_bytes: int = 5_000_000_000,
    progress: Callable[[Progress], Any] | None = None,
) -> Saved:
    """Draw the plan's weights straight into safetensors files, never holding more than one tensor's part.

    Args:
        plan: every parameter that the plan does not draw must have values in the model.
        model: its names, shapes and dtypes count; parameters may be on the meta device.
        path: one file if it ends in .safetensors, else a folder: model.safetensors, or shards and their index, which
            transformers loads, with config.json if the model has a configuration.
        max_shard_bytes: of data in one file; a tensor is never cut.
        progress: called with a ``Progress`` as bytes are written.

    A save that was interrupted, even by kill -9, goes on where it stopped when it is called again: finished files
    are kept if their hash is right, and a file is never seen under its name before it is complete.

    Errors: PlanError, ModelError and ArgumentError before anything is written; OutputError where the disk is full or
    the place cannot be written.

    Example:
        >>> import tempfile, fanin
        >>> net = torch.nn.Linear(64, 32, device="meta")
        >>> made = fanin.plan(net, recipe="he")
        >>> folder = tempfile.TemporaryDirectory()
        >>> print(save(made, net, folder.name + "/net.safetensors", seed=0).files[0].name)
        net.safetensors
        >>> fanin.verify(folder.name + "/net.safetensors", made, seed=0).ok
        True
    """
    seed = check_seed(seed)
    return save_tensors(
        _tensors(plan, model),
        path,
        seed=seed,
        fingerprint=str(plan.fingerprint),
        max_shard_bytes=max_shard_bytes,
        extra=_configuration(model),
        progress=progress,
    )


def _tensors(plan: Any, model: torch.nn.Module) -> list[Tensor]:
    """The model's state, each tensor once, under the name it is drawn by."""
    laws = {id(target.tensor): target for target in targets(plan, model)}
    found, seen = [], set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        target = laws.get(id(tensor))
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        if target is not None:
            found.append(_stored(target.name, tensor, target.distribution, None))
        else:
            found.append(_stored(name, tensor, None, _bytes(model, name, tensor)))
    return found


def _stored(name: str, tensor: torch.Tensor, distribution: Any, value: Any) -> Tensor:
    if tensor.dtype not in _DTYPE:
        raise PlanError(f"{name!r} has dtype {tensor.dtype}", remedy="save it in float32, bfloat16 or float16")
    return Tensor(name, _DTYPE[tensor.dtype], tuple(tensor.shape), tensor.dtype.itemsize, distribution, value)


def _bytes(model: torch.nn.Module, name: str, tensor: torch.Tensor) -> Callable[[], bytes]:
    """The bytes of a tensor that the plan does not draw."""
    value = known_buffer(model, name, tensor) if tensor.is_meta else tensor
    if value is None:
        raise ModelError(
            f"{name!r} of shape {tuple(tensor.shape)} is on the meta device and the plan does not draw it",
            remedy="give it values, or give it a distribution in the plan",
        )
    return lambda: value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _configuration(model: torch.nn.Module) -> dict[str, str]:
    """config.json as transformers' save_pretrained would write it."""
    write = getattr(getattr(model, "config", None), "to_json_string", None)
    if write is None:
        return {}
    options = json.loads(write())
    options["architectures"] = [type(model).__name__]
    return {"config.json": json.dumps(options, indent=2, sort_keys=True) + "\n"}
