"""``balance="both"``: pre-activation scales along a chain at which signal and gradients differ least between layers.

Along a chain of weights, with n_l elements a sample, mean squares f_l of the pre-activation and g_l of its cotangent,
and the activation's growth G(f) = f E[f'^2] / E[f^2] (one for ReLU):

    g_{l-1} = g_l (n_l f_l) / (n_{l-1} f_{l-1}) G(f_{l-1}),    E[(dw_l)^2] ~ p_l E[f(x_{l-1})^2] g_l

with p_l positions that share the weight. Where widths change, f, g and the gradient of the weights cannot all be flat:
f ~ 1 / n makes g flat, f constant makes neither. Scales f_l ~ n_l^-b are tried over a grid of exponents and levels;
the one whose larger spread (of g, or of the weights' gradients) is smallest is taken. For ReLU that is b = 2/3, which
leaves the cube root of the spread of the widths in both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fanin.graph import Node
from fanin.recipes.response import Response
from fanin.recipes.structure import Structure

EXPONENTS = np.linspace(0.0, 1.0, 31)
LEVELS = (1.0, 0.9, 0.8, 0.7, 0.63, 0.56, 0.5, 1.12, 1.26, 1.41)
LOW, HIGH = 0.5, 2.0  # of the rms of a pre-activation


@dataclass(frozen=True)
class Layer:
    """A weight in a chain: elements of its output for one sample, positions that share it, what follows it."""

    id: str
    elements: float
    positions: float
    follows: Response | None


def chains(structure: Structure, nodes: Iterable[Node], responses: dict[str, Response | None]) -> list[list[Layer]]:
    """Maximal runs of the nodes in which each reads what the one before it made."""
    found: list[list[Layer]] = []
    ends: dict[str, list[Layer]] = {}
    for node in nodes:
        above = structure.last_weights(structure.signal_input(node))
        chain = ends.pop(above[0], None) if len(above) == 1 else None
        if chain is None:
            chain = []
            found.append(chain)
        chain.append(_layer(structure, node, responses.get(node.id)))
        ends[node.id] = chain
    return [chain for chain in found if len(chain) > 1]


def _layer(structure: Structure, node: Node, follows: Response | None) -> Layer:
    weight = structure.graph.parameters[structure.weight_at(node) or ""]
    elements = math.prod(node.shape[1:])
    outputs = max(n for n in weight.shape[:2] if elements % n == 0) if weight.shape else 1
    return Layer(node.id, elements, max(elements / outputs, 1.0), follows)


def balanced(chain: list[Layer]) -> dict[str, float]:
    """The rms of the pre-activation of every layer of a chain."""
    tried = (_scales(chain, b, level) for b in EXPONENTS for level in LEVELS)
    best = min(tried, key=lambda rms: round(worst_spread(chain, rms), 3))
    return {layer.id: float(rms) for layer, rms in zip(chain, best, strict=True)}


def _scales(chain: list[Layer], exponent: float, level: float) -> np.ndarray:
    width = np.log([layer.elements for layer in chain])
    return np.clip(level * np.exp(-exponent / 2 * (width - width.mean())), LOW, HIGH)


def worst_spread(chain: list[Layer], rms: np.ndarray) -> float:
    """Largest over smallest mean square, of the cotangents or of the weights' gradients, whichever is worse."""
    g = np.zeros(len(chain))
    signal = np.zeros(len(chain))  # log mean square of what each layer reads; the first a batch of rms 1
    for i in range(len(chain) - 1, 0, -1):
        above, layer = chain[i - 1], chain[i]
        growth = above.follows.growth(rms[i - 1]) if above.follows is not None else 1.0
        ratio = layer.elements * rms[i] ** 2 / (above.elements * rms[i - 1] ** 2)
        g[i - 1] = g[i] + math.log(max(ratio * growth, 1e-300))
        second = above.follows.second(rms[i - 1]) if above.follows is not None else rms[i - 1] ** 2
        signal[i] = math.log(max(second, 1e-300))
    weights = np.log([layer.positions for layer in chain]) + signal + g
    return math.exp(min(max(np.ptp(g), np.ptp(weights)), 690.0))
