"""The weights of a trial: drawn by a recipe, a plan or a function, for one seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fanin.errors import StudyError
from fanin.frameworks import front_end
from fanin.frameworks.torch.training.problem import Problem
from fanin.recipes import Plan, calibrated, make_plan

State = dict[str, Tensor]


class Starter:
    """Draws starts of one problem. Plans are made once an arm; a seed then costs a fill.

    Args:
        problem: its model's weights are overwritten.
        function: finds ``file.py:function``.

    The keys of a fill are (seed, name of the parameter), so arms of a pair share the base noise of every weight.
    """

    def __init__(self, problem: Problem, function: Callable[[str], Callable]):
        self.problem, self.function = problem, function
        self._pristine: State = {name: value.clone() for name, value in problem.model.state_dict().items()}
        self._plans: dict[str, Plan] = {}

    def start(self, how: Mapping[str, Any], seed: int, batch: int) -> None:
        """Give the model the weights of an arm (``Arm.start``) and a seed.

        Args:
            batch: samples that a recipe sees.

        Errors: FaninError of the recipe; StudyError where the user's function raises.
        """
        model = self.problem.model.train()  # an earlier trial left it as it was tested; a batch norm would show
        model.load_state_dict(self._pristine)
        if "init" in how:
            self._call(how["init"], seed, batch)
        else:
            self._draw(how, seed, batch)
        if how.get("scale", 1.0) != 1.0:
            with torch.no_grad():
                for parameter in (p for p in model.parameters() if p.dim() > 1):
                    parameter *= how["scale"]

    def state(self, how: Mapping[str, Any], seed: int, batch: int) -> State:
        """The start as a state dict of its own."""
        self.start(how, seed, batch)
        return {name: value.detach().clone() for name, value in self.problem.model.state_dict().items()}

    def _draw(self, how: Mapping[str, Any], seed: int, size: int) -> None:
        model, side = self.problem.model, front_end(self.problem.model)
        batch = (self.problem.first(max(size, 2)),)
        key = repr(sorted(how.items(), key=str))
        if key not in self._plans:
            self._plans[key] = (
                Plan.from_json(Path(how["plan"]).read_text())
                if "plan" in how
                else make_plan(side, model, batch, how["recipe"], how.get("options", {}))
            )
        target = self.problem.targets[: len(batch[0])]
        plan = calibrated(side, self._plans[key], model, batch, seed=seed, loss=self.problem.loss, target=target)
        side.apply_plan(plan, model, seed=seed)

    def _call(self, name: str, seed: int, size: int) -> None:
        torch.manual_seed(seed)
        try:
            self.function(name)(self.problem.model, self.problem.first(size), seed)
        except Exception as error:
            raise StudyError(
                f"{name} raised {type(error).__name__}: {error}", remedy="mend the function, and resume"
            ) from error
