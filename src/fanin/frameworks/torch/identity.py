"""Modules that return what they get: no operation runs in them, yet their name should find the tensor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch

from fanin.frameworks.torch.arguments import references, substitute
from fanin.frameworks.torch.program import Program, Ref, Step

ALIAS = torch.ops.aten.alias.default


def mark(copied: torch.nn.Module) -> None:
    """Let every nn.Identity of a copy that is traced leave a step behind."""

    def forward(input: Any, *args: Any, **kwargs: Any) -> Any:
        return ALIAS(input) if isinstance(input, torch.Tensor) else input

    for module in copied.modules():
        if type(module) is torch.nn.Identity:
            cast(Any, module).forward = forward


def _marks(step: Step) -> bool:
    return step.target is ALIAS and bool(step.calls) and step.calls[-1].kind == "Identity"


def unmark(program: Program) -> Program:
    """The program without these steps, and which step's tensor each such module returned."""
    kept, renamed, passed = [], {}, {}
    busy = {call.key for step in program.steps if not _marks(step) for call in step.calls}
    for step in program.steps:
        refs = {id_: Ref(renamed.get(id_, id_)) for id_ in references(step)}
        if _marks(step):
            renamed[step.id] = source = next(iter(refs.values())).id
            for call in step.calls:
                if call.key not in busy:  # the module itself, and containers in which nothing else runs
                    passed.setdefault(call.path, source)
            continue
        if any(id_ != ref.id for id_, ref in refs.items()):
            args, kwargs = substitute(step, refs)
            step = replace(step, args=args, kwargs=kwargs)
        kept.append(step)
    if not passed:
        return program
    outputs = tuple(renamed.get(o, o) for o in program.outputs)
    return replace(program, steps=tuple(kept), outputs=outputs, passed=passed)
