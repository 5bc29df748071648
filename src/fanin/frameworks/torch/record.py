"""Recording what runs, for models that cannot be exported because their forward branches on data.

The batch keeps its values and the weights have none (fake tensors), so a branch on a mask, on lengths or on ids is
followed as it goes for this batch. Where it depends on weights, the model's own are used, if it has any. Operations
are written down as they are dispatched; those that PyTorch splits before that (dropout, linear, attention) are caught
one level higher, so that the vocabulary is that of an export.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from fanin.frameworks.torch.packed import LAYERS, Packing
from fanin.frameworks.torch.program import Call, Program, Ref, Step, collect_tensors

aten = torch.ops.aten


class Undecided(Exception):
    """A branch on values that are not known."""


Whole = Callable[..., tuple[Any, tuple, dict]]


def _dropout(op: Any) -> Whole:
    def build(input, p=0.5, training=True, inplace=False):
        return op, (input, p, training), {}

    return build


def _batch_norm(input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    args = (input, weight, bias, running_mean, running_var, training, 0.0 if momentum is None else momentum, eps, False)
    return aten.batch_norm.default, args, {}


def _instance_norm(
    input, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True, momentum=0.1, eps=1e-5
):
    args = (input, weight, bias, running_mean, running_var, use_input_stats, momentum, eps, False)
    return aten.instance_norm.default, args, {}


def _layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5):
    return aten.layer_norm.default, (input, list(normalized_shape), weight, bias, eps), {}


def _rms_norm(input, normalized_shape, weight=None, eps=None):
    return aten.rms_norm.default, (input, list(normalized_shape), weight, eps), {}


def _group_norm(input, num_groups, weight=None, bias=None, eps=1e-5):
    return aten.group_norm.default, (input, num_groups, weight, bias, eps), {}


def _attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    args = (query, key, value, attn_mask, dropout_p, is_causal)
    return aten.scaled_dot_product_attention.default, args, {"scale": scale, "enable_gqa": enable_gqa}


def _embedding(input, weight, padding_idx=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False, sparse=False):
    if padding_idx is not None and padding_idx < 0:
        padding_idx += weight.shape[0]
    return aten.embedding.default, (weight, input, -1 if padding_idx is None else padding_idx), {}


def _linear(input, weight, bias=None):
    return aten.linear.default, (input, weight, bias), {}


def _conv(name: str) -> Whole:
    def build(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
        packet = getattr(aten, name)
        op = packet.padding if isinstance(padding, str) else packet.default
        n = int(name[4])
        wide = lambda v: v if isinstance(v, str) else [v] * n if isinstance(v, int) else list(v)  # noqa: E731
        return op, (input, weight, bias, wide(stride), wide(padding), wide(dilation), groups), {}

    return build


def _conv_transposed(n: int) -> Whole:
    def build(input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
        packet = getattr(aten, f"conv_transpose{n}d")
        op = packet.default if n == 1 else packet.input
        wide = lambda v: [v] * n if isinstance(v, int) else list(v)  # noqa: E731
        return op, (input, weight, bias, wide(stride), wide(padding), wide(output_padding), groups, wide(dilation)), {}

    return build


def _einsum(equation, *operands):
    listed = operands[0] if len(operands) == 1 and isinstance(operands[0], list | tuple) else operands
    return aten.einsum.default, (equation, list(listed)), {}


def _matmul(input, other):
    return aten.matmul.default, (input, other), {}


def _recurrent(name: str) -> Whole:
    def build(input, hx, params, has_biases, *rest):
        if not isinstance(has_biases, bool):
            raise TypeError("packed data")
        return getattr(aten, name).input, (input, hx, params, has_biases, *rest), {}

    return build


WHOLE: dict[Any, Whole] = {
    F.linear: _linear,
    F.dropout: _dropout(aten.dropout.default),
    **dict.fromkeys((F.dropout1d, F.dropout2d, F.dropout3d), _dropout(aten.feature_dropout.default)),
    F.alpha_dropout: _dropout(aten.alpha_dropout.default),
    F.batch_norm: _batch_norm,
    F.instance_norm: _instance_norm,
    F.layer_norm: _layer_norm,
    F.rms_norm: _rms_norm,
    F.group_norm: _group_norm,
    F.scaled_dot_product_attention: _attention,
    F.embedding: _embedding,
    F.conv1d: _conv("conv1d"),
    F.conv2d: _conv("conv2d"),
    F.conv3d: _conv("conv3d"),
    F.conv_transpose1d: _conv_transposed(1),
    F.conv_transpose2d: _conv_transposed(2),
    F.conv_transpose3d: _conv_transposed(3),
    torch.einsum: _einsum,
    **{getattr(torch, name): _recurrent(name) for name in LAYERS},
    **dict.fromkeys((torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__), _matmul),
}
"""Functions that are one operation in an export and several when dispatched: how to call them as one."""


class _Recorder:
    """The steps so far, and which id each tensor has."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.ids: dict[int, str] = {}
        self.alive: list[Any] = []  # an id() is only good while its object lives
        self.constants: dict[str, torch.Tensor] = {}
        self.stale: set[int] = set()  # memory of known tensors into which unknown ones were written
        self.stack: list[Call] = []
        self._count = itertools.count()

    def name(self, tensor: torch.Tensor, id_: str) -> None:
        """Give a tensor an id."""
        self.ids[id(tensor)] = id_
        self.alive.append(tensor)

    def reference(self, value: Any) -> Any:
        """A tensor as a reference; one that was never seen is a constant of the model."""
        if not isinstance(value, torch.Tensor):
            return value
        if id(value) not in self.ids:
            if _is_fake(value):
                return Ref(self._behind(value))
            id_ = f"constant_{len(self.constants)}"
            self.constants[id_] = value
            self.name(value, id_)
        return Ref(self.ids[id(value)])

    def _behind(self, value: torch.Tensor) -> str:
        """The tensor whose memory this one is: ``weight.data`` is the weight.

        A model that clips its weights this way does so between steps of training; of fresh ones nothing is clipped.
        """
        for tensor in self.alive:
            if _is_fake(tensor) and _memory(tensor) == _memory(value) and tensor.shape == value.shape:
                self.name(value, self.ids[id(tensor)])
                return self.ids[id(tensor)]
        raise Undecided("a tensor that was made where nothing is seen")

    def write(self, target: Any, args: tuple, kwargs: Mapping[str, Any], out: Any) -> None:
        """One operation and what it returned."""
        tensors = [t for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
        if not tensors:
            return
        id_ = f"{getattr(target, '__name__', 'op').split('.')[0]}_{next(self._count)}"
        refs, named = tree_map(self.reference, args), tree_map(self.reference, dict(kwargs))
        self.steps.append(Step(id_, target, refs, named, out, tuple(self.stack)))
        if isinstance(out, torch.Tensor):
            self.name(out, id_)
            return
        import operator

        for i, piece in enumerate(out):
            if isinstance(piece, torch.Tensor):
                self.steps.append(Step(f"{id_}.{i}", operator.getitem, (Ref(id_), i), {}, piece, tuple(self.stack)))
                self.name(piece, f"{id_}.{i}")


class _Dispatched(TorchDispatchMode):
    """Writes down every operation; follows known values and refuses to branch on those that went stale."""

    def __init__(self, recorder: _Recorder):
        super().__init__()
        self.recorder, self.off, self.detaching = recorder, False, False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if self.off:
            return func(*args, **kwargs)
        self._check(func, args, kwargs)
        out = func(*args, **kwargs)
        if func is aten.detach.default and not self.detaching and id(args[0]) in self.recorder.ids:
            self.recorder.name(out, self.recorder.ids[id(args[0])])  # PyTorch's own wrapping, not the model's
            return out
        self._spoil(func, args, kwargs, out)
        self.recorder.write(func, args, kwargs, out)
        return out

    def _check(self, func, args, kwargs) -> None:
        if func in DECIDING and any(_memory(t) in self.recorder.stale for t in _known(args, kwargs)):
            raise Undecided(f"{func} of a tensor that depends on weights")

    def _spoil(self, func, args, kwargs, out) -> None:
        """Known memory that something unknown was written to, or that was made of such memory, is not known."""
        known = _known(args, kwargs)
        unknown = any(_is_fake(t) for t in tree_leaves((args, kwargs)))
        old = any(_memory(t) in self.recorder.stale for t in known)
        writes = any(a.alias_info is not None and a.alias_info.is_write for a in func._schema.arguments)
        if writes and (unknown or old):
            self.recorder.stale |= {_memory(t) for t in known[:1]}
        if old:
            self.recorder.stale |= {_memory(t) for t in tree_leaves(out) if isinstance(t, torch.Tensor)}


DECIDING = {
    aten._local_scalar_dense.default, aten.item.default, aten.nonzero.default, aten.equal.default,
    aten.is_nonzero.default, aten.masked_select.default, aten._unique2.default, aten.unique_consecutive.default,
}  # fmt: skip
"""Operations whose result, or its shape, is decided by values."""


def _is_fake(value: Any) -> bool:
    from torch._subclasses.fake_tensor import FakeTensor

    return isinstance(value, FakeTensor)


def _known(args, kwargs) -> list[torch.Tensor]:
    return [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor) and not _is_fake(t)]


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


