"""FAN5xx: the loss and the output that it reads."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from fanin.checks.case import Case
from fanin.checks.rule import Seen
from fanin.graph import Graph
from fanin.signals import Signals


def classes(graph: Graph, target: Any) -> int | None:
    """Number of classes, where the target holds class ids that fit the first output; None otherwise.

    Ids of shape ``output.shape[:-1]`` count over the last axis, ``(N, ...)`` for ``(N, C, ...)`` over the second.
    """
    dtype = str(getattr(target, "dtype", ""))
    shape: tuple[int, ...] = tuple(getattr(target, "shape", ()))
    if not graph.outputs or "int" not in dtype or not shape:
        return None
    out = graph.by_id[graph.outputs[0]].shape
    if len(out) > 2 and shape == (out[0], *out[2:]) and shape != out[:-1]:
        count = out[1]
    elif math.prod(shape) == math.prod(out[:-1]) and shape[0] == out[0]:
        count = out[-1]
    else:
        return None
    fits = str(getattr(target, "device", "")) == "meta" or int(target.max()) < count
    return int(count) if count > 1 and fits else None


def expected_loss(graph: Graph, target: Any) -> float | None:
    """ln C, the cross-entropy of knowing nothing; None where the target does not hold class ids."""
    count = classes(graph, target) if target is not None else None
    return math.log(count) if count else None


def chance(case: Case) -> tuple[float, int] | None:
    """The cross-entropy of knowing nothing and its number of classes; None where the loss is no cross-entropy."""
    facts = case.predicted.facts if case.predicted is not None else {}
    if "uninformed_loss" in facts:
        return (facts["uninformed_loss"], int(facts["classes"])) if "classes" in facts else None
    count = classes(case.graph, case.target) if case.target is not None else None
    return (math.log(count), count) if count else None


def loss_facts(predicted: Signals | None) -> dict[str, float]:
    """What a report says of the predicted loss: ``predicted_loss``, ``predicted_accuracy``, ``expected_loss``, ..."""
    facts = predicted.facts if predicted is not None else {}
    names = {
        "loss": "predicted_loss",
        "loss_spread": "predicted_loss_spread",
        "accuracy": "predicted_accuracy",
        "logit_rms": "predicted_logit_rms",
    }
    found = {name: facts[key] for key, name in names.items() if key in facts}
    return found | ({"expected_loss": facts["uninformed_loss"]} if "classes" in facts else {})


def off(case: Case) -> Iterator[Seen]:
    """A cross-entropy that does not start at ln C."""
    loss = (case.measured or case.predicted or Signals([])).facts.get("loss")
    known = chance(case)
    if loss is None or known is None:
        return
    wanted, count = known
    name = case.graph.by_id[case.graph.outputs[0]].name
    if not math.isfinite(loss):
        why, fix = "the output is not finite, or far too large", "find the first tensor so; fanin.init_(model, batch)"
        yield Seen(name, f"the loss is {loss}", loss, (wanted, wanted + 0.5), why, fix, "error")
    elif loss > wanted + 0.5 or loss < wanted - 0.3:
        high = loss > wanted
        yield Seen(
            name,
            f"the loss starts at {loss:.4g}; knowing nothing of {count} classes costs {wanted:.4g}",
            loss,
            (wanted - 0.3, wanted + 0.5),
            "the logits are too large, so that the net is sure of random answers"
            if high
            else "better than chance before any step: trained weights, a target in the input, or another loss",
            "scale the last layer down, to logits of rms below 0.5 (zeros are fine): fanin.init_(model, batch)"
            if high
            else "check that the input does not hold the target",
            "error" if loss > wanted + 10 else None,
        )


def logits(case: Case) -> Iterator[Seen]:
    """Class scores so large that the softmax starts sure."""
    if chance(case) is None:
        return
    node = case.graph.by_id[case.graph.outputs[0]]
    rms = case.rms(node)
    if rms is not None and rms > 3:
        head = case.head.weight.name if case.head else "the last layer"
        yield Seen(
            node.name,
            f"logits of rms {rms:.3g}: the loss starts about {min(rms**2 / 2, 2 * rms):.2g} above ln C",
            rms,
            (0.0, 3.0),
            f"{head} multiplies its input up, or its input is too large already",
            f"multiply the std of {head} by {1 / rms:.2g}: fanin.init_(model, batch) does it",
        )
