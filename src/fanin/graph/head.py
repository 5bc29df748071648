"""What theory asks of a front end about a loss: where samples are drawn, and what the loss makes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Cut:
    """Where samples are drawn.

    Attributes:
        node: id of the tensor that is drawn.
        tail: ids of the nodes behind it, up to the tensor that the loss reads.
        output: id of that tensor.
    """

    node: str
    tail: frozenset[str]
    output: str


@dataclass(frozen=True)
class Evaluated:
    """A loss on one sample.

    Attributes:
        gradient: of the loss, at the tensor that was drawn.
        facts: loss, mean square of the scores (``square``), the loss of scores that are all zero (``uninformed_loss``);
            of a cross-entropy also ``classes`` and ``accuracy``.
        tensors: mean square, mean, and mean square of the gradient of the tensors behind the one that was drawn.
    """

    gradient: np.ndarray
    facts: Mapping[str, float]
    tensors: Mapping[str, tuple[float, float, float | None]]


Evaluate = Callable[[np.ndarray], Evaluated]
Head = Callable[[Cut, Mapping[str, np.ndarray]], Evaluate]
"""What a front end gives: the cut and the known arrays to a function that evaluates the loss on a sample."""
