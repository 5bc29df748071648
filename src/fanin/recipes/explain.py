"""Why a layer gets what it gets, in sentences and numbers for one model."""

from __future__ import annotations

import difflib
import math
from typing import Any

from fanin.axes import Fans
from fanin.errors import ArgumentError
from fanin.recipes.auto import Solver
from fanin.recipes.make import look_up, make_plan
from fanin.recipes.plan import Entry, Plan
from fanin.recipes.recipe import Weights, read_weights
from fanin.recipes.response import Response
from fanin.recipes.spread import Comparison, compared, of_layer, of_model
from fanin.recipes.structure import Structure
from fanin.theory import Interpreter
from fanin.theory.depth import told

KURTOSIS = {"normal": 3.0, "uniform": 1.8, "truncated_normal": 2.365537}


def explain(side: Any, model: Any, batch: Any, name: str | None = None) -> str:
    """Sentences on one parameter or module, or on the model as a whole.

    Args:
        side: the front end of the model's framework.
        name: a parameter or module; None for the whole model.

    Errors: ArgumentError for a name that the model does not have, and without a batch.

    Example:
        >>> import torch, fanin
        >>> net = torch.nn.Sequential(torch.nn.Linear(100, 50), torch.nn.ReLU(), torch.nn.Linear(50, 10))
        >>> print(fanin.explain(net, torch.ones(8, 100), "2.weight").splitlines()[0])
        2.weight, 10×50, in 2 (Linear)
    """
    plan = make_plan(side, model, batch, "auto", {})
    records = side.weights_of(model)
    reading = side.read_model(model, batch)
    weights = read_weights(records, reading.graph)
    solver = Solver(reading.graph, {k: o.default for k, o in look_up("auto").options.items()})
    solver.run()
    default = make_plan(side, model, None, "torch_default", {})
    if name is None:
        interpreter = Interpreter(reading.graph)
        answer = of_model(compared(reading.graph, _laws(plan)))
        return "\n".join([_whole(plan, solver), *([answer] if answer else []), *told(interpreter, interpreter.run())])
    names = _named(plan, name)
    comparison = compared(reading.graph, _laws(plan))
    return "\n\n".join(_one(n, plan, default, weights, solver, comparison) for n in names)


def _laws(plan: Plan) -> dict[str, Any]:
    return {name: entry.distribution for name, entry in plan.entries.items() if entry.distribution is not None}


def _named(plan: Plan, name: str) -> list[str]:
    found = [n for n in plan.entries if n == name or n.startswith(f"{name}.")]
    if found:
        weights = [n for n in found if plan.entries[n].fans is not None]
        return weights or found
    near = difflib.get_close_matches(name, {*plan.entries, *(n.rpartition(".")[0] for n in plan.entries)}, n=1)
    raise ArgumentError(
        f"no parameter or module is called {name!r}",
        cause=f"did you mean {near[0]!r}?" if near else None,
        remedy="names are those of named_parameters() and named_modules()",
    )


def _one(name: str, plan: Plan, default: Plan, weights: Weights, solver: Solver, comparison: Comparison) -> str:
    """All that is to say of one parameter."""
    entry = plan.entries[name]
    if entry.tied_to is not None:
        return f"{name} is the same tensor as {entry.tied_to}.\n\n" + _one(
            entry.tied_to, plan, default, weights, solver, comparison
        )
    weight = weights.by_name[name]
    record = weight.parameter
    where = f"{record.module} ({record.kind})" if record.module else record.kind
    lines = [f"{name}, {'×'.join(map(str, entry.shape)) or 'scalar'}, in {where}"]
    if entry.fans is not None:
        lines.append(_fans(entry, weights.structure, weight))
    lines += _before_and_after(name, weights.structure, solver)
    lines.append(_law(entry))
    lines.append(_now(entry, record.stats, default.entries.get(name)))
    if entry.fans is not None and entry.fans.fan_in > 1:
        lines.append(normal_or_uniform(entry.fans))
        here = of_layer(comparison, weight.uses[0].node) if weight.uses else None
        lines += [here] if here else []
    return "\n  ".join(lines)


def _fans(entry: Entry, structure: Structure | None, weight: Any) -> str:
    fans = entry.fans
    assert fans is not None
    text = f"fan_in {fans.fan_in:g} inputs feed one output; one input feeds fan_out {fans.fan_out:g} outputs."
    node = weight.uses[0].node if weight.uses else None
    if node is not None and weight.role == "conv" and structure is not None:
        whole = structure.fans(weight.uses[0])
        if whole is not None and whole.slides:
            true = whole.effective(node.attrs["input_size"])
            size = "×".join(map(str, node.attrs["input_size"]))
            text += f" On its {size} input {true.fan_in:.4g} of them are there on average: the rest is padding."
    if node is not None and weight.role == "dense" and structure is not None and structure.blocks(node) > 1:
        text += f" It is {structure.blocks(node)} matrices in one; the fans are those of one."
    return text


