"""Where each weight of a graph is used, and what lies before and behind it, by following edges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fanin.axes import Fans, fans
from fanin.errors import FaninError
from fanin.graph import Graph, Kind, Node

LAYOUTS = {3: "OIW", 4: "OIHW", 5: "OIDHW"}
TRANSPOSED = {3: "IOW", 4: "IOHW", 5: "IODHW"}
PASSED = (Kind.MOVE, Kind.DROP, Kind.NORM, Kind.POINTWISE, Kind.PRODUCT, Kind.POOL, Kind.REDUCE)
WEIGHTED = (Kind.DENSE, Kind.CONV, Kind.EMBED, Kind.EXPERTS)


@dataclass(frozen=True)
class Use:
    """One parameter at one node: the role it has there.

    Roles: "dense", "conv", "matrix" (a matrix product of a signal with it), "experts", "embedding", "bias",
    "norm_weight", "norm_bias", "position" (added to a signal, with an axis of positions), "scale", "other".
    """

    name: str
    role: str
    node: Node
    out_first: bool = True


class Walk:
    """Ways through one graph, each found when first asked for."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.index = {node.id: i for i, node in enumerate(graph.nodes)}

    @cached_property
    def origin(self) -> dict[str, str]:
        """Node id -> name of the parameter whose tensor it is, through views, casts and constant factors."""
        found: dict[str, str] = {}
        for node in self.graph.nodes:
            if node.kind is Kind.PARAMETER:
                if not self.graph.parameters[node.attrs["parameter"]].buffer:
                    found[node.id] = node.attrs["parameter"]
            elif len(node.inputs) == 1 and node.inputs[0] in found and (node.kind is Kind.MOVE or self.factor(node)):
                found[node.id] = found[node.inputs[0]]
        return found

    def factor(self, node: Node) -> float | None:
        """c where a pointwise node is x -> c x, else None."""
        if node.kind is not Kind.POINTWISE or len(node.inputs) != 1:
            return None
        try:
            with np.errstate(all="ignore"):
                at = np.asarray(node.attrs["fn"](np.array([0.0, 1.0, -1.0, 3.0])), float)
        except Exception:
            return None
        linear = at[0] == 0 and at[1] != 0 and np.allclose(at[1:], at[1] * np.array([1.0, -1.0, 3.0]))
        return float(at[1]) if linear else None

    @cached_property
    def uses(self) -> dict[str, list[Use]]:
        """Parameter name -> its uses in the order in which they run."""
        found: dict[str, list[Use]] = {}
        for node in self.graph.nodes:
            if node.kind is Kind.PARAMETER or node.id in self.origin:
                continue
            for position, source in enumerate(node.inputs):
                if source in self.origin:
                    use = self._use(node, position, self.origin[source])
                    found.setdefault(use.name, []).append(use)
        return found

    def _use(self, node: Node, position: int, name: str) -> Use:
        a, shape = node.attrs, self.graph.parameters[name].shape
        if node.kind in (Kind.DENSE, Kind.CONV, Kind.EMBED, Kind.EXPERTS) and position == a.get("weight"):
            role = {Kind.DENSE: "dense", Kind.CONV: "conv", Kind.EMBED: "embedding", Kind.EXPERTS: "experts"}[node.kind]
            return Use(name, role, node, bool(a.get("out_first", True)))
        if node.kind in (Kind.DENSE, Kind.CONV) and position == a.get("bias"):
            return Use(name, "bias", node)
        if node.kind is Kind.NORM:
            role = {a.get("weight"): "norm_weight", a.get("bias"): "norm_bias"}.get(position, "other")
            return Use(name, role, node)
        if node.kind is Kind.MIX:
            return Use(name, "matrix", node, out_first=position == 0)
        if node.kind is Kind.SUM:
            return Use(name, "bias" if len([n for n in shape if n > 1]) <= 1 else "position", node)
        if node.kind is Kind.PRODUCT:
            return Use(name, "scale", node)
        if node.kind is Kind.MOVE and a.get("how") in ("cat", "stack"):
            return Use(name, "position", node)
        return Use(name, "other", node)

    def fans(self, use: Use) -> Fans | None:
        """Fans of a weight at this use."""
        shape, a = self.graph.parameters[use.name].shape, use.node.attrs
        try:
            if use.role == "dense":
                return fans(shape, layout="OI" if use.out_first else "IO", blocks=self.blocks(use.node))
            if use.role == "embedding":
                return fans(shape, layout="embedding")
            if use.role == "conv":
                layout = (TRANSPOSED if a["transposed"] else LAYOUTS)[len(shape)]
                numbers = {k: a[k] for k in ("groups", "stride", "dilation", "padding")}
                return fans(shape, layout=layout, transposed=a["transposed"], **numbers)
            if use.role == "experts" and len(shape) == 3:
                width = self.graph.by_id[self.signal_input(use.node)].shape[-1]
                return fans(shape, layout="EOI" if shape[2] == width != shape[1] else "EIO")
            if use.role == "matrix" and len(shape) >= 2:
                source = next(i for i in use.node.inputs if self.origin.get(i) == use.name)
                rows, columns = self.graph.by_id[source].shape[-2:]
                return Fans(columns, rows) if use.out_first else Fans(rows, columns)
        except (FaninError, KeyError):
            return None
        return None

    def blocks(self, node: Node) -> int:
        """How many matrices are packed in a dense weight: the equal parts that its output is cut into at once."""
        cuts: set[tuple[int, int]] = set()
        for user in self._past_moves(node):
            if user.kind is not Kind.MOVE or user.attrs.get("how") not in ("slice", "select"):
                return 1
            if user.attrs["how"] == "slice":
                cuts.add((user.attrs["start"], user.attrs["stop"]))
            else:
                cuts.add((user.attrs["index"], user.attrs["index"] + 1))
        sizes = {stop - start for start, stop in cuts}
        return len(cuts) if len(cuts) > 1 and len(sizes) == 1 and node.shape[-1] % len(cuts) == 0 else 1

    def _past_moves(self, node: Node) -> Iterator[Node]:
        """First users of a tensor that are not mere rearrangements."""
        for user in self.graph.users[node.id]:
            if user.kind is Kind.MOVE and user.attrs.get("how") not in ("slice", "select"):
                yield from self._past_moves(user)
            else:
                yield user

    # --- ancestors and streams -----------------------------------------------------------------------------------

    @cached_property
    def _above(self) -> list[int]:
        """Bit set of the ancestors of every node, itself left out."""
        above: list[int] = []
        for node in self.graph.nodes:
            bits = 0
            for source in node.inputs:
                i = self.index[source]
                bits |= above[i] | (1 << i)
            above.append(bits)
        return above

    def depends(self, node: str, on: str) -> bool:
        """Whether a node's tensor is computed from another's."""
        return bool(self._above[self.index[node]] >> self.index[on] & 1)

    def ancestors(self, node: str) -> list[Node]:
        """All nodes that a node's tensor is computed from."""
        return [self.graph.nodes[i] for i in self._bits(self._above[self.index[node]])]

    def weight_at(self, node: Node) -> str | None:
        """Name of the parameter that a node contracts a signal with, if it does."""
        position = node.attrs.get("weight") if node.kind in WEIGHTED else None
        if position is not None:
            return self.origin.get(node.inputs[position])
        if node.kind is Kind.MIX:
            return next((self.origin[i] for i in node.inputs if i in self.origin), None)
        return None

    @cached_property
    def weighted(self) -> list[Node]:
        """The nodes that contract a signal with a parameter (look-ups left out), in order."""
        return [n for n in self.graph.nodes if n.kind is not Kind.EMBED and self.weight_at(n) is not None]

    def signal_input(self, node: Node) -> str:
        """The signal that a weighted node reads."""
        if node.kind is Kind.MIX:
            return next(i for i in node.inputs if i not in self.origin)
        return node.inputs[node.attrs.get("x", 0)]

    def signals_into(self, node: Node) -> list[str]:
        """Inputs that carry signal, the batch's own tensors included: neither parameters nor known numbers."""
        return [i for i in node.inputs if i not in self.origin and self._carries(self.graph.by_id[i])]

    @staticmethod
    def _carries(node: Node) -> bool:
        return node.signal or (node.kind is Kind.INPUT and node.is_float)

    def source(self, id_: str, *, norms: bool = False) -> str:
        """Back through rearrangements, dropout, biases and factors (and norms) to where the tensor was made."""
        while True:
            node = self.graph.by_id[id_]
            passed = (Kind.MOVE, Kind.DROP, *((Kind.NORM,) if norms else ()))
            into = self.signals_into(node)
            simple = node.kind in passed or self.factor(node) is not None
            with_parameter = node.kind in (Kind.SUM, Kind.PRODUCT) and any(i in self.origin for i in node.inputs)
            if len(into) != 1 or not (simple or with_parameter):
                return id_
            id_ = into[0]

    def last_weights(self, id_: str) -> list[str]:
        """The weighted nodes met first on the way back from a tensor, through all that is elementwise."""
        node = self.graph.by_id[id_]
        if node.kind in WEIGHTED or self.weight_at(node) is not None:
            return [] if node.kind is Kind.EMBED else [id_]
        if node.kind is Kind.SUM:
            found = [w for i in self.signals_into(node) for w in self.last_weights(i)]
            return list(dict.fromkeys(found))
        if node.kind in PASSED:
            full = [i for i in self.signals_into(node) if self.graph.by_id[i].shape == node.shape]
            into = full[:1] or self.signals_into(node)[:1]
            return self.last_weights(into[0]) if into else []
        return []

    @staticmethod
    def _bits(bits: int) -> Iterator[int]:
        while bits:
            low = bits & -bits
            yield low.bit_length() - 1
            bits ^= low
