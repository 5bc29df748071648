"""Copies of a model whose parameters are other tensors: fake ones to trace with, so that nothing is allocated."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map

from fanin.errors import ModelError
from fanin.frameworks.torch.program import collect_tensors


def shadow(model: torch.nn.Module, make: Callable[[torch.Tensor], torch.Tensor]) -> torch.nn.Module:
    """A structural copy of the model, parameters and buffers ``make(tensor)``; ties are kept, values not copied."""
    memo: dict[int, Any] = {}
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        if id(tensor) not in memo:
            new = make(tensor)
            if isinstance(tensor, torch.nn.Parameter):
                new = torch.nn.Parameter(new, requires_grad=tensor.requires_grad)
            memo[id(tensor)] = new
    for tensor in _cached(model):
        memo.setdefault(id(tensor), tensor.detach().clone())
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:
        raise ModelError(
            f"the model ({type(model).__name__}) cannot be copied: {type(error).__name__}: {error}",
            cause="fanin reads a structural copy so that your model stays untouched",
            remedy="give the attribute that cannot be copied a __deepcopy__, or build it outside the module",
        ) from error


def _cached(model: torch.nn.Module) -> Iterator[torch.Tensor]:
    """Results of earlier passes that modules keep as plain attributes: copy.deepcopy refuses those with a history."""
    for module in model.modules():
        found: list[torch.Tensor] = []
        collect_tensors(list(vars(module).values()), found)
        yield from (tensor for tensor in found if not tensor.is_leaf)


def faker() -> Callable[[torch.Tensor], torch.Tensor]:
    mode = FakeTensorMode(allow_non_fake_inputs=True)

    def fake(tensor: torch.Tensor) -> torch.Tensor:
        with mode:
            return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu")

    return fake


@contextmanager
def fakes(model, args, kwargs) -> Iterator[tuple]:
    fake = faker()
    copied = readable(shadow(model, fake))
    to_fake = lambda x: fake(x) if isinstance(x, torch.Tensor) else x  # noqa: E731
    yield copied, tree_map(to_fake, tuple(args)), tree_map(to_fake, dict(kwargs))


def readable(copied: torch.nn.Module) -> torch.nn.Module:
    """The copy without what is not part of its signal: caches, and whole layers dropped at random."""
    from fanin.frameworks.torch.identity import mark

    mark(copied)
    config = getattr(copied, "config", None)
    if config is not None and getattr(config, "use_cache", None):
        config.use_cache = False
    for holder in {id(h): h for h in (*copied.modules(), *_configs(copied))}.values():
        for name in ("layerdrop", "encoder_layerdrop", "decoder_layerdrop"):
            if isinstance(getattr(holder, name, None), float):
                setattr(cast(Any, holder), name, 0.0)  # a branch on a random number; the full net is what is read
    return copied


def _configs(model: torch.nn.Module) -> Iterator[Any]:
    return (module.config for module in model.modules() if hasattr(module, "config"))
