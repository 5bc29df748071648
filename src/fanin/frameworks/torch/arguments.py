"""Arguments of a step by name, the tensors that it reads and writes, and the step as a function of arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping
from typing import Any, cast

import numpy as np
import torch

from fanin.frameworks.torch.chain import Chain
from fanin.frameworks.torch.program import Ref, Step
from fanin.graph import Kind

One = tuple[Kind, dict[str, Any]]
Built = One | Chain


class Arguments:
    """Arguments of a step by their schema names; tensors as positions among the step's references.

    Args:
        shapes: of the tensors that the step reads, by id.
        booleans: which of them are truth values.
        weights: ids of the model's parameters.
        strides: of the tensors in storage, where known.
    """

    def __init__(
        self,
        step: Step,
        shapes: Mapping[str, tuple[int, ...]],
        booleans: frozenset[str] = frozenset(),
        weights: Container[str] = (),
        strides: Mapping[str, tuple[int, ...]] | None = None,
    ):
        self._strides = strides or {}
        self.step, self._shapes, self.booleans, self.weights = step, shapes, booleans, weights
        self.shape: tuple[int, ...] = tuple(step.value.shape) if isinstance(step.value, torch.Tensor) else ()
        self.refs = references(step)
        names = [(a.name, a.default_value if a.has_default_value() else None) for a in step.target._schema.arguments]
        given = dict(zip((n for n, _ in names), step.args, strict=False)) | dict(step.kwargs)
        self._values: dict[str, Any] = {n: given.get(n, default) for n, default in names}

    @property
    def names(self) -> Container[str]:
        """Names of the schema's arguments."""
        return self._values

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self._values.get(name, default)

    def at(self, name: str) -> int | None:
        """Position of a tensor argument among the node's inputs, None where it was left out."""
        value = self._values.get(name)
        return self.refs.index(value.id) if isinstance(value, Ref) else None

    def strides(self, name: str) -> tuple[int, ...]:
        """Strides of a tensor argument; as if contiguous where they are not known."""
        shape = self.size(name)
        contiguous = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
        return self._strides.get(self._values[name].id, contiguous)

    def given(self, name: str) -> int:
        """Position of a tensor argument that must be there."""
        position = self.at(name)
        if position is None:
            raise KeyError(name)
        return position

    def size(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor argument."""
        return self._shapes[self._values[name].id]

    def shape_of(self, ref: str) -> tuple[int, ...]:
        """Shape of a tensor by its id."""
        return self._shapes[ref]


Row = Callable[[Arguments], Built]
"""What a row of the table is: the step's arguments to its meaning."""


def references(step: Step) -> list[str]:
    """Ids of the tensors a step reads, in order of appearance, each once."""
    found: dict[str, None] = {}

    def visit(value: Any) -> None:
        if isinstance(value, Ref):
            found.setdefault(value.id)
        elif isinstance(value, list | tuple):
            for item in value:
                visit(item)
        elif isinstance(value, Mapping):
            for item in value.values():
                visit(item)
        elif isinstance(value, slice):
            visit((value.start, value.stop, value.step))

    visit((step.args, step.kwargs))
    return list(found)


def written(step: Step) -> list[str]:
    """Ids of the tensors that a step writes to, by its schema."""
    schema = getattr(step.target, "_schema", None)
    if schema is None:
        return []
    found = []
    for i, argument in enumerate(schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = step.args[i] if i < len(step.args) else step.kwargs.get(argument.name)
            found += [v.id for v in (value if isinstance(value, list | tuple) else [value]) if isinstance(v, Ref)]
    return found


SERIAL = 1 << 15
"""Elements up to which the framework does not split an operation over threads."""


def numpy_function(step: Step, booleans: frozenset[str] = frozenset()) -> Callable[..., np.ndarray]:
    """The step as a NumPy function of its tensors in float64: the framework's own operation, wrapped.

    Truth values come as 0 and 1 and go as such; the wrapper turns them back for the operation. What is the same along
    the last axis (laws that do not depend on the latent) is worked out once, and large arrays in small pieces.
    ``fn.derivative(i, *operands)`` is the framework's own derivative by the i-th operand, at kinks and ties as well:
    a ReLU passes nothing back at zero, a clamp does at its bounds, the larger of two equal numbers a half.
    """
    refs = references(step)

    def operands(arrays: tuple[np.ndarray, ...]) -> dict[str, torch.Tensor]:
        tensors = [torch.from_numpy(np.array(array, dtype=float)) for array in arrays]
        return {ref: t > 0.5 if ref in booleans else t for ref, t in zip(refs, tensors, strict=True)}

    def apply(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        args, kwargs = substitute(step, tensors)
        return step.target(*args, **kwargs)

    def value(*arrays: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            out = apply(operands(arrays))
        return (out.double() if out.dtype is torch.bool else out).numpy()

    def slope(which: int, *arrays: np.ndarray) -> np.ndarray:
        tensors = operands(arrays)
        x, name = tensors[refs[which]], refs[which]
        if not x.is_floating_point():
            return np.zeros(arrays[which].shape)
        with torch.enable_grad():
            out = apply(tensors | {name: x.requires_grad_().clone()})  # the operation may write on its operand
            if not out.requires_grad:  # comparisons
                return np.zeros(x.shape)
            return torch.autograd.grad(out.sum(), x)[0].numpy()

    def fn(*arrays: np.ndarray) -> np.ndarray:
        return _in_pieces(value, arrays)

    def derivative(which: int, *arrays: np.ndarray) -> np.ndarray:
        return _in_pieces(lambda *a: slope(which, *a), arrays)

    places = {ref: f"operand {i}" for i, ref in enumerate(refs)}
    key = (step.target, repr(substitute(step, places)), tuple(ref in booleans for ref in refs))
    cast(Any, fn).key = key  # functions of equal keys are the same one: a layer's and the next's
    cast(Any, fn).derivative = derivative
    return fn


def _in_pieces(work: Callable[..., np.ndarray], arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    """What is the same along the last axis once, and large arrays a few rows at a time."""
    common = [np.asarray(a, float) for a in (np.broadcast_arrays(*arrays) if len(arrays) > 1 else arrays)]
    shape = common[0].shape if common else ()
    if shape and shape[-1] > 1 and all(_flat(a) for a in common):
        return np.repeat(_in_pieces(work, tuple(a[..., :1] for a in common)), shape[-1], -1)
    if len(shape) > 1 and common[0].size > SERIAL:
        rows = max(SERIAL * shape[0] // common[0].size, 1)
        return np.concatenate([work(*(a[i : i + rows] for a in common)) for i in range(0, shape[0], rows)])
    return work(*common)


def _flat(a: np.ndarray) -> bool:
    """Whether an array is the same along its last axis; most differ in two places already."""
    return bool((a[..., 0] == a[..., a.shape[-1] // 3]).all() and (a == a[..., :1]).all())


def substitute(step: Step, tensors: Mapping[str, Any]) -> tuple[tuple, dict]:
    """Arguments of a step with references replaced by values."""

    def visit(value: Any) -> Any:
        if isinstance(value, Ref):
            return tensors[value.id]
        if isinstance(value, list | tuple):
            return type(value)(visit(v) for v in value)
        if isinstance(value, slice):
            return slice(*(visit(v) for v in (value.start, value.stop, value.step)))
        return value

    return tuple(visit(a) for a in step.args), {k: visit(v) for k, v in step.kwargs.items()}


def op_name(target: Any) -> str:
    """``aten.add_.Tensor`` -> ``add``; ``<built-in function getitem>`` -> ``getitem``."""
    schema = getattr(target, "_schema", None)
    name = schema.name.split("::")[-1] if schema is not None else getattr(target, "__name__", str(target))
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name
