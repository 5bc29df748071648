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
    flat = _Flattener(exported.graph_module, frozenset(name for name, _ in model.named_modules()))
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
    wanted = {
        spec.arg.name
        for spec in signature.output_specs
        if spec.kind.name == "USER_OUTPUT" and hasattr(spec.arg, "name")
    }
    kept = tuple(ref.id for ref in outputs if isinstance(ref, Ref) and ref.id in wanted)
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
    """Walks an exported graph, inlines its sub-graphs, and writes down steps."""

    def __init__(self, root: torch.fx.GraphModule, paths: frozenset[str]):
        self.root, self.paths = root, paths
        self.steps: list[Step] = []
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
            return results
        if getattr(node.target, "__name__", "") == "getitem" and isinstance(args[0], list):
            return args[0][args[1]]
        name = prefix + node.name
        self.steps.append(Step(name, node.target, args, kwargs, node.meta.get("val"), calls))
        return Ref(name)

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
