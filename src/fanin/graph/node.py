"""Nodes, parameters and the graph they form; nothing here knows a framework or does arithmetic.

A front end (``fanin.frameworks``) maps its own operations to the kinds below by a table. Theory, recipes and checks
read only this. What an operation means is in ``kind`` and ``attrs``; ``evaluate`` runs it on NumPy arrays, for the
parts that do not depend on any weight (masks, positions, indices) and so are evaluated rather than modelled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import Any

from fanin.distributions import Distribution


class Kind(StrEnum):
    """The vocabulary. ``attrs`` of each kind are listed beside it."""

    INPUT = "input"  #        value: array of the batch or None; high: bound of integer ids
    PARAMETER = "parameter"  # parameter: its name
    CONSTANT = "constant"  #   value: array
    DENSE = "dense"  #         x, weight[, bias]; out_first: weight is [out, in] (else [in, out]); alpha, beta scales
    CONV = "conv"  #           x, weight[, bias]; stride, padding, dilation, output_padding: a tuple each;
    #                          groups, transposed
    EMBED = "embed"  #         ids, weight
    EXPERTS = "experts"  #     x, weight: a batch of weights over a leading axis of experts
    POINTWISE = "pointwise"  # inputs; fn: NumPy callable of as many arrays; steady: the tensor itself, taken as its rms
    SUM = "sum"  #             x, y; alpha: x + alpha y
    PRODUCT = "product"  #     x, y
    NORM = "norm"  #           x; weight, bias, running_mean, running_var: positions of inputs or None;
    #                          axes; eps; groups; batch_stats
    SOFTMAX = "softmax"  #     x; axis; log
    MIX = "mix"  #             x, y: matrix product of two signals over the last axis of x, second-last of y
    ATTENTION = "attention"  # q, k, v[, mask]; scale, causal, dropout, mask: position of the mask among inputs or None
    POOL = "pool"  #           x; op: max | mean; kernel, stride, padding, dilation, count_pad
    REDUCE = "reduce"  #       x; op: mean | sum | var | std | max | min | norm ...; axes, keepdim
    MOVE = "move"  #           x...; how: reshape | permute | slice | cat | expand | pad | gather | ... and its numbers
    DROP = "drop"  #           x; p, active; feature: whole channels
    RECUR = "recur"  #         x, w_ih, w_hh[, b_ih, b_hh, w_hr], initial states: positions by name; one layer and
    #                          direction; cell; gates; time: axis of the steps; reverse; piece: output | cell
    ROUTE = "route"  #         top-k selection among experts
    OUTPUT = "output"
    OPAQUE = "opaque"  #       an operation without a rule; shown as unmodelled


@dataclass(frozen=True, slots=True)
class Node:
    """One operation and the tensor it makes.

    Attributes:
        id: unique within the graph.
        name: the public name of the tensor, as in Signals.
        kind: what it does; ``op`` is what the front end calls it.
        inputs: ids of the nodes whose tensors it reads, in order.
        shape, dtype: of the tensor; dtype as NumPy names it, plus "bfloat16".
        attrs: numbers that the kind asks for; ``partial`` where users were rewritten so that they no longer read the
            tensor, and its gradient is not the one of the framework's graph.
        module: innermost module that the op ran in.
        signal: whether it is a floating-point tensor that depends on the batch or on a weight, and so gets a row.
        evaluate: NumPy arrays of the inputs to the NumPy array of the output, or None where it cannot be run.
    """

    id: str
    name: str
    kind: Kind
    op: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    attrs: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    module: str = ""
    signal: bool = False
    evaluate: Callable[..., Any] | None = None

    @property
    def is_float(self) -> bool:
        """Whether the tensor carries signal (integers and booleans do not)."""
        return self.dtype.startswith(("float", "bfloat", "complex"))


@dataclass(frozen=True, slots=True)
class Parameter:
    """What is known of a parameter or buffer before or without its values.

    Attributes:
        name: as in ``named_parameters()`` or ``named_buffers()``; ties carry the first name.
        shape, dtype: of the full tensor.
        law: what an element is drawn from; None where neither values nor a default are known.
        value: the array itself, for buffers and for constants of the model; None for weights.
        stats: measured figures of the values (mean, std, min, max, kurtosis, nonfinite, distinct), where there are
            values.
        observed: the array of a small weight that no plain law describes: rows that are all alike (the decay rates of a
            state-space model), or a bias spread over decades.
        tied: further names of the same tensor.
        copy_of: an earlier parameter that has the very same values (layers that were copied), else nothing.
        trainable: whether it requires a gradient.
        buffer: True for buffers.
        module, kind: the module that holds it and that module's class name.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    law: Distribution | None = None
    value: Any = None
    stats: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    tied: tuple[str, ...] = ()
    copy_of: str = ""
    trainable: bool = True
    buffer: bool = False
    module: str = ""
    kind: str = ""
    observed: Any = None

    @property
    def size(self) -> int:
        """Number of elements."""
        size = 1
        for n in self.shape:
            size *= n
        return size


@dataclass(frozen=True)
class Graph:
    """A model as a list of nodes in the order in which they run.

    Attributes:
        nodes: in topological order; ids are unique.
        parameters: every parameter and buffer of the model by name, used or not.
        outputs: ids of the floating-point tensors that the model returns, in order.
        aliases: names of modules whose output is another row's tensor, to that row's name.
        training: mode in which the model was traced.
        facts: what else the front end knows: how it was traced, the class of the model.
    """

    nodes: tuple[Node, ...]
    parameters: Mapping[str, Parameter]
    outputs: tuple[str, ...]
    aliases: Mapping[str, str]
    training: bool
    facts: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @cached_property
    def by_id(self) -> dict[str, Node]:
        """Nodes by id."""
        return {node.id: node for node in self.nodes}

    @cached_property
    def users(self) -> dict[str, list[Node]]:
        """Nodes that read each node's tensor, by its id."""
        users: dict[str, list[Node]] = {node.id: [] for node in self.nodes}
        for node in self.nodes:
            for source in node.inputs:
                users[source].append(node)
        return users

    @cached_property
    def signals(self) -> tuple[Node, ...]:
        """The nodes that get a row."""
        return tuple(node for node in self.nodes if node.signal)