class _Called(TorchFunctionMode):
    """Writes down functions that are one operation in an export."""

    def __init__(self, dispatched: _Dispatched):
        super().__init__()
        self.dispatched, self.packing = dispatched, Packing(dispatched.recorder)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.Tensor.detach:
            return self._detached(args, kwargs)
        build = WHOLE.get(func)
        if self.dispatched.off:
            return func(*args, **kwargs)
        with self._alone():
            out = self.packing.call(func, args, kwargs)
        if out is not NotImplemented:
            return out
        if build is None:
            return func(*args, **kwargs)
        try:
            target, whole_args, whole_kwargs = build(*args, **kwargs)
        except TypeError:  # called with what the operation itself does not take
            return func(*args, **kwargs)
        with self._alone():
            out = target(*whole_args, **whole_kwargs)
        self.dispatched.recorder.write(target, whole_args, whole_kwargs, out)
        return out

    @contextmanager
    def _alone(self):
        """Operations in here are not written down one by one."""
        self.dispatched.off = True
        try:
            yield
        finally:
            self.dispatched.off = False

    def _detached(self, args, kwargs):
        self.dispatched.detaching = True
        try:
            return torch.Tensor.detach(*args, **kwargs)
        finally:
            self.dispatched.detaching = False


def record(model: torch.nn.Module, args: tuple, kwargs: Mapping[str, Any], paths: frozenset[str]) -> Program:
    """Run a copy of the model once and write down what ran.

    Args:
        model: a copy whose tensors may be fake; ``args`` and ``kwargs`` with values where they have any.
        paths: qualified names of the modules.
    """
    recorder = _Recorder()
    values: dict[str, Any] = {}

    def placed(prefix: str, items) -> dict[str, str]:
        found = {}
        for name, tensor in items:
            id_ = f"{prefix}_{name.replace('.', '_')}"
            found[id_], values[id_] = name, tensor
            recorder.name(tensor, id_)
        return found

    parameters = placed("p", model.named_parameters())
    buffers = placed("b", model.named_buffers())
    leaves = tuple(tree_leaves((tuple(args), dict(kwargs))))
    inputs = tuple(f"input_{i}" for i in range(len(leaves)))
    for id_, leaf in zip(inputs, leaves, strict=True):
        values[id_] = leaf
        if isinstance(leaf, torch.Tensor):
            recorder.name(leaf, id_)
    handles = _listen(model, recorder)
    try:
        dispatched = _Dispatched(recorder)
        with torch.no_grad(), dispatched, _Called(dispatched):
            result = model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    outputs: list[torch.Tensor] = []
    collect_tensors(result, outputs)
    ends = tuple(recorder.ids[id(o)] for o in outputs if id(o) in recorder.ids)
    return Program(
        steps=_used(recorder.steps, ends),
        parameters=parameters,
        buffers=buffers,
        constants={k: v.detach() for k, v in recorder.constants.items()},
        inputs=inputs,
        leaves=leaves,
        outputs=ends,
        module_paths=paths,
        training=model.training,
        how="recorded",
        values=values,
    )


def _used(steps: list[Step], outputs: tuple[str, ...]) -> tuple[Step, ...]:
    """The steps that outputs depend on: what only decided a branch goes."""
    from fanin.frameworks.torch.arguments import references, written

    holds = {step.id: {_memory(t) for t in tree_leaves(step.value) if isinstance(t, torch.Tensor)} for step in steps}
    needed, kept = set(outputs), []
    memory = set().union(*(holds.get(o, set()) for o in outputs))
    for step in reversed(steps):
        if step.id in needed or (written(step) and holds[step.id] & memory):
            kept.append(step)
            needed.update(references(step))
            memory |= holds[step.id].union(*(holds.get(r, set()) for r in references(step)))
    return tuple(reversed(kept))


def _listen(model: torch.nn.Module, recorder: _Recorder) -> list[Any]:
    """Keep the stack of modules that are running."""
    visits = itertools.count()
    handles = []
    for path, module in model.named_modules():
        if path == "":
            continue

        def enter(module, args, path=path):
            recorder.stack.append(Call(f"{path}@{next(visits)}", path, type(module).__name__))

        def leave(module, args, output):
            recorder.stack.pop()

        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    return handles
