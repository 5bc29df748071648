"""``verify``: are these weights what this plan and this seed give?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fanin.errors import ModelError, TargetError
from fanin.fill.keys import check_seed
from fanin.fill.safetensors import Stored, read
from fanin.fill.verification import Claim, Verification, compare
from fanin.frameworks.torch.fill_sharded import gathered
from fanin.frameworks.torch.fill_storage import format_of, storage


def verify(model_or_path: Any, plan: Any, *, seed: int) -> Verification:
    """Compare every tensor that the plan draws, bit for bit, with what plan and seed give in its dtype.

    Args:
        model_or_path: a model, or a safetensors file, or a folder with one or with shards and an index.

    Tensors that the plan does not draw are not looked at. Sharded parameters are gathered one by one, so every process
    has to call. Memory is bounded: 16 million values at a time, or one
    tensor for laws that are drawn as a whole.

    Errors: ArgumentError for a wrong seed; TargetError for a file that is none; ModelError for weights without values.
    """
    seed = check_seed(seed)
    if isinstance(model_or_path, torch.nn.Module):
        return compare(_of_model(model_or_path, plan), seed)
    if isinstance(model_or_path, (str, os.PathLike)):
        return compare(_of_files(read(model_or_path), plan), seed)
    raise TargetError(f"{type(model_or_path).__name__} cannot be verified", remedy="give a model or a path")


def _drawn(plan: Any) -> Iterator[tuple[str, Any]]:
    for name, entry in plan.entries.items():
        if entry.distribution is not None and getattr(entry, "tied_to", None) is None:
            yield name, entry


def _of_files(stored: dict[str, Stored], plan: Any) -> Iterator[Claim]:
    for name, entry in _drawn(plan):
        place = stored.get(name)
        shape, law = tuple(entry.shape), entry.distribution
        if place is None:
            yield Claim(name, shape, law, None, None, lambda start, count: np.empty(0))
            continue
        format = place.format

        def at(start: int, count: int, place: Stored = place) -> NDArray:
            assert place.format is not None  # compare looks at the format first
            kind = place.format.storage
            return np.fromfile(place.path, kind, count, offset=place.begin + start * kind.itemsize)

        yield Claim(name, shape, law, place.shape, format, at)


def _of_model(model: torch.nn.Module, plan: Any) -> Iterator[Claim]:
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, entry in _drawn(plan):
        tensor = parameters.get(name)
        shape, law = tuple(entry.shape), entry.distribution
        if tensor is None:
            yield Claim(name, shape, law, None, None, lambda start, count: np.empty(0))
            continue
        if tensor.is_meta:
            raise ModelError(f"parameter {name!r} is on the meta device", remedy="fanin.apply gives it values")

        def at(start: int, count: int, tensor: torch.Tensor = tensor) -> NDArray:
            return storage(gathered(tensor))[start : start + count]

        yield Claim(name, shape, law, tuple(tensor.shape), format_of(tensor), at)
