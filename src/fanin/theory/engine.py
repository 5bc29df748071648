"""The interpreter: one rule a kind of node, a value on every edge, a row for every signal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeGuard

import numpy as np

from fanin.distributions import Distribution, Stacked
from fanin.errors import ModelError
from fanin.graph import Graph, Kind, Node, Parameter
from fanin.signals import Signal, Signals
from fanin.theory import grid, runs, scale, state
from fanin.theory.adjoint import backward
from fanin.theory.contraction import axis_groups
from fanin.theory.depth.record import depths
from fanin.theory.doubt import doubted
from fanin.theory.drawn import Channels
from fanin.theory.echo import Echo
from fanin.theory.failures import FAILURES, reason
from fanin.theory.gains import gains
from fanin.theory.law import FEATURE, Law, compress, fresh_latent
from fanin.theory.loss import Head, Start, start
from fanin.theory.notes import together
from fanin.theory.observed import observed_law
from fanin.theory.padding import padding_of
from fanin.theory.rates import laid_out as heads
from fanin.theory.records import cached_property, replace
from fanin.theory.reuse import Memory
from fanin.theory.rules import move, route
from fanin.theory.rules.table import RULES, Rule
from fanin.theory.state import Hidden, Known, Unmodelled, Value, batch_axes, feature_axes, free_axes
from fanin.theory.surrogate import measured
from fanin.theory.threads import one_thread, rarely_collected
from fanin.theory.tokens import as_tokens, batch_of_tokens, normalized_batch, of_features, tables_of_tokens
from fanin.theory.twins import Twins
from fanin.theory.width import Widths


@dataclass
class Interpreter:
    """Runs the rules over a graph; ``values`` holds what each node's tensor is.

    Args:
        graph: what to interpret.
        laws: laws of parameters that a plan sets, by name; others are the graph's own.
        head: of a loss, whose gradient is then predicted.
        surrogate: run operations without a rule on samples instead of leaving them unmodelled.
    """

    graph: Graph
    laws: Mapping[str, Distribution] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)
    head: Head | None = None
    surrogate: bool = False
    memory: Memory = field(default_factory=Memory)

    def run(self, *, gradients: bool = True) -> Signals:
        """Interpret every node in order, then in reverse, and collect the rows."""
        self.forward()
        return self.signals(gradients=gradients)

    @one_thread()
    @rarely_collected()
    @np.errstate(all="ignore")  # what overflows is infinite in its row
    def forward(self) -> None:
        """Interpret every node in order."""
        runs.follow(self.graph)
        echo, twins = Echo(self.graph), self._twins
        for node in self.graph.nodes:
            value = self._followed(node) or self._value(node)
            value = value if twins is None else twins.told(node, value, self.values)
            self.values[node.id] = echo.heard(node, self.values, self._laid(node, value))

    @cached_property
    def _twins(self) -> Twins | None:
        return Twins.of(self.graph, self.laws)

    @cached_property
    def _drawn(self) -> dict[str, Channels]:
        return Channels.of(self.graph)

    def _followed(self, node: Node) -> Law | None:
        """The law of an operation that is followed on drawn channels."""
        channels = self._drawn.get(node.id)
        return channels.law(node, self.values) if channels is not None else None

    def _laid(self, node: Node, value: Value) -> Value:
        """A tensor that such results are laid into has what they have in common."""
        for channels in dict.fromkeys(self._drawn.values()):
            channels.laying(node, self.values)
            if isinstance(value, Law) and channels.read(node):
                value = channels.together(node, value)
        return value

    @one_thread()
    @rarely_collected()
    @np.errstate(all="ignore")
    def signals(self, *, gradients: bool = True) -> Signals:
        """Read the graph in reverse and collect the rows."""
        runs.follow(self.graph)
        begun = start(self.graph, self.values, self.head) if gradients and self.head is not None else None
        widths = Widths(self.graph, self.values, self.laws)
        widths.forward()
        lost: dict[str, str] = {}
        found = (
            backward(self.graph, self.values, begun, widths.behind.watch, lost, self._drawn, self._twins)
            if gradients
            else {}
        )
        made = {n.id: behind(row(n, self.values[n.id], found.get(n.id)), lost.get(n.id)) for n in self.graph.signals}
        rows = list(widths.bounded(made).values())
        if begun is not None:
            rows = [drawn(r, begun, node) for r, node in zip(rows, self.graph.signals, strict=True)]
        weights = {
            node.attrs["parameter"]: {"grad_rms": found[node.id]}
            for node in self.graph.nodes
            if node.kind is Kind.PARAMETER and node.id in found
        }
        facts: dict = dict(begun.facts or {}) if begun is not None else {"cotangent": "output"}
        by_id = {node.id: r for node, r in zip(self.graph.signals, rows, strict=True)}
        facts["depth"] = [deep.to_dict() for deep in depths(self.graph, self.values, by_id)]
        return Signals(rows, aliases=self.graph.aliases, parameters=weights, facts=facts)

    @cached_property
    def _features(self) -> frozenset[str]:
        return batch_of_tokens(self.graph)

    @cached_property
    def _tokens(self) -> frozenset[str]:
        return tables_of_tokens(self.graph)

    def _value(self, node: Node) -> Value:
        if node.id in self._one_by_one:
            return self._one_by_one[node.id]
        if node.kind is Kind.PARAMETER:
            value = self._parameter(self.graph.parameters[node.attrs["parameter"]])
            return as_tokens(value) if node.id in self._tokens and isinstance(value, Law) else value
        if "noise" in node.attrs:
            return self._ruled(node, tuple(self.values[i] for i in node.inputs))
        if node.kind in (Kind.INPUT, Kind.CONSTANT):
            value = source(node)
            if node.kind is Kind.INPUT and isinstance(value, Known):
                value = replace(value, padding=padding_of(node, value.array, self.graph))
            return of_features(value) if node.id in self._features and isinstance(value, Known) else value
        inputs = tuple(self.values[i] for i in node.inputs)
        blocked = next((v for v in inputs if isinstance(v, Unmodelled)), None)
        if blocked is not None:
            return Unmodelled(node.shape, blocked.why)
        if node.evaluate is not None and all(isinstance(v, Known) for v in inputs) and node.kind is not Kind.DROP:
            return evaluated(node, inputs)
        if node.kind is Kind.NORM and _of_features(inputs[0]):
            inputs = (normalized_batch(node, inputs[0]), *inputs[1:])
        return self._ruled(node, inputs)

    def _ruled(self, node: Node, inputs: tuple[Value, ...]) -> Value:
        rows = node.kind is Kind.EMBED and node.is_float
        if not node.signal and not rows and any(isinstance(v, Hidden) for v in inputs):
            return Hidden(node.shape, _axes_like(node, inputs))
        truth = node.dtype == "bool" and node.kind is Kind.POINTWISE  # comparisons: a law of zeros and ones
        if not node.is_float and node.kind is not Kind.MOVE and not truth:
            return route.places(node, inputs[0], _axes_like(node, inputs))
        rule = RULES.get(node.kind)
        if rule is None:
            return self._unknown(node, inputs, f"{node.op} has no rule")
        try:
            return doubted(node, self.memory.law(node, inputs, lambda: solved(rule, node, inputs)), inputs)
        except (NotImplementedError, *FAILURES) as error:
            why = reason(node.op, error)
        return self._unknown(node, inputs, why) if node.is_float else Hidden(node.shape, _axes_like(node, inputs))

    def _unknown(self, node: Node, inputs: tuple[Value, ...], why: str) -> Value:
        """Unmodelled, or the measured stand-in where one is allowed and can be had."""
        law = measured(node, inputs, _axes_like(node, inputs)) if self.surrogate and node.evaluate is not None else None
        return Unmodelled(node.shape, why) if law is None else law

    @cached_property
    def _one_by_one(self) -> dict[str, Law]:
        """Vectors whose numbers stand feature by feature."""
        return heads(self.graph, self.laws) | gains(self.graph, self.laws)

    def _parameter(self, parameter: Parameter) -> Value:
        law = self.laws.get(parameter.name, parameter.law)
        if parameter.value is not None and parameter.name not in self.laws:
            array = np.asarray(parameter.value)
            return Known(array, free_axes(array.shape))
        if law is None:
            return Unmodelled(parameter.shape, f"nothing is known of the values of {parameter.name}")
        if parameter.observed is not None and parameter.name not in self.laws:
            return observed_law(parameter.shape, np.asarray(parameter.observed))
        return weight_law(parameter.shape, law)


def solved(rule: Rule, node: Node, inputs: tuple[Value, ...]) -> Value:
    """What a rule says of a node; signals beyond the range of floating-point squares are rescaled for it."""
    scaled = scale.rescaled(node, inputs)
    if scaled is None:
        value = rule(node, *inputs)
        if isinstance(value, Law) and not len(value.values):
            raise NotImplementedError("no elements")
        return scale.settled(value) if isinstance(value, Law) and node.is_float else value
    value = rule(scaled.node, *scaled.inputs)
    return scale.settled(value, scaled.power) if isinstance(value, Law) else value


def weight_law(shape: tuple[int, ...], distribution: Distribution) -> Law:
    """A weight as a law: independent elements with the distribution's quantiles, its moments exact."""
    if isinstance(distribution, Stacked):
        return _stacked_law(shape, distribution)
    mean, std = distribution.moments(shape)
    try:
        values = np.asarray(distribution.quantile(grid.CDF), float)
    except Exception:  # matrix laws have no quantile of an element: near enough Gaussian
        values = mean + std * grid.Z_UNIT
    centre = grid.expectation(values)
    spread = np.sqrt(max(grid.expectation(values**2) - centre**2, 0))
    values = mean + (values - centre) * (std / spread if spread > 0 else 0)
    return Law(
        tuple(shape), feature_axes(tuple(shape)), values[None], np.zeros((1,) * len(shape), np.int32), fresh_latent({})
    )


