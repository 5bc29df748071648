"""Recurrent layers: orthogonal recurrent weights a gate, Glorot input weights, a forget gate that starts open."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fanin.distributions import Constant, Distribution, Orthogonal, Stacked, Zeros
from fanin.recipes.plan import Entry
from fanin.recipes.recipe import WEIGHTS, Made, Weight, Weights
from fanin.recipes.shared import drawn, sized
from fanin.schemes import variance_scaling

LSTM_GATES = 4
FORGET = 1  # torch orders the gates of an LSTM as input, forget, cell, output


def lstm(weights: Weights, options: Mapping[str, Any]) -> Made:
    """Recurrent weights orthogonal a gate, input weights Glorot a gate; LSTM forget biases one; other layers Glorot.

    torch adds two biases; the first of them carries the one.

    Source: Jozefowicz, Zaremba & Sutskever 2015, An empirical exploration of recurrent network architectures, PMLR
    37:2342-2350 (forget bias); Saxe, McClelland & Ganguli 2013, arXiv:1312.6120.
    """
    gates = {w.parameter.module: _gates(w) for w in weights.by_name.values() if w.role == "recurrent"}
    entries: dict[str, Entry] = {}
    for weight in weights.by_name.values():
        count = gates.get(weight.parameter.module, 0)
        if weight.role == "recurrent":
            law, words = _gate_law(weight, count, options)
            entries[weight.name] = drawn(weight.parameter, law, weight.fans, words)
        elif weight.role == "bias" and count == LSTM_GATES and not _second_bias(weight):
            parts = tuple(Constant(options["forget"]) if i == FORGET else Zeros() for i in range(LSTM_GATES))
            words = f"the forget gate starts open: its bias is {options['forget']:g}, the others zero"
            entries[weight.name] = drawn(weight.parameter, Stacked(parts), None, words)
        elif weight.role in WEIGHTS and weight.fans is not None:
            std = variance_scaling(weight.fans, scale=1.0, mode="fan_avg").std
            law = sized(options["distribution"], std, weight.shape)
            entries[weight.name] = drawn(weight.parameter, law, weight.fans, "Glorot: Var = 1 / fan_avg")
    return entries, [] if gates else ["no recurrent layer was found: Glorot throughout"]


def _gates(weight: Weight) -> int:
    """Blocks of rows: the weight has that many times the units of its layer."""
    return max(round(weight.shape[0] / weight.fans.fan_out), 1) if weight.fans is not None else 1


def _leaf(weight: Weight) -> str:
    return weight.name.rsplit(".", 1)[-1]


def _second_bias(weight: Weight) -> bool:
    return _leaf(weight).startswith("bias_hh")


def _gate_law(weight: Weight, gates: int, options: Mapping[str, Any]) -> tuple[Distribution, str]:
    block = (weight.shape[0] // gates, *weight.shape[1:])
    if _leaf(weight).startswith("weight_hh"):
        part, words = Orthogonal(1.0), "recurrent: orthonormal, so that a state keeps its length over time"
    else:
        std = math.sqrt(2 / (block[0] + block[1]))
        part, words = sized(options["distribution"], std, block), f"input of a recurrent layer: Glorot, std {std:.3g}"
    if gates == 1 or part.iid:
        return part, words
    return Stacked((part,) * gates), f"{words}; {gates} gates, each its own"
