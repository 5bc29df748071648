"""`resolve`: one entry for every kind of target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

from fanin.errors import MissingDependency, TargetError
from fanin.targets.inputs import guess_input, make_inputs


@dataclass(frozen=True, slots=True)
class Target:
    """A model that was found or built.

    Attributes:
        model: the model, on the meta device where that was asked for.
        batch: what the model takes; None where nobody said and nothing was asked for.
        label: the target as the user wrote it.
        notes: what was decided on the user's behalf, one sentence each.
        loss, target: the loss of training and what it compares with, where the factory gave them.
    """

    model: Any
    batch: Any
    label: str
    notes: tuple[str, ...] = ()
    loss: Any = None
    target: Any = None


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked for beside the target's name; see `resolve`."""

    text: str
    meta: bool = False
    small: bool = False
    overrides: Sequence[str] = ()
    limit_bytes: int | None = None


def resolve(
    text: str,
    *,
    inputs: Sequence[str] = (),
    meta: bool = False,
    overrides: Sequence[str] = (),
    small: bool = False,
    seed: int = 0,
    need_batch: bool = True,
    limit_bytes: int | None = None,
) -> Target:
    """Find or build the model that ``text`` names, and a batch for it.

    Args:
        text: the TARGET.
        inputs: what ``--input`` says, such as ``"input_ids:int64[2,16]"``; wins over the target's own batch.
        meta: build on the meta device, so that no weight is allocated.
        overrides: ``"name=value"`` fields of a configuration, or keyword arguments of a factory.
        small: shrink an ``hf:`` configuration: fewer layers, narrower, the same architecture.
        seed: seeds the random weights and the made-up batch; the caller's random state is left alone.
        need_batch: refuse a target for which no batch can be made; otherwise its batch is None.
        limit_bytes: refuse ``hf:`` models whose weights and gradients take more; default half the free memory.

    Raises:
        TargetError: the target cannot be found, loaded or built.
        MissingDependency: the package it needs is not installed.
    """
    request = Request(text, meta, small, tuple(overrides), limit_bytes)
    torch = require("torch", "torch")
    with torch.random.fork_rng(devices=[]), torch.device("meta") if meta else nullcontext():
        torch.manual_seed(seed)
        found = _builder(text)(request)
    batch = make_inputs(found.model, inputs, seed=seed, meta=meta, label=text) if inputs else found.batch
    if batch is None and need_batch:
        raise TargetError(
            f"{text} gives no batch",
            cause="a factory may return (model, batch); otherwise fanin must be told what the model takes",
            remedy=f'add --input "{guess_input(found.model)}" (or name:dtype[dims] for a keyword argument)',
        )
    if inputs and found.loss is not None and text.startswith("hf:"):  # its target was made for another batch
        found = replace(found, loss=None, target=None)
    return replace(found, batch=batch, label=text)


def _builder(text: str) -> Callable[[Request], Target]:
    from fanin.targets import hub, huggingface, python

    scheme = text.partition(":")[0]
    by_scheme = {"hf": huggingface.build, "timm": hub.build_timm, "torchvision": hub.build_torchvision}
    return by_scheme.get(scheme, python.build)


def require(package: str, extra: str) -> Any:
    """Import ``package`` or say which extra brings it."""
    from importlib import import_module

    try:
        return import_module(package)
    except ImportError as error:
        if error.name and error.name.split(".")[0] != package:
            raise MissingDependency(f"{package} is installed but does not import: {error}") from error
        remedy = f"pip install 'fanin[{extra}]'" if extra in ("torch", "hf") else f"pip install {extra}"
        raise MissingDependency(f"this target needs the package {package}", remedy=remedy) from error


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """``["hidden_size=64", "act=relu"]`` -> ``{"hidden_size": 64, "act": "relu"}``; a dot reaches a sub-configuration.

    Example:
        >>> parse_overrides(["hidden_size=64", "bias=false", "hidden_act=relu"])
        {'hidden_size': 64, 'bias': False, 'hidden_act': 'relu'}
    """
    parsed = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise TargetError(
                f"--set {text!r} has no value", remedy="write --set name=value, such as --set hidden_size=64"
            )
        parsed[key.strip()] = _literal(value.strip())
    return parsed


def _literal(text: str) -> Any:
    import json

    try:
        return json.loads({"True": "true", "False": "false", "None": "null"}.get(text, text))
    except ValueError:
        return text
