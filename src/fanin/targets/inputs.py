"""``--input``: what to make up when nobody gives a batch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fanin.errors import TargetError

FLOATS = ("float32", "float16", "bfloat16", "float64")
INTEGERS = ("int64", "int32", "uint8", "bool")
_FORM = re.compile(r"^(?:(?P<name>[A-Za-z_]\w*):)?(?P<dtype>\w+)\[(?P<dims>[\d\s,]*)\](?:<(?P<below>\d+))?$")


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One input: floats are drawn from N(0, 1), integers uniformly below ``below``, booleans are True.

    Attributes:
        name: keyword argument of ``forward``; "" for a positional one.
        dtype: such as ``float32``.
        shape: batch included.
        below: integers are drawn from 0 up to this, exclusive; None for the size of the model's vocabulary.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    below: int | None = None


def parse_input(text: str) -> InputSpec:
    """Read ``[name:]dtype[dims][<below]``.

    Example:
        >>> parse_input("input_ids:int64[2,16]<1000")
        InputSpec(name='input_ids', dtype='int64', shape=(2, 16), below=1000)
        >>> parse_input("float32[8,3,32,32]").shape
        (8, 3, 32, 32)
    """
    match = _FORM.match(text.strip())
    if match is None:
        raise TargetError(
            f"--input {text!r} cannot be read", remedy='write "float32[8,3,32,32]" or "input_ids:int64[2,16]"'
        )
    dtype = {"float": "float32", "long": "int64", "int": "int64", "half": "float16"}.get(match["dtype"], match["dtype"])
    if dtype not in FLOATS + INTEGERS:
        raise TargetError(
            f"--input {text!r} has the unknown dtype {dtype!r}", remedy=f"use one of {', '.join(FLOATS + INTEGERS)}"
        )
    shape = tuple(int(part) for part in match["dims"].split(",") if part.strip())
    if 0 in shape:
        raise TargetError(f"--input {text!r} has an axis of size 0", remedy="every axis needs at least one element")
    return InputSpec(match["name"] or "", dtype, shape, int(match["below"]) if match["below"] else None)


def make_inputs(
    model: Any, texts: Sequence[str], *, seed: int = 0, meta: bool = False, label: str = "the model"
) -> Any:
    """One tensor, a tuple of positional ones, or a mapping of keyword ones, as the names say."""
    specs = [parse_input(text) for text in texts]
    named = {bool(spec.name) for spec in specs}
    if len(named) > 1:
        raise TargetError("some --input have a name and some have none", remedy=f"name all inputs of {label}, or none")
    vocabulary = smallest_vocabulary(model)
    tensors = [random_tensor(spec, seed=seed + i, meta=meta, below=vocabulary) for i, spec in enumerate(specs)]
    if True in named:
        return {spec.name: tensor for spec, tensor in zip(specs, tensors)}
    return tensors[0] if len(tensors) == 1 else tuple(tensors)


def random_tensor(spec: InputSpec, *, seed: int, meta: bool = False, below: int | None = None) -> Any:
    """The tensor ``spec`` asks for; its own generator, so that no global random state moves."""
    import torch

    dtype = getattr(torch, spec.dtype)
    if meta:
        return torch.empty(spec.shape, dtype=dtype, device="meta")
    generator = torch.Generator().manual_seed(seed)
    if spec.dtype in FLOATS:
        return torch.randn(spec.shape, generator=generator, device="cpu").to(dtype)
    if spec.dtype == "bool":
        return torch.ones(spec.shape, dtype=dtype, device="cpu")
    return torch.randint(0, spec.below or below or 2, spec.shape, generator=generator, dtype=dtype, device="cpu")


def smallest_vocabulary(model: Any) -> int | None:
    """Number of rows of the model's first embedding: ids below it are valid there."""
    for module in _modules(model):
        if hasattr(module, "num_embeddings"):
            return int(module.num_embeddings)
    return None


def guess_input(model: Any) -> str:
    """An ``--input`` that fits the model's first layer, to be suggested, not used."""
    for module in _modules(model):
        if hasattr(module, "num_embeddings"):
            return "int64[4,64]"
        if hasattr(module, "in_features"):
            return f"float32[32,{module.in_features}]"
        if hasattr(module, "in_channels") and hasattr(module, "kernel_size"):
            sides = {1: "256", 2: "32,32", 3: "16,16,16"}[len(module.kernel_size)]
            return f"float32[16,{module.in_channels},{sides}]"
        if hasattr(module, "input_size"):
            return f"float32[4,16,{module.input_size}]"
    return "float32[8,3,32,32]"


def _modules(model: Any) -> list[Any]:
    return list(model.modules()) if hasattr(model, "modules") else []
