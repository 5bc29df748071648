"""What all recipes do alike: biases, norms, look-up tables, and what is kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fanin.axes import Fans
from fanin.distributions import Constant, DeltaOrthogonal, Distribution, Normal, Orthogonal, Zeros, distribution
from fanin.graph import Parameter
from fanin.recipes.plan import Entry
from fanin.recipes.structure import Structure, Use


def drawn(parameter: Parameter, law: Distribution, fans: Fans | None, reason: str) -> Entry:
    """An entry that draws; its gain is std * sqrt(fan_in)."""
    std = law.moments(parameter.shape)[1]
    gain = std * math.sqrt(fans.fan_in) if fans is not None else None
    return Entry(parameter.name, parameter.shape, law, fans, gain, reason)


def kept(parameter: Parameter, reason: str) -> Entry:
    """An entry that draws nothing, or, where there are no values yet, what the model's own class would draw."""
    if not parameter.stats and parameter.law is not None:
        return Entry(
            parameter.name, parameter.shape, parameter.law, None, None, f"{reason}: as the model's class starts it"
        )
    return Entry(parameter.name, parameter.shape, None, None, None, f"kept as it is: {reason}")


def sized(kind: str, std: float, shape: tuple[int, ...]) -> Distribution:
    """A law of this kind whose elements have this std at this shape (orthogonal ones only where the shape allows)."""
    if kind in ("orthogonal", "delta_orthogonal"):
        law = {"orthogonal": Orthogonal, "delta_orthogonal": DeltaOrthogonal}[kind]
        if len(shape) < 2 or (kind == "delta_orthogonal" and len(shape) < 3):
            law = Orthogonal if len(shape) >= 2 else Normal
        return law(std / law(1.0).moments(shape)[1]) if law is not Normal else Normal(std)
    return distribution(kind, std)


SMALL = 0.3
EXCESS, MOST = 0.05, 0.25


def output_rms(options: Mapping[str, Any], outputs: int) -> float:
    """Rms of an output: as asked for, or the largest at which a classifier still starts where it knows nothing.

    Logits of rms r add r^2 / 2 to the initial loss of ln C. That may be 5 % of ln C and at most a quarter of a nat: r
    is .48 for ten classes and .71 from 150 on. Few outputs may be a regression's, and get .3. Larger ones let the
    layers below learn sooner beside the head (studied in ``auto-vs-peers``).

    Args:
        options: of the recipe; ``head`` is a number or "auto".
        outputs: how many there are.
    """
    asked = options.get("head", "auto")
    if asked != "auto":
        return asked
    return max(SMALL, math.sqrt(2 * min(EXCESS * math.log(max(outputs, 1)), MOST)))


def structural(structure: Structure, uses: list[Use], parameter: Parameter, options: Mapping[str, Any]) -> Entry | None:
    """Entries of what the graph's structure alone decides; None for weights whose scale is to be solved."""
    role = uses[0].role
    if role == "embedding":
        return embedding(structure, uses, parameter, options)
    rule = {"bias": bias, "norm_weight": norm_weight, "norm_bias": bias, "position": position}.get(role)
    if rule is not None:
        return rule(parameter)
    return kept(parameter, "a scale of the model's design") if role == "scale" else None


def bias(parameter: Parameter) -> Entry:
    """Zeros."""
    return Entry(
        parameter.name,
        parameter.shape,
        Zeros(),
        None,
        None,
        "a bias: zero, so that no direction is preferred",
    )


def norm_weight(parameter: Parameter) -> Entry:
    """Ones."""
    return Entry(parameter.name, parameter.shape, Constant(1.0), None, None, "the scale of a norm: one")


def position(parameter: Parameter) -> Entry:
    """Small: it is added to a signal."""
    return Entry(
        parameter.name,
        parameter.shape,
        Normal(0.02),
        None,
        None,
        "positions or tokens that join the signal: small, 0.02",
    )


def embedding(structure: Structure, uses: list[Use], parameter: Parameter, options: Mapping[str, Any]) -> Entry:
    """A look-up table: no sum, so no fan_in; its scale is the scale of what it gives."""
    fans = structure.fans(uses[0])
    width = parameter.shape[-1]
    logits = output_rms(options, parameter.shape[0])
    if any(u.node.id in structure.heads for u in uses) or (parameter.tied and any(u.role != "embedding" for u in uses)):
        std = min(0.02, logits / math.sqrt(width))
        reason = f"a table that is also the output head: logits on a normalized input stay below rms {logits:.3g}"
    elif structure.to_logits(uses[0].node):
        std, reason = 0.02, "a table of biases of attention logits: small, 0.02"
    else:
        std, reason = 1.0, "a look-up table: one row is read, so std 1 gives a signal of rms 1"
    kind = options.get("distribution", "normal")
    law = sized("normal" if "orthogonal" in kind else kind, std, parameter.shape)
    return drawn(parameter, law, fans, reason)
