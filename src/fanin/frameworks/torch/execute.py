"""Run a traced program once, forward and backward, and take the figures of every tensor on the way.

The steps are those that were traced, so measured and predicted tensors bear the same names. Parameters are read through
detached aliases and buffers are cloned: gradients, running statistics and hooks of the model are out of reach.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from fanin.errors import ModelError
from fanin.frameworks.torch.arguments import op_name, references, substitute
from fanin.frameworks.torch.program import Program, Ref, Step

Loss = Callable[[list[torch.Tensor]], torch.Tensor]


def execute(
    program: Program,
    tensors: Mapping[str, torch.Tensor],
    *,
    watch: Callable[[str, torch.Tensor], None],
    watch_grad: Callable[[str, torch.Tensor], None],
    cotangent: Loss,
    backward: bool = True,
) -> tuple[list[torch.Tensor], torch.Tensor | None, dict[str, torch.Tensor]]:
    """Run the program.

    Args:
        tensors: parameters and buffers by name, as the run should see them.
        watch, watch_grad: called with a step's id and its tensor, or the gradient with respect to it.
        cotangent: outputs to the scalar that backward starts from.

    Returns:
        the outputs, the scalar (None without backward), and the gradients of the parameters by name.
    """
    env: dict[str, Any] = {}
    leaves: dict[str, torch.Tensor] = {}
    first: dict[int, str] = {}  # tied parameters are one leaf, under their first name: its gradient sums over all uses
    for name, tensor in tensors.items():
        first.setdefault(id(tensor), name)
    for id_, name in program.parameters.items():
        name = first[id(tensors[name])]
        if name not in leaves:
            leaves[name] = tensors[name].detach().requires_grad_(tensors[name].is_floating_point() and backward)
        env[id_] = leaves[name]
    for id_, name in program.buffers.items():
        env[id_] = tensors[name].detach().clone()
    env |= {id_: t.detach().clone() if isinstance(t, torch.Tensor) else t for id_, t in program.constants.items()}
    env |= dict(
        zip(
            program.inputs,
            (x.detach().clone() if isinstance(x, torch.Tensor) else x for x in program.leaves),
            strict=True,
        )
    )
    last = _last_uses(program)
    with torch.set_grad_enabled(backward):
        for i, step in enumerate(program.steps):
            env[step.id] = _run(step, env)
            _observe(step.id, env[step.id], watch, watch_grad)
            for dead in last.get(i, ()):
                env.pop(dead, None)
        outputs = [env[o] for o in program.outputs]
        floating = [o for o in outputs if o.is_floating_point()]
        if not backward or not any(o.requires_grad for o in floating):
            return outputs, None, {}
        scalar = cotangent(floating)
    wanted = {n: t for n, t in leaves.items() if t.requires_grad}
    gradients = torch.autograd.grad(scalar, list(wanted.values()), allow_unused=True)
    return outputs, scalar.detach(), {n: g for n, g in zip(wanted, gradients, strict=True) if g is not None}


UNWRITTEN = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided", "empty_permuted")
"""What holds whatever the memory held before: zeros, as the theory has it, until it is written."""


def _run(step: Step, env: dict[str, Any]) -> Any:
    args, kwargs = substitute(step, env)
    try:  # what writes to out= was traced under no_grad
        differentiable = torch.is_grad_enabled() and "out" not in kwargs
        with torch.set_grad_enabled(differentiable):
            made = step.target(*args, **kwargs)
            return made.zero_() if op_name(step.target) in UNWRITTEN else made
    except Exception as error:
        where = step.calls[-1].path if step.calls else ""
        told = (str(error).splitlines() or [""])[0][:300]
        raise ModelError(
            f"{step.target} in {where or 'the model'} failed: {type(error).__name__}: {told}",
            cause="the batch's values do not suit the model (ids beyond the vocabulary?), or it needs another dtype",
            remedy="run model(batch) once yourself",
        ) from error


def _observe(id_: str, value: Any, watch, watch_grad) -> None:
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        watch(id_, value)
        if value.requires_grad:
            # one of several results that nothing uses hears None
            value.register_hook(lambda g, id_=id_: watch_grad(id_, g) if g is not None else None)


def _last_uses(program: Program) -> dict[int, list[str]]:
    """For each step, what nothing reads after it."""
    last: dict[str, int] = {}
    for i, step in enumerate(program.steps):
        last[step.id] = i
        for ref in references(step):
            last[ref] = i
    for out in program.outputs:
        last.pop(out, None)
    uses: dict[int, list[str]] = {}
    for id_, i in last.items():
        uses.setdefault(i, []).append(id_)
    return uses


__all__ = ["Loss", "Ref", "execute"]
