"""Reading a model: its program, its graph, and the batch that both were traced for. The model is only looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fanin.errors import ModelError
from fanin.frameworks.torch.batch import arguments
from fanin.frameworks.torch.convert import array_of, to_graph
from fanin.frameworks.torch.fitness import require_fit
from fanin.frameworks.torch.functional import functional
from fanin.frameworks.torch.identity import unmark
from fanin.frameworks.torch.parameters import parameter_records
from fanin.frameworks.torch.program import Program
from fanin.frameworks.torch.tracing import trace
from fanin.graph import Graph


@dataclass(frozen=True)
class Reading:
    """A model as it was read.

    Attributes:
        model: the model itself, untouched.
        program: the steps that were traced; what a measurement runs.
        graph: the neutral graph; what theory, recipes and checks read.
    """

    model: torch.nn.Module
    program: Program
    graph: Graph


def is_model(model: Any) -> bool:
    """Whether this front end can read it."""
    return isinstance(model, torch.nn.Module)


def read(model: torch.nn.Module, batch: Any, *, seed: int = 0) -> Reading:
    """Trace a model on a batch and describe its parameters.

    Args:
        seed: of the values that stand in where the batch has none (meta tensors): N(0, 1), and uniform ids.

    Raises:
        ModelError: the model has no parameters, or does not run on this batch.
        ArgumentError: the batch is of no use.
    """
    if not any(True for _ in model.parameters()):
        raise ModelError(
            f"{type(model).__name__} has no parameters",
            cause="there is nothing to initialize or to propagate through",
            remedy="give the model itself, not a function or an empty container",
        )
    args, kwargs = arguments(batch)
    records = parameter_records(model)
    program = functional(unmark(trace(model, args, kwargs)))
    graph = to_graph(program, records, stand_ins(program, records, seed))
    require_fit(graph, type(model).__name__)
    return Reading(model, program, graph)


def stand_ins(program: Program, records, seed: int) -> dict[str, np.ndarray | None]:
    """Arrays of the batch's leaves; N(0, 1) and uniform ids where they are on the meta device."""
    rng = np.random.default_rng(seed)
    values: dict[str, np.ndarray | None] = {}
    for id_, leaf in zip(program.inputs, program.leaves, strict=True):
        if not isinstance(leaf, torch.Tensor):
            continue
        if leaf.device.type != "meta":
            values[id_] = array_of(leaf)
        elif leaf.is_floating_point():
            values[id_] = rng.standard_normal(tuple(leaf.shape), dtype=np.float32)
        elif leaf.dtype is torch.bool:
            values[id_] = np.ones(tuple(leaf.shape), bool)
        else:
            values[id_] = rng.integers(0, _vocabulary(program, records, id_), tuple(leaf.shape))
    return values


def _vocabulary(program: Program, records, id_: str) -> int:
    """Rows of the table that these ids look up: the first embedding that reads them, through views."""
    from fanin.frameworks.torch.arguments import op_name, references

    reach = {id_}
    for step in program.steps:
        refs = references(step)
        if op_name(step.target) == "embedding" and len(refs) > 1 and refs[1] in reach:
            return int(records[program.parameters[refs[0]]].shape[0]) if refs[0] in program.parameters else 2
        value = step.value
        if (
            refs
            and refs[0] in reach
            and isinstance(value, torch.Tensor)
            and not value.is_floating_point()
            and value.dtype is not torch.bool
        ):
            reach.add(step.id)
    return 2
