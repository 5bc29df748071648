"""Whether a batch and a model suit each other, beyond what tracing sees: ids, dtypes, outputs, finite weights."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from fanin.errors import ModelError
from fanin.graph import Graph, Kind
from fanin.graph.questions import contractions, origin


def require_fit(graph: Graph, model: str) -> None:
    """Refuse what would fail, or mean nothing, when it is run.

    Raises:
        ModelError: no floating-point output, an id beyond its table, or a batch of another dtype than the weights.
    """
    if not graph.outputs:
        raise ModelError(
            f"{model} returns no floating-point tensor",
            cause="there is no signal to follow and nothing a gradient can start from",
            remedy="let forward return logits or features, in a tensor, tuple, list, dict or ModelOutput",
        )
    _ids_within(graph)
    _same_dtype(graph)


def _ids_within(graph: Graph) -> None:
    for node in graph.nodes:
        if node.kind is not Kind.EMBED:
            continue
        ids = origin(graph, node.inputs[node.attrs["ids"]])
        value = ids.attrs.get("value") if ids.kind is Kind.INPUT else None
        rows = graph.by_id[node.inputs[node.attrs["weight"]]].shape[0]
        if value is not None and np.size(value) and (np.min(value) < 0 or np.max(value) >= rows):
            raise ModelError(
                f"{ids.name} holds ids from {int(np.min(value))} to {int(np.max(value))}, {node.name} has {rows} rows",
                cause="the batch was made for another vocabulary",
                remedy=f"give ids from 0 to {rows - 1}",
            )


def _same_dtype(graph: Graph) -> None:
    for layer in contractions(graph):
        source = origin(graph, layer.x)
        if source.kind is Kind.INPUT and source.dtype != layer.weight.dtype:
            raise ModelError(
                f"{source.name} is {source.dtype}, {layer.weight.name} is {layer.weight.dtype}",
                cause="a layer takes inputs of the dtype of its weights",
                remedy=f"convert the batch: .to(torch.{layer.weight.dtype})",
            )


def require_finite(graph: Graph, replaced: Collection[str] = ()) -> None:
    """Refuse weights with NaN or infinity, which no law describes.

    Args:
        replaced: names of parameters that a plan draws, whose present values do not matter.

    Raises:
        ModelError: names the first parameter and how many of its values are not finite.
    """
    for name, parameter in graph.parameters.items():
        share = parameter.stats.get("nonfinite", 0.0)
        if share and name not in replaced:
            raise ModelError(
                f"{round(share * parameter.size)} of {parameter.size} values of parameter {name} are NaN or infinite",
                cause="a broken checkpoint, training that diverged, or memory that was never written",
                remedy="load other weights, or draw them anew: fanin.init_(model, batch)",
            )
