"""An exported graph as a program: sub-graphs inlined, every call with the modules around it."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._pytree import tree_leaves

from fanin.errors import ModelError
from fanin.frameworks.torch.program import Call, Program, Ref, Step


def flatten(exported, model, args, kwargs) -> Program:
    signature = exported.graph_signature
    bare = lambda name: name.removeprefix("inner.")  # noqa: E731
    paths, learned = frozenset(name for name, _ in model.named_modules()), frozenset(signature.inputs_to_parameters)
    flat = _Flattener(exported.graph_module, paths, learned)
    outputs = flat.run(exported.graph_module.graph, {}, ())
    if flat.detached and not any(isinstance(ref, Ref) and ref.id in flat.learning for ref in outputs):
        flat = _Flattener(exported.graph_module, paths, frozenset())  # all of it under no_grad: as if it were not
        outputs = flat.run(exported.graph_module.graph, {}, ())
    parameters = {k: bare(v) for k, v in signature.inputs_to_parameters.items()}
    buffers = {k: bare(v) for k, v in signature.inputs_to_buffers.items()}
    constants = {k: exported.constants[v] for k, v in signature.inputs_to_lifted_tensor_constants.items()}
    constants |= flat.constants
    if any(isinstance(v, FakeTensor) for v in constants.values()):
        raise ModelError("the model reads a weight's memory, not the weight", remedy="use the weight, not its .data")
    inputs = tuple(name for name in flat.placeholders if name not in parameters | buffers | constants)
    leaves = tuple(tree_leaves((tuple(args), dict(kwargs))))
    if len(leaves) != len(inputs):
        raise ModelError(
            f"the batch has {len(leaves)} leaves and the trace {len(inputs)}",
            remedy="give tensors and plain numbers only",
        )
    specs = signature.output_specs  # in the order of the outputs; a sub-graph's has another name inside
    kept = tuple(
        ref.id
        for ref, spec in zip(outputs, specs, strict=True)
        if isinstance(ref, Ref) and spec.kind.name == "USER_OUTPUT"
    )
    return Program(
        steps=tuple(flat.steps),
        parameters=parameters,
        buffers=buffers,
        constants=constants,
        inputs=inputs,
        leaves=leaves,
        outputs=kept,
        module_paths=frozenset(name for name, _ in model.named_modules()),
        training=model.training,
        values=flat.placeholders,
    )


class _Flattener:
    """Walks an exported graph, inlines its sub-graphs, and writes down steps.

    What a sub-graph under ``no_grad`` makes of weights is detached where it leaves it.

    Args:
        learned: ids of the inputs that gradients are wanted of.
    """

    def __init__(self, root: torch.fx.GraphModule, paths: frozenset[str], learned: frozenset[str]):
        self.root, self.paths = root, paths
        self.steps: list[Step] = []
        self.learning, self.detached = set(learned), False
        self.placeholders: dict[str, Any] = {}
        self.constants: dict[str, torch.Tensor] = {}
        self._names: set[str] = set()

    def run(self, graph: torch.fx.Graph, bound: dict, outer: tuple[Call, ...], module=None, prefix: str = "") -> list:
        module = module if module is not None else self.root
        env: dict[torch.fx.Node, Any] = {}
        inner = iter(bound.get("args", ()))
        for node in graph.nodes:
            if node.op == "placeholder":
                env[node] = next(inner) if bound else self._placeholder(node)
            elif node.op == "get_attr":
                env[node] = self._attribute(node, module, prefix)
            elif node.op == "call_function":
                env[node] = self._call(node, env, outer, module, prefix)
            elif node.op == "output":
                return [self._resolve(a, env) for a in tree_leaves(node.args[0])]
        return []

    def _placeholder(self, node) -> Ref:
        self.placeholders[node.name] = node.meta.get("val")
        return Ref(node.name)

    def _attribute(self, node, module, prefix) -> Any:
        value = module
        for part in node.target.split("."):
            value = getattr(value, part)
        if isinstance(value, torch.Tensor):
            self.constants[prefix + node.name] = value
            return Ref(prefix + node.name)
        return value  # a sub-graph, called below

    def _call(self, node, env, outer, module, prefix) -> Any:
        args = tuple(self._resolve(a, env) for a in node.args)
        kwargs = {k: self._resolve(v, env) for k, v in node.kwargs.items()}
        subgraph = next((a for a in args if isinstance(a, torch.fx.GraphModule)), None)
        calls = self._calls(node) or outer
        if subgraph is not None:
            operands = args[args.index(subgraph) + 1 :]
            results = self.run(
                subgraph.graph,
                {"args": operands} if operands else {"args": ()},
                calls,
                subgraph,
                f"{prefix}{node.name}.",
            )
            frozen = getattr(node.target, "__name__", "") == "wrap_with_set_grad_enabled" and args[0] is False
            return [self._cut(r, calls) for r in results] if frozen else results
        if getattr(node.target, "__name__", "") == "getitem" and isinstance(args[0], list):
            return args[0][args[1]]
        return self._step(Step(prefix + node.name, node.target, args, kwargs, node.meta.get("val"), calls))

    def _step(self, step: Step) -> Ref:
        self.steps.append(step)
        if any(isinstance(v, Ref) and v.id in self.learning for v in tree_leaves((step.args, dict(step.kwargs)))):
            self.learning.add(step.id)
        return Ref(step.id)

    def _cut(self, value: Any, calls: tuple[Call, ...]) -> Any:
        """What leaves a sub-graph without gradients, where it depends on weights."""
        if not isinstance(value, Ref) or value.id not in self.learning:
            return value
        made = next((s.value for s in reversed(self.steps) if s.id == value.id), None)
        if not isinstance(made, torch.Tensor) or not made.is_floating_point():
            return value
        self.detached = True
        cut = self._step(Step(f"{value.id}.detached", torch.ops.aten.detach.default, (value,), {}, made, calls))
        self.learning.discard(cut.id)
        return cut

    def _resolve(self, value: Any, env: dict) -> Any:
        if isinstance(value, torch.fx.Node):
            return env[value]
        if isinstance(value, list | tuple):
            return type(value)(self._resolve(v, env) for v in value)
        if isinstance(value, dict):
            return {k: self._resolve(v, env) for k, v in value.items()}
        if isinstance(value, slice):
            return slice(*(self._resolve(v, env) for v in (value.start, value.stop, value.step)))
        return value

    def _calls(self, node) -> tuple[Call, ...]:
        stack = node.meta.get("nn_module_stack") or {}
        calls = []
        for key, (path, kind) in stack.items():
            path = self._path(path)
            if path is not None:
                name = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
                calls.append(Call(key, path, name.rsplit(".", 1)[-1]))
        return tuple(calls)

    def _path(self, path: str) -> str | None:
        if path == "":
            return None
        path = path.removeprefix("inner").removeprefix(".")
        path = re.sub(r"\.?slice\([^)]*\)", "", path)
        return path if path in self.paths else None