def _stacked_law(shape: tuple[int, ...], distribution: Stacked) -> Law:
    """A level for each block of rows."""
    block = distribution.block(shape)
    values = np.concatenate([weight_law(block, part).values for part in distribution.parts])
    level = np.repeat(np.arange(len(distribution.parts), dtype=np.int32), block[0])
    level = level.reshape(-1, *(1,) * (len(shape) - 1))
    values, level = compress(values, level)
    return Law(tuple(shape), feature_axes(tuple(shape)), values, level, fresh_latent({}))


def _of_features(value: Value) -> TypeGuard[Known]:
    return isinstance(value, Known) and value.from_batch and FEATURE in axis_groups(value.axes[-1])


def source(node: Node) -> Value:
    """A leaf of the batch or a constant of the model as a known array."""
    array = node.attrs.get("value")
    if array is None:
        return Unmodelled(node.shape, f"the values of {node.name} are not known")
    batch = node.kind is Kind.INPUT
    if batch and node.is_float and np.isnan(array).any():
        count = int(np.isnan(array).sum())
        return Unmodelled(node.shape, f"{count} of {array.size} values of {node.name} in the batch are not numbers")
    axes = batch_axes(array.shape) if batch else free_axes(array.shape)
    return Known(array, axes, batch)


def evaluated(node: Node, inputs: tuple[Value, ...]) -> Value:
    """Run the operation itself on known arrays; what its axes mean follows the move, or the broadcast."""
    first = inputs[0] if len(inputs) == 1 else None
    if isinstance(first, Known) and node.attrs.get("how") == "reshape" and math.prod(node.shape) == first.array.size:
        return state.once(state.reshaped(first, node.shape, _known_axes(node, inputs, node.shape)))
    try:
        array = node.evaluate(*[v.array for v in inputs if isinstance(v, Known)])  # type: ignore[misc]
    except Exception as error:
        raise ModelError(f"{node.op} in {node.name} failed on known inputs: {type(error).__name__}: {error}") from error
    axes = _known_axes(node, inputs, array.shape)
    batch = any(isinstance(v, Known) and v.from_batch for v in inputs)
    moved = isinstance(first, Known) and first.padding is not None and node.kind is Kind.MOVE
    padding = node.evaluate(first.padding.astype(first.array.dtype)) != 0 if moved else None  # type: ignore[misc]
    return state.once(Known(array, axes, batch, padding))


