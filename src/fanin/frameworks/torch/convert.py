"""A Program becomes a Graph: operations by the table, parameters with what is known of them, tensors by public name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from fanin.frameworks.torch.arguments import Arguments, Built, op_name, references, substitute
from fanin.frameworks.torch.chain import Chain
from fanin.frameworks.torch.ops import SPLITS, TABLE, split_piece
from fanin.frameworks.torch.program import Program, Ref, Step
from fanin.graph import Graph, Kind, Node, Parameter
from fanin.graph.averages import with_averages
from fanin.graph.identities import with_gaps, with_padded_maxima, with_shared_factors
from fanin.graph.joined import with_pieces_apart


def to_graph(program: Program, parameters: Mapping[str, Parameter], batch: Mapping[str, np.ndarray | None]) -> Graph:
    """The neutral graph of a traced program.

    Args:
        parameters: records by qualified name.
        batch: values of the inputs by input id, None where they have none.
    """
    builder = _Builder(program, parameters, batch)
    nodes = builder.build()
    kept = {builder.current.get(i, i) for i in program.outputs}
    nodes = with_shared_factors(with_gaps(with_padded_maxima(nodes, kept)))
    nodes = with_averages(with_pieces_apart(nodes))
    from fanin.frameworks.torch.names import public_names

    names, aliases = public_names(program, {n.id for n in nodes if n.is_float and n.signal})
    named = tuple(_renamed(node, names.get(node.id, node.id)) for node in nodes)
    outputs = tuple(o for o in (builder.current.get(i, i) for i in program.outputs) if builder.floating.get(o))
    return Graph(named, parameters, outputs, aliases, program.training, MappingProxyType({"trace": program.how}))


def _renamed(node: Node, name: str) -> Node:
    return node if node.name == name else replace(node, name=name)


class _Builder:
    """Turns steps into nodes one after another; in-place operations rebind the tensor they write to."""

    def __init__(self, program: Program, parameters: Mapping[str, Parameter], batch: Mapping[str, Any]):
        self.program, self.parameters, self.batch = program, parameters, batch
        self.nodes: list[Node] = []
        self.current: dict[str, str] = {}  # id of a step -> id of the node that now holds its tensor
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.strides = {
            s.id: tuple(s.value.stride()) for s in program.steps if getattr(s.value, "layout", None) is torch.strided
        }
        self.dtypes: dict[str, str] = {}
        self.floating: dict[str, bool] = {}
        self.booleans: set[str] = set()
        self.complex: set[str] = set()
        self.alive: dict[str, bool] = {}  # depends on the batch or a weight
        self.multiple: dict[str, Step] = {}

    def build(self) -> list[Node]:
        """All nodes, sources first."""
        for id_, name in {**self.program.parameters, **self.program.buffers}.items():
            record = self.parameters[name]
            attrs = {"parameter": record.name}
            self._add(
                Node(id_, name, Kind.PARAMETER, "parameter", (), record.shape, record.dtype, attrs), not record.buffer
            )
        for id_, tensor in self.program.constants.items():
            self._add(
                Node(
                    id_,
                    id_,
                    Kind.CONSTANT,
                    "constant",
                    (),
                    tuple(tensor.shape),
                    _dtype(tensor),
                    {"value": array_of(tensor)},
                ),
                False,
            )
        for id_ in self.program.inputs:
            value = self.program.values[id_]
            if isinstance(value, torch.Tensor):
                node = Node(
                    id_, id_, Kind.INPUT, "input", (), tuple(value.shape), _dtype(value), {"value": self.batch.get(id_)}
                )
                self._add(node, value.is_floating_point())
        for step in self.program.steps:
            self._step(step)
        return self.nodes

    def _add(self, node: Node, alive: bool) -> None:
        self.nodes.append(node)
        self.current[node.id] = node.id
        self.shapes[node.id], self.dtypes[node.id] = node.shape, node.dtype
        self.floating[node.id] = node.is_float
        if node.dtype == "bool":
            self.booleans.add(node.id)
        if node.dtype.startswith("complex"):
            self.complex.add(node.id)
        self.alive[node.id] = alive

    def _step(self, step: Step) -> None:
        name = op_name(step.target)
        if name == "getitem":
            return self._piece(step)
        if not isinstance(step.value, torch.Tensor):
            if step.value is not None:
                self.multiple[step.id] = step
            return
        step = self._alone(step, name)
        refs = [r for r in references(step) if r in self.current]
        self._emit(step, name, self._built(step, name), refs, evaluator(step))
        if _writes_in_place(step):
            written = step.args[0]
            if isinstance(written, Ref):
                self.current[written.id] = self.current[step.id]

    def _alone(self, step: Step, name: str) -> Step:
        """The step without tensors of which it reads shape or type alone: a known table stays known beside a signal."""
        if name not in AS_ANOTHER:
            return step
        first, *others = step.args
        if not all(o.id in self.current for o in others if isinstance(o, Ref)):
            return step
        return replace(
            step, args=(first, *(self._like(self.current[o.id]) if isinstance(o, Ref) else o for o in others))
        )

    def _like(self, id_: str) -> torch.Tensor:
        """A tensor of that shape and type which takes no room."""
        return torch.zeros((), dtype=getattr(torch, self.dtypes[id_])).expand(self.shapes[id_])

    def _built(self, step: Step, name: str) -> Built:
        row = TABLE.get(name)
        if row is None or not hasattr(step.target, "_schema"):
            return Kind.OPAQUE, {}
        known = [r for r in references(step) if r in self.current]
        if name not in OF_COMPLEX and any(self.current[r] in self.complex for r in known):
            return Kind.OPAQUE, {}
        booleans = frozenset(r for r in known if self.current[r] in self.booleans)
        shapes = {r: self.shapes[self.current[r]] for r in known}
        try:
            return row(Arguments(step, shapes, booleans, self.program.parameters, self.strides))
        except (KeyError, TypeError, AttributeError, ValueError, IndexError):
            return Kind.OPAQUE, {}

    def _emit(self, step: Step, op: str, built: Built, refs: list[str], run: Callable) -> None:
        inputs = tuple(self.current[r] for r in refs)
        if not isinstance(built, Chain):
            return self._node(step, step.id, op, *built, inputs, tuple(step.value.shape), run)
        handles = list(inputs)
        for i, link in enumerate(built.links):
            last = i == len(built.links) - 1
            id_ = step.id if last else f"{step.id}.{i}"
            sources = tuple(handles[h] for h in link.inputs)
            attrs, run = link.attrs, _as_type(link.run, step.value) if last else link.run
            if last and link.kind is Kind.CONSTANT:
                attrs = {"value": run()}
            self._node(step, id_, op, link.kind, attrs, sources, link.shape, run, row=last)
            handles.append(id_)

    def _node(self, step: Step, id_: str, op: str, kind, attrs, inputs, shape, run, row: bool = True) -> None:
        dtype = _dtype(step.value)
        # numbers made of integers alone (expert ids, counts) carry no signal, whatever the integers depend on
        alive = any(self.alive[i] and (self.floating[i] or kind is Kind.EMBED) for i in inputs)
        signal = row and alive and dtype.startswith(("float", "bfloat"))
        module = step.calls[-1].path if step.calls else ""
        self._add(Node(id_, id_, kind, op, inputs, shape, dtype, attrs, module, signal, run), alive)

    def _piece(self, step: Step) -> None:
        """One output of an operation that has several."""
        source = step.args[0]
        whole = self.multiple.get(source.id) if isinstance(source, Ref) else None
        if whole is None or not isinstance(step.value, torch.Tensor):
            return
        index, op = step.args[1], op_name(whole.target)
        refs = [r for r in references(whole) if r in self.current]
        built: Built = (Kind.OPAQUE, {})
        if op in SPLITS:
            built = Kind.MOVE, split_piece(whole, op, index, self.shapes[self.current[refs[0]]])
        elif f"{op}/{index}" in TABLE:
            built = self._built(replace(whole, value=step.value), f"{op}/{index}")
        elif op == "broadcast_tensors":
            refs = [whole.args[0][index].id]
            shape = tuple(step.value.shape)
            return self._emit(step, op, (Kind.MOVE, {"how": "expand"}), refs, lambda x: np.broadcast_to(x, shape))
        elif index < len(MULTIPLE.get(op, ())):
            built = self._built(replace(whole, value=step.value), MULTIPLE[op][index])
        run = evaluator(whole)
        self._emit(step, op, built, refs, lambda *arrays: run(*arrays)[index])


MULTIPLE: dict[str, tuple[str, ...]] = {
    "native_layer_norm": ("layer_norm",),
    "native_batch_norm": ("batch_norm",),
    "native_group_norm": ("group_norm",),
    "native_dropout": ("dropout",),
    "_scaled_dot_product_flash_attention_for_cpu": ("scaled_dot_product_attention",),
    "_weight_norm_interface": ("_weight_norm_interface",),
    **dict.fromkeys(("embedding_bag", "_embedding_bag", "_embedding_bag_forward_only"), ("embedding_bag",)),
    "topk": ("topk", "topk"),
    "sort": ("sort", "sort"),
    **{f"adaptive_max_pool{d}d": (f"adaptive_max_pool{d}d",) for d in (1, 2, 3)},
    **{f"max_pool{d}d_with_indices": (f"max_pool{d}d",) for d in (1, 2, 3)},
    "max": ("amax",),
    "min": ("amin",),
    "aminmax": ("amin", "amax"),
    "var_mean": ("var", "mean"),
    "std_mean": ("std", "mean"),
}
"""Operations with several outputs: what rows of the table describe the first ones."""

AS_ANOTHER = ("type_as", "to", "expand_as", "view_as", "reshape_as")
"""Operations that read the shape or the type of another tensor, not what is in it."""

OF_COMPLEX = ("view_as_real", "real", "mul", "add", "sub", "view", "reshape", "transpose", "permute", "unsqueeze",
              "squeeze", "clone", "to", "contiguous", "expand", "slice", "select", "flatten")  # fmt: skip
"""What may be done to complex numbers by the law of their real part."""


def _writes_in_place(step: Step) -> bool:
    schema = getattr(step.target, "_schema", None)
    if schema is None or not schema.arguments:
        return False
    alias = schema.arguments[0].alias_info
    return bool(alias is not None and alias.is_write)


def _as_type(run: Callable, like: torch.Tensor) -> Callable:
    """A link's function with the type that the operation returns: other operations on known tensors rely on it."""
    dtype = array_of(torch.empty(0, dtype=like.dtype)).dtype
    return lambda *arrays: np.asarray(run(*arrays)).astype(dtype, copy=False)


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def array_of(tensor: torch.Tensor) -> np.ndarray:
    """A real tensor as a NumPy array; bfloat16 as float32."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy()


def evaluator(step: Step) -> Callable[..., Any]:
    """The step as a function of NumPy arrays, run with the framework's own kernel."""
    refs = references(step)

    def run(*arrays: np.ndarray) -> Any:
        tensors = dict(zip(refs, (torch.from_numpy(np.array(a, order="C")) for a in arrays), strict=True))
        args, kwargs = substitute(step, tensors)
        kwargs.pop("device", None) if kwargs.get("device") is not None and str(kwargs["device"]) == "meta" else None
        with torch.no_grad():
            out = step.target(*args, **kwargs)
        if isinstance(out, torch.Tensor):
            return array_of(out)
        return tuple(array_of(o) if isinstance(o, torch.Tensor) else o for o in out)

    return run
