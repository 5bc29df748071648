"""``auto``: the scale of every weight solved on the predicted signal, one weight after the other.

The theory's interpreter walks the graph. At a weight that is not decided yet it is asked what a unit-std weight
would give on the law that really arrives there, so padding, groups, pooling, dropout, attention and the activation
that precedes are all counted; the std follows by division.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fanin.axes import Fans
from fanin.distributions import Normal
from fanin.errors import FaninError
from fanin.graph import Graph, Kind, Node
from fanin.recipes.balance import balanced, chains
from fanin.recipes.gradients import uneven
from fanin.recipes.limits import limits
from fanin.recipes.plan import Entry
from fanin.recipes.response import PERIODS, Response, drift, preferred_scale, response
from fanin.recipes.shape import reshaped, steadiest
from fanin.recipes.shared import drawn, output_rms, sized, structural
from fanin.recipes.structure import Structure, Use
from fanin.theory import Interpreter
from fanin.theory.law import FEATURE, Atom, Law, fresh_latent, gaussian
from fanin.theory.state import Known, Unmodelled, Value, batch_axes

SOLVED = ("dense", "conv", "matrix", "experts")


@dataclass
class Solver:
    """One walk over the graph; ``entries`` fill up in the order in which weights are met."""

    graph: Graph
    options: Mapping[str, Any]
    entries: dict[str, Entry] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    blind: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.structure = Structure(self.graph)
        self.free = self.options["distribution"] == "auto"  # the law's shape is chosen when all scales are known
        self.options = {**self.options, "distribution": "normal"} if self.free else self.options
        self.solved: list[str] = []
        self.interpreter = Interpreter(self.graph, {})
        self.responses: dict[str, Response | None] = {}
        self.before: dict[str, float] = {}  # rms of the pre-activation that a weighted node makes
        self.shared: dict[str, float] = {}  # rms by weighted node, where signal and gradient are traded

    def run(self) -> dict[str, Entry]:
        """Entries of every parameter that the graph uses."""
        laws = dict(self.interpreter.laws)
        for name, uses in self.structure.uses.items():
            entry = structural(self.structure, uses, self.graph.parameters[name], self.options)
            if entry is not None:
                self.entries[name] = entry
                if entry.distribution is not None:
                    laws[name] = entry.distribution
            elif uses[0].role in SOLVED and len(self.graph.parameters[name].shape) >= 2:
                laws[name] = Normal(1.0)
        self.interpreter.laws = laws
        if self.options["balance"] == "both":
            self.shared = self._shared()
        for node in self.graph.nodes:
            self._visit(node)
        if self.free:
            self._shape()
        self.notes += [*self._limits(), *limits(self.structure)]
        self.notes += uneven(self.structure, self.interpreter.values, self.options["balance"])
        if self.blind:
            more = f" and {len(self.blind) - 1} more" if len(self.blind) > 1 else ""
            self.notes.append(f"no signal is predicted at the input of {self.blind[0]}{more}: 1 / sqrt(fan_in) there")
        return self.entries

    def _shape(self) -> None:
        """Draw the solved weights from the law under which single networks stray least."""
        kind, why = steadiest(self.structure, self.interpreter.values, self.entries, self.solved)
        self.entries = reshaped(self.entries, self.solved, kind)
        self.notes += [why] if why else []

    def _shared(self) -> dict[str, float]:
        """Scales that trade signal against gradient, for the weights whose scale nothing else decides."""
        s = self.structure
        decided = {*s.heads, *s.logits, *s.branch_of}
        free = [n for n in s.weighted if n.id not in decided and not s.normed(n)]
        responses = {n.id: response(s, n) for n in free}
        found: dict[str, float] = {}
        for chain in chains(s, free, responses):
            found.update(balanced(chain))
        return found

    def _limits(self) -> list[str]:
        """Activations whose long chains no scale can hold."""
        depth, found = self.structure.chain, []
        for name, follows in {f.name: f for f in self.responses.values() if f is not None}.items():
            left = drift(follows, preferred_scale(follows, depth), depth)
            if depth > 2 and left > math.log(10):
                found.append(
                    f"{depth} weights in a row with {name}: even at the best scale the gradient or a deviation of the "
                    f"signal changes by {math.exp(min(left, 690)):.0e}; a norm or residual sums would hold them"
                )
        return found

    def _visit(self, node: Node) -> None:
        name = self.structure.weight_at(node) if node.id not in self.structure.origin else None
        undecided = name in self.interpreter.laws and name not in self.entries
        biases = self._without_bias(node) if undecided else {}
        value = self._value(node)
        for id_, old in biases.items():
            self.interpreter.values[id_] = old
        if undecided and name is not None:
            use = next(u for u in self.structure.uses[name] if u.node.id == node.id)
            value = self._solve(use, node, value)
        self.interpreter.values[node.id] = value

    def _value(self, node: Node) -> Value:
        """The node's law; where the theory has none, one of unit mean square, so that the rest can be solved."""
        try:
            value = self.interpreter._value(node)
        except FaninError:
            raise
        except Exception as error:  # a rule that fails must not stop a plan; the note says where
            value = Unmodelled(node.shape, f"{node.op}: {type(error).__name__}: {error}")
        if isinstance(value, Unmodelled) and node.signal and node.kind is not Kind.PARAMETER:
            self.notes.append(f"{node.name}: taken as rms 1 ({value.why})")
            return _assumed(node)
        return value

    def _without_bias(self, node: Node) -> dict[str, Value]:
        """Set the bias of a node to zero for the while, so that its output is linear in the weight."""
        position = node.attrs.get("bias")
        if position is None or node.kind not in (Kind.DENSE, Kind.CONV):
            return {}
        id_ = node.inputs[position]
        old = self.interpreter.values[id_]
        if isinstance(old, Law):
            self.interpreter.values[id_] = old.with_values(np.zeros_like(old.values))
        return {id_: old}

    # --- one weight ----------------------------------------------------------------------------------------------

    def _solve(self, use: Use, node: Node, value: Value) -> Value:
        """Choose the std of a weight at its first use; the node's law at that std comes back."""
        parameter = self.graph.parameters[use.name]
        fans = self.structure.fans(use)
        follows = self.responses[node.id] = response(self.structure, node)
        wanted, why = self._target(node, follows)
        unit = value.second if isinstance(value, Law) else math.nan
        unit *= self._averaging(node)
        if not 0 < unit < math.inf:
            std = wanted * (1 / math.sqrt(fans.fan_in) if fans else 0.02)
            seen = (
                "the signal at its input is zero on this batch" if unit == 0 else "no signal is predicted at its input"
            )
            why = f"{why}; {seen}, so 1 / sqrt(fan_in)"
            self.blind.append(use.name)
        else:
            std = self._balanced(node, wanted / math.sqrt(unit), fans)
        self._decide(use, parameter, std, fans, self._reason(use, node, follows, why))
        self.before[node.id] = std * math.sqrt(unit) if unit > 0 else wanted
        if isinstance(value, Law) and math.isfinite(value.second):
            return value.with_values(value.values * std)
        return _assumed(node, wanted)

    def _decide(self, use: Use, parameter: Any, std: float, fans: Fans | None, reason: str) -> None:
        law = sized(self.options["distribution"], std, parameter.shape)
        entry = drawn(parameter, law, fans, reason)
        self.entries[use.name] = entry
        self.solved.append(use.name)
        self.interpreter.laws = {**self.interpreter.laws, use.name: law}
        for id_, name in self.structure.origin.items():
            made = self.interpreter.values.get(id_)
            if name == use.name and isinstance(made, Law):
                self.interpreter.values[id_] = made.with_values(made.values * std)

    def _target(self, node: Node, follows: Response | None) -> tuple[float, str]:
        """The rms that the node's output is to have, and why."""
        s = self.structure
        if node.id in s.heads:
            rms = output_rms(self.options, node.shape[1 if node.kind is Kind.CONV else -1])
            return rms, f"an output: rms {rms:.3g}, so that the loss starts where it knows nothing"
        if node.id in s.logits:
            return s.logits[
                node.id
            ], "queries and keys: attention logits of variance 1, so that the softmax is not saturated"
        if node.id in s.branch_of and not s.normed(node):
            return self._branch_target(node)
        if s.normed(node):
            return (
                1.0,
                "a norm follows, so its scale changes no signal; rms 1 before the norm sets a sane effective step",
            )
        if node.id in self.shared:
            wanted = self.shared[node.id]
            return wanted, f"rms {wanted:.3g}: signal and gradients differ least along the layers whose widths change"
        wanted = preferred_scale(follows, s.chain)
        if follows is None:
            return 1.0, "rms 1"
        if follows.unit != 1:
            return self._steep_target(node, follows, wanted)
        if wanted == 1:
            return 1.0, f"pre-activation rms 1 for the {follows.name} that follows"
        step = math.sqrt(follows.growth(1.0) * max(follows.stiffness(1.0), 1.0))
        return wanted, (
            f"pre-activation rms {wanted:g} for the {follows.name} that follows: "
            f"at 1, gradient and deviations would change {step:.2f}x a layer over {s.chain} layers"
        )

    def _steep_target(self, node: Node, follows: Response, wanted: float) -> tuple[float, str]:
        """A function that bends on a scale of its own, such as sin(30 x)."""
        if follows.oscillates and not self.structure.last_weights(self.structure.signal_input(node)):
            wanted = PERIODS * follows.unit
            return wanted, (
                f"pre-activation rms {wanted:.3g}: {follows.name} reads the data themselves, so they span several of "
                "its periods (Sitzmann et al. 2020)"
            )
        return wanted, (
            f"pre-activation rms {wanted:.3g} for the {follows.name} that follows, which bends on that scale: at 1, "
            f"the gradient would grow {math.sqrt(follows.growth(1.0)):.3g}x a layer"
        )

    def _branch_target(self, node: Node) -> tuple[float, str]:
        """Branches of a stream together add as much as it starts with; where that is small, up to half-way to one.

        In a norm-first model the gradient on the stream falls by the factor by which the stream grows, so a
        small embedding and branches that add to 1 would start with gradients that differ by that factor.
        """
        branch, count = self.structure.branch_of[node.id]
        if self._scaled_after(node.id, branch.node):
            return 1.0, "rms 1: the scale that follows on this residual branch is kept and sets what it adds"
        start = self.interpreter.values.get(branch.stream)
        begins = _rms(start)
        base = begins if begins >= 1 else math.sqrt(begins)
        return base / math.sqrt(
            count
        ), f"last weight of one of {count} residual branches: rms {base:.3g} / sqrt({count})"

    def _scaled_after(self, weight: str, total: str) -> bool:
        """Whether a parameter or a factor scales the branch between its last weight and the sum."""
        graph, s = self.graph, self.structure
        between = (
            n
            for n in graph.nodes[s.index[weight] + 1 : s.index[total]]
            if s.depends(n.id, weight) and s.depends(total, n.id)
        )
        return any(
            (n.kind is Kind.PRODUCT and any(i in s.origin for i in n.inputs)) or (s.factor(n) or 1.0) != 1.0
            for n in between
        )

    def _averaging(self, node: Node) -> float:
        """Mean square of values over that of their attention average: undone, since attention may sharpen later."""
        values = self.structure.averaged(node)
        if values is None:
            return 1.0
        full = self.interpreter.values.get(values)
        mixed = self.interpreter.values.get(self.structure.source(self.structure.signal_input(node)))
        if isinstance(full, Law) and isinstance(mixed, Law) and mixed.second > 0:
            return max(full.second / mixed.second, 1.0)
        return 1.0

    # --- forward against backward --------------------------------------------------------------------------------

    def _balanced(self, node: Node, forward: float, fans: Fans | None) -> float:
        """The std that keeps the gradient's mean square, where that is asked for; the forward one elsewhere."""
        above = self.structure.last_weights(self.structure.signal_input(node))
        first = not any(a in self.before for a in above)
        if self.options["balance"] != "backward" or fans is None or first or node.id in self.structure.heads:
            return forward
        backward = 1 / math.sqrt(self._fan_out(node, fans) * self._slope(above[0], node))
        return backward * self._target(node, None)[0] if node.id in self.structure.branch_of else backward

    def _fan_out(self, node: Node, fans: Fans) -> float:
        if node.kind is not Kind.CONV:
            return fans.fan_out
        return fans.effective(node.attrs["input_size"]).fan_out

    def _slope(self, above: str, node: Node) -> float:
        """E[f'^2] of the activation between two weights, at the scale that was planned."""
        found = self.responses.get(above)
        return found.slope(self.before[above]) if found is not None else 1.0

    def _reason(self, use: Use, node: Node, follows: Response | None, why: str) -> str:
        uses = [u for u in self.structure.uses[use.name] if u.role in SOLVED]
        shared = f"; used {len(uses)} times, the first use decides" if len(uses) > 1 else ""
        balance = self.options["balance"]
        traded = "" if balance == "forward" else f"; balance={balance}"
        return why + traded + shared


def _rms(value: Value | None) -> float:
    """Of a law or a known array; one where nothing is known or nothing is there."""
    found = value.rms if isinstance(value, Law) else 1.0
    if isinstance(value, Known):
        found = float(np.sqrt(np.mean(np.square(np.asarray(value.array, float)))))
    return found if 0 < found < math.inf else 1.0


def _assumed(node: Node, rms: float = 1.0) -> Law:
    """A tensor of this rms, nothing in common between places."""
    axes = list(batch_axes(node.shape))
    if axes:
        feature = 1 if len(axes) >= 4 else len(axes) - 1
        axes[feature] = (Atom(node.shape[feature], FEATURE),)
    law = gaussian(node.shape, tuple(axes), np.full((1,) * len(node.shape), rms**2), lambda groups: 0.0)
    return replace(law, latent=fresh_latent(law.latent.corr), exact=False, note="assumed")


def auto(structure: Structure, options: Mapping[str, Any]) -> tuple[dict[str, Entry], list[str]]:
    """Entries and notes of the recipe ``auto`` for the parameters that the graph uses."""
    solver = Solver(structure.graph, options)
    entries = solver.run()
    return entries, list(dict.fromkeys(solver.notes))
