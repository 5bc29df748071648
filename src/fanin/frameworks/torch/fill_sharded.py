"""Sharded parameters (DTensor): each process draws its own shard of the stream, and nothing is communicated."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from fanin.errors import ModelError
from fanin.fill.jobs import Job, run
from fanin.frameworks.torch.fill_storage import direct


def is_sharded(tensor: torch.Tensor) -> bool:
    module = sys.modules.get("torch.distributed.tensor")  # without it there is no DTensor
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This process's part of a sharded tensor; any other tensor itself."""
    part: Any = tensor.detach()
    return part._local_tensor if is_sharded(tensor) else tensor


def gathered(tensor: torch.Tensor) -> torch.Tensor:
    """The full tensor, by communication if it is sharded."""
    return tensor.detach().full_tensor() if is_sharded(tensor) else tensor  # pyright: ignore[reportAttributeAccessIssue]


def fill_shard(target: Any, seed: int) -> None:
    """Draw this process's part of a sharded tensor."""
    part = local(target.tensor)
    if not part.numel():
        return
    owned = indices(target.tensor)
    if tuple(map(len, owned)) != tuple(part.shape):
        raise ModelError(
            f"parameter {target.name!r}: the shard has shape {tuple(part.shape)}, its placements "
            f"{target.tensor.placements} give {tuple(map(len, owned))}",
            remedy="shard with torch.distributed.tensor's own placements",
        )
    whole = direct(part, *target[:3])
    values = part if whole else torch.empty(part.shape, dtype=part.dtype)
    job = whole or direct(values, *target[:3])
    if job is None:
        raise ModelError(f"parameter {target.name!r} has dtype {part.dtype}", remedy="shard it in float32 or bfloat16")
    run(list(_runs(job, target.shape, owned)), seed)
    if not whole:
        part.copy_(values)


def indices(tensor: Any) -> list[list[int]]:
    """For each axis of the full tensor, which indices this process holds. Errors: ModelError for partial sums."""
    coordinate = tensor.device_mesh.get_coordinate()
    owned = [torch.arange(size) for size in tensor.shape]
    cuts = [(axis, placement) for axis, placement in enumerate(tensor.placements) if not placement.is_replicate()]
    # FSDP over tensor parallel on one axis (a "strided" shard): the later mesh axis cut first, then FSDP cut its part
    for axis, placement in sorted(cuts, key=lambda cut: hasattr(cut[1], "split_factor")):
        if placement.is_partial():
            raise ModelError(f"a parameter has placement {placement}", remedy="parameters are sharded or replicated")
        pieces = _chunks(owned[placement.dim], tensor.device_mesh.size(axis))
        owned[placement.dim] = pieces[coordinate[axis]]
    return [index.tolist() for index in owned]


def _chunks(index: torch.Tensor, count: int) -> list[torch.Tensor]:
    """torch.chunk's rule, with empty pieces to make up the count."""
    pieces = list(torch.chunk(index, count)) if len(index) else []
    return pieces + [index[:0]] * (count - len(pieces))


def _runs(job: Job, shape: Sequence[int], owned: list[list[int]]) -> Iterator[Job]:
    """The shard as runs of the stream: along the last axis that is cut, repeated at a stride over the one before."""
    cut = max((d for d, size in enumerate(shape) if len(owned[d]) != size), default=-1)
    if cut < 0 or job.distribution.kind == "constant":
        yield job
        return
    step = [math.prod(shape[d + 1 :]) for d in range(len(shape))]
    spans = _spans(owned[cut])
    outer, repeated = owned[: cut - 1] if cut else [], _spans(owned[cut - 1]) if cut else [(0, 1)]
    address, width = job.address, job.format.storage.itemsize * job.format.parts
    if len(spans) > 1:  # a strided axis: its runs interleave in memory, so none are repeated
        repeated = [(at + i, 1) for at, n in repeated for i in range(n)]
    for place in itertools.product(*outer):
        base = sum(i * step[d] for d, i in enumerate(place))
        for (row, count), (at, length) in itertools.product(repeated, spans):
            size = length * step[cut]
            start = base + (row * step[cut - 1] if cut else 0) + at * step[cut]
            stride = step[cut - 1] if cut else 0
            yield job._replace(address=address, size=size * job.format.parts, start=start, count=count, stride=stride)
            address += count * size * width


def _spans(index: list[int]) -> list[tuple[int, int]]:
    """Consecutive indices as (first, how many)."""
    spans: list[tuple[int, int]] = []
    for i in index:
        if spans and sum(spans[-1]) == i:
            spans[-1] = (spans[-1][0], spans[-1][1] + 1)
        else:
            spans.append((i, 1))
    return spans


def reset_shards(model: torch.nn.Module) -> None:
    """Let FSDP2 notice that its modules hold new parameters (it does so whenever a module is moved)."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    kind = getattr(fsdp, "FSDPModule", None)
    if kind is not None and any(isinstance(module, kind) for module in model.modules()):
        model._apply(lambda tensor: tensor)


def param_init_fn(
    plan: Any, model: torch.nn.Module, *, seed: int, device: str | torch.device = "cpu"
) -> Callable[[torch.nn.Module], None]:
    """A function that fills one module's own parameters, as FSDP's ``param_init_fn`` and ``reset_parameters`` hooks do.

    Make it before wrapping, while the model's modules still have the names that the plan knows.

    Example:
        >>> import fanin
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 4, device="meta"))
        >>> fill = param_init_fn(fanin.plan(net, recipe="he"), net, seed=0)
        >>> for module in net.modules():
        ...     fill(module)
        >>> net[0].weight.device.type
        'cpu'
    """
    from types import SimpleNamespace

    from fanin.frameworks.torch.fill import apply

    names = {id(module): name for name, module in model.named_modules()}

    def fill(module: torch.nn.Module) -> None:
        prefix = names[id(module)]
        own = [f"{prefix}.{name}" if prefix else name for name, _ in module.named_parameters(recurse=False)]
        entries = {name: plan.entries[name] for name in own if name in plan.entries}
        apply(SimpleNamespace(entries=entries), module, seed=seed, device=device, prefix=prefix)

    return fill