def _known_axes(node: Node, inputs, shape):
    if node.kind is Kind.MOVE and inputs and node.attrs["how"] in move.HOW:
        try:
            return move.axes_after(node, inputs[0].axes, inputs[0].shape)
        except Exception:
            pass
    return _axes_like(node, inputs, shape)


def _axes_like(node: Node, inputs, shape=None):
    """Axes of an elementwise or unknown operation: those of the inputs where sizes agree, counted from the right.

    Places of a batch whose axis has another size (an image that is interpolated) are still what they were.
    """
    shape = node.shape if shape is None else shape
    fresh = list(free_axes(shape))
    for i in range(len(shape)):
        for v in sorted(inputs, key=lambda v: not getattr(v, "from_batch", False)):
            offset = len(v.shape) - len(shape) + i
            if offset >= 0 and v.shape[offset] == shape[i] and shape[i] > 1:
                fresh[i] = v.axes[offset]
                break
        else:
            whole = next((v for v in inputs if getattr(v, "from_batch", False) and len(v.shape) == len(shape)), None)
            if whole is not None and whole.shape[i] > 1 and shape[i] > 1:
                fresh[i] = move.resized(whole.axes[i], shape[i])
    return tuple(fresh)


def row(node: Node, value: Value, gradient: float | None = None) -> Signal:
    """The public row of a node."""
    base = {"name": node.name, "op": node.op, "shape": node.shape, "module": node.module, "source": "predicted"}
    if 0 in node.shape:
        return Signal(**base, rms=0.0, mean=0.0)
    if isinstance(value, Law):
        value = value.alone
        rms, said = scale.held(value.rms, value.exponent, node.dtype)
        mean, _ = scale.held(value.mean, value.exponent, node.dtype)
        note = together(value.note, said)
        return Signal(**base, rms=rms, mean=mean, grad_rms=gradient, exact=value.exact, note=note)
    if isinstance(value, Known):
        array = np.asarray(value.array, float)
        rms = float(np.sqrt(np.mean(array**2))) if array.size else 0.0
        return Signal(**base, rms=rms, mean=float(array.mean()) if array.size else 0.0)
    why = value.why if isinstance(value, Unmodelled) else "values depend on weights in a way that has no rule"
    return Signal(**base, exact=False, note=f"unmodelled: {why}")


