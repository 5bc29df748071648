"""What rules and recipes ask of a graph: which weight a node uses, what feeds it, what carries the signal.

Pure functions: they read nodes, kinds and attributes, and know neither numbers of a run nor a framework.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from fanin.axes import Fans, fans
from fanin.graph.node import Graph, Kind, Node, Parameter

WEIGHTED = (Kind.DENSE, Kind.CONV, Kind.EMBED)
CARRIERS = (Kind.MOVE, Kind.DROP)  # the same elements, elsewhere or some of them left out
SCALED = (*CARRIERS, Kind.POOL, Kind.REDUCE)  # a factor on the input is a factor on the output
PROBE = np.linspace(-4.0, 4.0, 33)


@dataclass(frozen=True)
class Contraction:
    """A node that sums a signal over a weight.

    Attributes:
        node: the contraction; ``x`` is the id of the signal it reads.
        weight, bias: its parameters; ``bias`` may be None.
        out_axis: axis of the weight that counts outputs.
    """

    node: Node
    x: str
    weight: Parameter
    bias: Parameter | None
    out_axis: int

    @property
    def fans(self) -> Fans:
        """Fans of this use of the weight."""
        a, shape = self.node.attrs, self.weight.shape
        if self.node.kind is Kind.CONV:
            stride = a["stride"] if a["transposed"] else 1
            return fans(shape, groups=a["groups"], transposed=a["transposed"], stride=stride)
        return fans(shape[-2:], layout="IO" if self.out_axis == len(shape) - 1 else "OI")


def contractions(graph: Graph) -> list[Contraction]:
    """Dense layers, convolutions and matrix products with a parameter, in the order in which they run."""
    found = (contraction(graph, node) for node in graph.nodes)
    return [c for c in found if c is not None]


def contraction(graph: Graph, node: Node) -> Contraction | None:
    """The contraction that a node is, or None; a weight that is computed from parameters has no record."""
    if node.kind is Kind.MIX:
        return _product_with_parameter(graph, node)
    if node.kind not in (Kind.DENSE, Kind.CONV):
        return None
    weight, turned = parameter_at(graph, node.inputs[node.attrs["weight"]])
    if weight is None:
        return None
    position = node.attrs.get("bias")
    bias = parameter_at(graph, node.inputs[position])[0] if position is not None else None
    out = _out_axis(node)
    out = 1 - out if turned and len(weight.shape) == 2 else out
    return Contraction(node, node.inputs[node.attrs["x"]], weight, bias, out)


def _out_axis(node: Node) -> int:
    if node.kind is Kind.CONV:
        return 1 if node.attrs["transposed"] else 0
    return 0 if node.attrs.get("out_first", True) else 1


def _product_with_parameter(graph: Graph, node: Node) -> Contraction | None:
    """``x @ W`` with W a matrix parameter or its transpose."""
    if len(node.inputs) != 2:
        return None
    weight, turned = parameter_at(graph, node.inputs[1])
    if weight is None or weight.buffer or len(weight.shape) != 2:
        return None
    return Contraction(node, node.inputs[0], weight, None, 0 if turned else 1)


def parameter_at(graph: Graph, id_: str) -> tuple[Parameter | None, bool]:
    """The parameter that a tensor is, through moves, and whether its axes were swapped on the way."""
    node, turned = graph.by_id[id_], False
    while node.kind is Kind.MOVE and len(node.inputs) == 1:
        perm = node.attrs.get("perm")
        turned ^= perm is not None and tuple(perm) != tuple(range(len(perm)))
        node = graph.by_id[node.inputs[0]]
    if node.kind is not Kind.PARAMETER:
        return None, False
    return graph.parameters[node.attrs["parameter"]], turned


def origin(graph: Graph, id_: str, through: tuple[Kind, ...] = CARRIERS) -> Node:
    """The node where a tensor's elements were made: back through moves and dropout."""
    node = graph.by_id[id_]
    while node.kind in through and node.inputs and (node.kind is not Kind.MOVE or len(node.inputs) == 1):
        node = graph.by_id[node.inputs[0]]
    return node


# --- normalization -----------------------------------------------------------------------------------------------


def normalizes(graph: Graph, node: Node) -> str | None:
    """Id of the tensor whose scale a node divides away, or None.

    A norm does, except with running statistics; so does one that is spelled out, ``x * rsqrt(mean(x^2) + eps)``.
    """
    if node.kind is Kind.NORM:
        running = node.attrs.get("running_mean") is not None and not node.attrs.get("batch_stats", True)
        return None if running else node.inputs[0]
    if len(node.inputs) != 2 or not (node.kind is Kind.PRODUCT or node.op in ("div", "true_divide")):
        return None
    for i in (0, 1):
        if (source := _measured_scale(graph, node.inputs[1 - i])) is not None:
            x = origin(graph, node.inputs[i])
            if source.id in (x.id, *_uncentred(graph, x)):
                return x.id
    return None


def _uncentred(graph: Graph, x: Node) -> tuple[str, ...]:
    """For ``x - mean(x)``: also x itself."""
    return tuple(origin(graph, i).id for i in x.inputs[:1]) if x.kind is Kind.SUM or x.op == "sub" else ()


