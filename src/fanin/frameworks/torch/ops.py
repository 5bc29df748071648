"""The table from ATen operations to the neutral vocabulary: a row an operation, by family in files of their own.

A row's function gets an ``Arguments`` view of the step and returns ``(kind, attrs)``, or a ``Chain`` of several. An
operation that is not here is OPAQUE and is shown as unmodelled, unless its inputs are all known, in which case it is
simply evaluated.
"""

from __future__ import annotations

from fanin.frameworks.torch import writes
from fanin.frameworks.torch.arguments import (
    SERIAL,
    Arguments,
    Built,
    Row,
    numpy_function,
    op_name,
    references,
    substitute,
    written,
)
from fanin.frameworks.torch.chains import CHAINS
from fanin.frameworks.torch.composed import COMPOSED
from fanin.frameworks.torch.distances import DISTANCES
from fanin.frameworks.torch.elementwise import ELEMENTWISE
from fanin.frameworks.torch.moving import MOVING, SPLITS, split_piece
from fanin.frameworks.torch.noise import RANDOM
from fanin.frameworks.torch.normalizing import NORMALIZING
from fanin.frameworks.torch.recurrent import RECURRENT
from fanin.frameworks.torch.reducing import REDUCING
from fanin.frameworks.torch.weighted import WEIGHTED

__all__ = [
    "SERIAL",
    "SPLITS",
    "TABLE",
    "Arguments",
    "Built",
    "numpy_function",
    "op_name",
    "references",
    "split_piece",
    "substitute",
    "written",
]

WRITING: dict[str, Row] = {
    "slice_scatter": writes.slice_scatter,
    "select_scatter": writes.select_scatter,
    "index_put": writes.index_put,
    "index_copy": writes.along("source"),
    "index_add": writes.along("source", add=True),
    "index_fill": writes.along("value"),
    "scatter": writes.scatter,
    "scatter_add": writes.scatter_add,
    "scatter_reduce": writes.scatter_reduce,
    "masked_scatter": writes.masked_scatter,
    "masked_fill": writes.masked_fill,
    "fill": writes.fill,
    "zero": writes.fill,
}
"""Rows that put elements into a tensor that is there."""

TABLE: dict[str, Row] = {
    **ELEMENTWISE,
    **WEIGHTED,
    **NORMALIZING,
    **REDUCING,
    **MOVING,
    **WRITING,
    **CHAINS,
    **COMPOSED,
    **DISTANCES,
    **RANDOM,
    **RECURRENT,
}
"""What each ATen operation means; names without overload or trailing underscore."""