def behind(found: Signal, why: str | None) -> Signal:
    """A row whose gradient comes through an operation that has no answer on the way back says which one, and why."""
    if why is None or found.rms is None or found.grad_rms is not None:
        return found
    return replace(found, note=together(found.note, f"gradient not modelled: {why}"))


def drawn(found: Signal, begun: Start, node: Node) -> Signal:
    """A row of a tensor behind the start of a loss: where no rule says what it is, what the samples say."""
    seen = (begun.tensors or {}).get(node.id)
    if seen is None or found.rms is not None:
        return found
    note = "evaluated on samples of the predicted output"
    return replace(found, rms=seen[0], mean=seen[1], grad_rms=seen[2], note=note)


def interpret(
    graph: Graph,
    laws: Mapping[str, Distribution] | None = None,
    head: Head | None = None,
    *,
    surrogate: bool = False,
) -> Signals:
    """Predicted signals of a graph.

    Args:
        graph: from a front end.
        laws: distributions that replace the graph's own, by parameter name (a plan).
        head: of the loss whose gradient is wanted; without it the cotangent is i.i.d. N(0, 1) on the first output.
        surrogate: run operations without a rule on samples of their inputs, and mark their rows.
    """
    return Interpreter(graph, laws or {}, head=head, surrogate=surrogate).run()
