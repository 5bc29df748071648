"""Tracing: export where the model allows it, else a recording of what runs on this batch.

Both work on a copy whose parameters are fake tensors: nothing is allocated, nothing of the model is touched, and
meta models trace like real ones.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

from fanin.errors import FaninError, ModelError
from fanin.frameworks.torch.flatten import flatten
from fanin.frameworks.torch.program import Program, collect_tensors
from fanin.frameworks.torch.quiet import hushed
from fanin.frameworks.torch.shadow import faker, fakes, readable, shadow


class _TensorsOnly(torch.nn.Module):
    """The model with every output that is not a tensor dropped: caches and dataclasses do not stop the trace."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.inner = model
        self.training = model.training

    def forward(self, args, kwargs):
        tensors: list[torch.Tensor] = []
        collect_tensors(self.inner(*args, **kwargs), tensors)
        return tensors


def trace(model: torch.nn.Module, args: tuple, kwargs: Mapping[str, Any]) -> Program:
    """Trace the model on the shapes of the batch; values of the batch are not looked at.

    Args:
        model: real or meta; its mode (training or evaluation) is kept.
        args, kwargs: what forward takes.

    Raises:
        ModelError: the model raises on this batch or cannot be traced.
    """
    try:
        with fakes(model, args, kwargs) as (fake, fake_args, fake_kwargs):
            exported = _export(fake, fake_args, fake_kwargs)
        program = flatten(exported, model, args, kwargs)
    except ModelError:
        recorded = _recorded(model, args, kwargs)
        if recorded is None:
            raise
        return recorded
    return program if _sized(program) else _recorded(model, args, kwargs) or _unsized(model)


def _sized(program: Program) -> bool:
    """Whether the shape of every tensor is known: a mask that picks rows leaves a number open."""
    values = (v for step in program.steps for v in tree_leaves(step.value) if isinstance(v, torch.Tensor))
    return all(isinstance(n, int) for v in values for n in v.shape)


def _unsized(model: torch.nn.Module) -> Program:
    raise ModelError(
        f"{type(model).__name__} has tensors whose shapes depend on the values of others",
        cause="the model is on the meta device, or these values depend on weights",
        remedy="give a model with weights and a batch with values",
    )


def _recorded(model: torch.nn.Module, args: tuple, kwargs: Mapping[str, Any]) -> Program | None:
    """What runs on this batch, for a model that branches on it; with the model's own weights where it branches on them.

    None where the model cannot be run that way either.

    Raises:
        ModelError: it does what cannot be written down.
    """
    from fanin.frameworks.torch.record import record

    paths = frozenset(name for name, _ in model.named_modules())
    leaves = tuple(tree_leaves((tuple(args), dict(kwargs))))
    refused: ModelError | None = None
    real = all(t.device.type != "meta" for t in itertools.chain(model.parameters(), model.buffers()))
    for weights in (False, True) if real else (False,):
        fake = faker()
        known = lambda t, fake=fake: fake(t) if t.device.type == "meta" else t.detach().clone()  # noqa: E731
        make = (
            known if weights else lambda t, fake=fake, k=known: fake(t) if isinstance(t, torch.nn.Parameter) else k(t)
        )
        copied = readable(shadow(model, make))
        own = lambda x, known=known: known(x) if isinstance(x, torch.Tensor) else x  # noqa: E731
        try:
            with warnings.catch_warnings(), hushed():
                warnings.simplefilter("ignore")
                program = record(copied, tree_map(own, tuple(args)), tree_map(own, dict(kwargs)), paths)
        except ModelError as error:
            refused = error
            continue
        except (Exception, SystemExit):  # whatever the model raises without values, or with its own
            continue
        return replace(program, leaves=leaves)
    if refused is not None:
        raise refused
    return None


def _export(model, args, kwargs):
    with warnings.catch_warnings(), hushed():
        warnings.simplefilter("ignore")
        try:
            return torch.export.export(_TensorsOnly(model), (args, kwargs), strict=False)
        except FaninError:
            raise
        except (Exception, SystemExit) as error:
            raise _explained(model, args, kwargs, error) from error


def _explained(model, args, kwargs, error: BaseException) -> ModelError:
    """Tell a batch that does not fit from a model that cannot be traced."""
    text = str(error).strip().splitlines()
    first = text[0][:300] if text else ""
    shapes = ", ".join(
        f"{tuple(x.shape)} {str(x.dtype).removeprefix('torch.')}"
        for x in [*args, *kwargs.values()]
        if isinstance(x, torch.Tensor)
    )
    kind = type(error).__name__
    branch = any(word in str(error) for word in ("data-dependent", "GuardOnDataDependent", "Could not guard"))
    if branch:
        return ModelError(
            f"{type(model).__name__} cannot be traced: {kind}: {first}",
            cause="its forward branches on the values of a tensor",
            remedy="express the branch with torch.where or torch.cond, or check the parts on either side of it",
        )
    return ModelError(
        f"{type(model).__name__} raised on a batch of {shapes or 'no tensors'}: {kind}: {first}",
        cause="the batch does not fit the model, or its forward fails",
        remedy="run model(batch) once yourself; a tuple is taken as positional, a mapping as keyword arguments",
    )
