"""A traced model as a flat list of steps: the operations that run, in order, with the modules they ran in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class Ref:
    """A reference to the value of an earlier step (or of an input) within arguments."""

    id: str


@dataclass(frozen=True, slots=True)
class Call:
    """One visit of one module: its qualified name and a key that tells repeated visits apart."""

    key: str
    path: str
    kind: str


@dataclass(frozen=True, slots=True)
class Step:
    """One operation: ``target(*args, **kwargs)`` with references for tensors."""

    id: str
    target: Callable[..., Any]
    args: tuple
    kwargs: Mapping[str, Any]
    value: Any  # the fake result: a tensor, a tuple of them, or None
    calls: tuple[Call, ...]


@dataclass(frozen=True)
class Program:
    """Steps plus what feeds them.

    Attributes:
        steps: in the order in which they run.
        parameters, buffers: input id -> qualified name.
        constants: input id -> tensor that the model made while it was traced.
        inputs: input ids of the batch's leaves, in order; ``leaves`` are the batch's tensors (or other values).
        outputs: ids of the returned tensors, in order.
        module_paths: qualified names of all modules.
        training: mode at trace time.
    """

    steps: tuple[Step, ...]
    parameters: Mapping[str, str]
    buffers: Mapping[str, str]
    constants: Mapping[str, torch.Tensor]
    inputs: tuple[str, ...]
    leaves: tuple[Any, ...]
    outputs: tuple[str, ...]
    module_paths: frozenset[str]
    training: bool
    how: str = "export"
    values: Mapping[str, Any] = field(default_factory=dict)  # fake values of the inputs
    passed: Mapping[str, str] = field(default_factory=dict)  # modules that return what they get: path -> step


def collect_tensors(value: Any, into: list[torch.Tensor]) -> None:
    """Append the floating-point and other tensors of nested dicts, lists, tuples and dataclasses in order."""
    if isinstance(value, torch.Tensor):
        into.append(value)
    elif isinstance(value, Mapping):
        for item in value.values():
            collect_tensors(item, into)
    elif isinstance(value, list | tuple):
        for item in value:
            collect_tensors(item, into)