def _measured_scale(graph: Graph, id_: str) -> Node | None:
    """The tensor of which this one is a root mean square, a norm or the reciprocal of either, or None."""
    node = graph.by_id[id_]
    rooted = False
    while node.kind in (Kind.POINTWISE, Kind.MOVE, Kind.SUM) and node.inputs:
        rooted |= node.op in ("rsqrt", "sqrt", "pow", "reciprocal")
        node = graph.by_id[node.inputs[0]]
    if node.kind is not Kind.REDUCE or not (rooted or node.attrs.get("op") in ("norm", "std")):
        return None
    inner = graph.by_id[node.inputs[0]]
    while inner.kind is Kind.POINTWISE or (inner.kind is Kind.PRODUCT and len(set(inner.inputs)) == 1):
        inner = graph.by_id[inner.inputs[0]]
    return origin(graph, inner.id)


def scale_free(graph: Graph, node: Node) -> bool:
    """Whether a factor on this tensor is divided away by a norm before anything but homogeneous operations see it."""
    return bool(graph.users[node.id]) and _all_normalized(graph, node, node.id, set())


def _all_normalized(graph: Graph, node: Node, start: str, seen: set[str]) -> bool:
    for user in graph.users[node.id]:
        if user.id in seen or normalizes(graph, user) in (node.id, start) or _feeds_own_norm(graph, user, start):
            continue
        seen.add(user.id)
        if user.id in graph.outputs or not homogeneous(graph, user) or not graph.users[user.id]:
            return False
        if not _all_normalized(graph, user, start, seen):
            return False
    return node.id not in graph.outputs


def _feeds_own_norm(graph: Graph, node: Node, start: str) -> bool:
    """Whether this is the statistics half of a spelled-out norm: start -> square -> mean -> rsqrt -> product."""
    for _ in range(6):
        users = graph.users[node.id]
        if node.kind not in (Kind.POINTWISE, Kind.REDUCE, Kind.SUM, Kind.MOVE, Kind.PRODUCT) or len(users) != 1:
            return False
        node = users[0]
        if normalizes(graph, node) is not None:
            return normalizes(graph, node) in (start, origin(graph, start).id)
    return False


def homogeneous(graph: Graph, node: Node) -> bool:
    """Whether a positive factor on the signal comes out unchanged: moves, ReLU, pooling, a learned scale or shift."""
    signals = signal_inputs(graph, node)
    if node.kind in SCALED:
        return len(signals) <= 1 or node.kind is not Kind.REDUCE
    if node.kind in (Kind.SUM, Kind.PRODUCT):
        return len(signals) == 1
    if node.kind is Kind.POINTWISE and len(signals) == 1 and len(node.inputs) == 1:
        return is_homogeneous(node.attrs["fn"])
    return False


def is_homogeneous(fn: Callable) -> bool:
    """f(2x) = 2 f(x), tried on both signs."""
    try:
        return bool(np.allclose(fn(2 * PROBE), 2 * np.asarray(fn(PROBE)), rtol=1e-6, atol=1e-9))
    except Exception:
        return False


# --- what carries the signal --------------------------------------------------------------------------------------


def signal_inputs(graph: Graph, node: Node) -> list[Node]:
    """The inputs that carry signal: not parameters, masks or constants."""
    nodes = [graph.by_id[i] for i in node.inputs]
    return [n for n in nodes if n.is_float and (n.signal or n.kind is Kind.INPUT)]


def trunk(graph: Graph, size: Callable[[Node], float]) -> list[Node]:
    """The path of the strongest signal, first node first: at a sum the larger operand, in attention the values.

    Args:
        size: how large a tensor is, such as its rms.
    """
    if not graph.outputs:
        return []
    node, path = graph.by_id[graph.outputs[0]], []
    while node is not None:
        path.append(node)
        node = _carrier(graph, node, size)
    return path[::-1]


def _carrier(graph: Graph, node: Node, size: Callable[[Node], float]) -> Node | None:
    found = contraction(graph, node)
    if found is not None:
        return graph.by_id[found.x]
    if node.kind in (Kind.DENSE, Kind.CONV, Kind.NORM):
        return graph.by_id[node.inputs[node.attrs.get("x", 0) or 0]]
    if node.kind is Kind.EMBED:
        return None
    source = normalizes(graph, node)
    if source is not None:
        return graph.by_id[source]
    inputs = signal_inputs(graph, node)
    if node.kind is Kind.ATTENTION and len(node.inputs) > 2:
        return graph.by_id[node.inputs[2]]
    if node.kind is Kind.MIX and len(inputs) == 2:
        return inputs[1]
    return max(inputs, key=lambda n: size(n) * float(np.prod(n.shape)) ** 0.5, default=None)


def ends_branch(graph: Graph, node: Node) -> Node | None:
    """The sum in which a residual branch that ends here joins another signal; None where it does not end here."""
    here = node
    while True:
        users = graph.users[here.id]
        if len(users) != 1 or here.id in graph.outputs:
            return None
        user = users[0]
        if user.kind is Kind.SUM and len(signal_inputs(graph, user)) == 2:
            return user
        linear = user.kind in (*CARRIERS, Kind.NORM) or (
            user.kind in (Kind.PRODUCT, Kind.SUM, Kind.POINTWISE) and homogeneous(graph, user)
        )
        if not linear or (user.kind is Kind.POINTWISE and not _is_linear(user)):
            return None
        here = user


def _is_linear(node: Node) -> bool:
    try:
        return bool(np.allclose(node.attrs["fn"](-PROBE), -np.asarray(node.attrs["fn"](PROBE))))
    except Exception:
        return False


def ancestors(graph: Graph, ids: Iterator[str] | list[str]) -> set[str]:
    """Ids of everything that some tensors depend on, themselves included."""
    found: set[str] = set()
    stack = list(ids)
    while stack:
        id_ = stack.pop()
        if id_ not in found:
            found.add(id_)
            stack.extend(graph.by_id[id_].inputs)
    return found
