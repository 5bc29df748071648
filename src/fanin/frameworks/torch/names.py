"""Public names of tensors: the module whose output it is, or the module and the operation within it."""

from __future__ import annotations

from collections.abc import Mapping

from fanin.frameworks.torch.arguments import op_name, references
from fanin.frameworks.torch.program import Program


def public_names(program: Program, signals: set[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Names of the steps that carry signal, and aliases of containers.

    A tensor that leaves a module as its last result bears the module's name; where it leaves several at once (a block
    whose last layer's output it is) the innermost names it and the others are aliases. Everything else is
    ``module/op``, then ``module/op_1`` and so on; the second visit of a shared module counts on.
    """
    results = _module_results(program, signals)
    ops = {step.id: op_name(step.target) for step in program.steps}
    names: dict[str, str] = {}
    aliases: dict[str, str] = {}
    taken: set[str] = set()
    for step in program.steps:
        if step.id not in signals:
            continue
        owners = results.get(step.id, [])
        inner = step.calls[-1] if step.calls else None
        op = ops[step.id] if ops[step.id] != "getitem" else ops.get(step.args[0].id, "getitem")
        path = inner.path if inner else ""
        name = owners[0] if owners and owners[0] and owners[0] not in taken else _numbered(f"{path}/{op}", taken)
        taken.add(name)
        names[step.id] = name
        for owner in owners:
            if owner != name:
                aliases.setdefault(owner, name)
    for path, source in program.passed.items():
        if source in names:
            aliases.setdefault(path, names[source])
    return names, {a: n for a, n in aliases.items() if a not in taken}


def _numbered(stem: str, taken: set[str]) -> str:
    if stem not in taken:
        return stem
    k = 1
    while f"{stem}_{k}" in taken:
        k += 1
    return f"{stem}_{k}"


def _module_results(program: Program, signals: set[str]) -> Mapping[str, list[str]]:
    """For each step: the modules whose result it is, innermost first."""
    used_outside: dict[str, set[str]] = {}  # call key -> steps inside it that are read outside of it
    keys = {step.id: {c.key for c in step.calls} for step in program.steps}
    for step in program.steps:
        for ref in references(step):
            for key in keys.get(ref, set()) - keys[step.id]:
                used_outside.setdefault(key, set()).add(ref)
    for out in program.outputs:
        for key in keys.get(out, set()):
            used_outside.setdefault(key, set()).add(out)
    last: dict[str, str] = {}
    path: dict[str, tuple[str, int]] = {}
    for step in program.steps:
        for depth, call in enumerate(step.calls):
            path[call.key] = (call.path, depth)
            if step.id in signals and step.id in used_outside.get(call.key, ()):
                last[call.key] = step.id
    results: dict[str, list[tuple[int, str]]] = {}
    for key, step_id in last.items():
        results.setdefault(step_id, []).append((path[key][1], path[key][0]))
    return {step_id: [p for _, p in sorted(owners, reverse=True)] for step_id, owners in results.items()}