def _before_and_after(name: str, structure: Structure | None, solver: Solver) -> list[str]:
    assert structure is not None
    uses = [u for u in structure.uses.get(name, ()) if u.role in ("dense", "conv", "matrix", "experts")]
    if not uses:
        return []
    node = uses[0].node
    lines = []
    x = solver.interpreter.values.get(structure.signal_input(node))
    rms = getattr(x, "rms", None)
    if rms is not None and math.isfinite(rms):
        lines.append(f"The signal that reaches it has rms {rms:.4g} (predicted).")
    found = solver.responses.get(node.id)
    if found is not None:
        lines.append(_activation(found, solver.before.get(node.id, 1.0)))
    return lines


def _activation(found: Response, s: float) -> str:
    second, slope = found.second(s), found.slope(s)
    if not second:
        return f"{found.name} follows."
    gain = s / math.sqrt(second)
    text = f"{found.name} follows: at rms {s:.3g}, E f² = {second:.4g}, so the next layer needs gain {gain:.4g}"
    if not slope:
        return f"{text}; its slope is 0 and no gradient passes."
    return f"{text} (forward); E f'² = {slope:.4g} would ask for {1 / math.sqrt(slope):.4g} (backward)."


def _law(entry: Entry) -> str:
    if entry.distribution is None:
        return f"It is {entry.reason}."
    std = f", std {entry.std:.4g}" if entry.std else ""
    gain = f" = {entry.gain:.4g} / sqrt(fan_in)" if entry.gain and std else ""
    return f"auto draws it from {entry.distribution}{std}{gain}: {entry.reason}."


def _now(entry: Entry, stats: Any, default: Entry | None) -> str:
    parts = []
    if stats:
        parts.append(f"It holds values of std {stats['std']:.4g} now")
    if default is not None and default.std:
        parts.append(f"torch's default layer would draw std {default.std:.4g}")
        if entry.std:
            parts.append(f"{default.std / entry.std:.3g} times what auto draws")
    return ("; ".join(parts) + ".") if parts else "It holds no values yet."


def normal_or_uniform(fans: Fans) -> str:
    """What the shape of the law changes: the kurtosis enters the spread over units, never the mean.

    For inputs of equal size a unit's mean square is sum w^2 up to a factor, of relative standard deviation
    sqrt((kurtosis - 1) / n): sqrt(2 / n) for normal weights, sqrt(.8 / n) for uniform ones of the same std. Over the
    m units of a layer this averages to sqrt((kurtosis - 1) / (n m)), of order 1/n.

    Example:
        >>> print(normal_or_uniform(Fans(200, 100)))
        Normal or uniform of the same std: the same mean signal; units spread in mean square by 10 % or 6.3 %,
        the layer as a whole by 1 % or 0.63 %.
    """
    unit = {k: 100 * math.sqrt((KURTOSIS[k] - 1) / fans.fan_in) for k in ("normal", "uniform")}
    layer = {k: v / math.sqrt(fans.fan_out) for k, v in unit.items()}
    return (
        "Normal or uniform of the same std: the same mean signal; units spread in mean square by "
        f"{unit['normal']:.2g} % or {unit['uniform']:.2g} %, "
        f"the layer as a whole by {layer['normal']:.2g} % or {layer['uniform']:.2g} %."
    )


def _whole(plan: Plan, solver: Solver) -> str:
    """The plan's table, and what was seen of the model."""
    structure = solver.structure
    lines = [plan.to_text(), ""]
    lines.append(f"Longest run of weights without a norm or a residual sum: {structure.chain}.")
    for branch in {b.stream: b for b in structure.branches}.values():
        count = structure.branch_of[branch.weights[0]][1]
        start = structure.graph.by_id[branch.stream].name
        lines.append(f"{count} residual branches add to the stream that starts at {start}.")
    heads = [structure.graph.by_id[h].name for h in structure.heads]
    if heads:
        lines.append(f"Outputs are made by {', '.join(heads)}.")
    widths = [e.fans for e in plan.entries.values() if e.fans is not None and e.fans.fan_in > 1]
    if widths:
        lines.append(normal_or_uniform(min(widths, key=lambda f: f.fan_in)) + " (narrowest layer)")
    return "\n".join(lines)
