"""Standard deviations that known schemes give a tensor of a shape, by the law that they draw from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fanin.axes import Fans
from fanin.distributions import truncation_factor
from fanin.errors import ArgumentError


@dataclass(frozen=True)
class Candidate:
    """A scheme: its name in words, the law's kind, and the std that it gives."""

    scheme: str
    kind: str
    std: float


FIXED = {"normal": (1.0, 0.02, 0.01), "truncated_normal": (0.02, 0.02 * truncation_factor(2.0))}
KINDS = ("normal", "uniform", "truncated_normal")


def candidates(name: str, shapes: Mapping[str, tuple[int, ...]], fans: Fans | None = None) -> list[Candidate]:
    """All schemes that a tensor of this name and shape may have been drawn by, likely ones first.

    Args:
        shapes: of all tensors; a bias is drawn by the fans of the weight beside it.
        fans: by the module's layer, where it is known; else torch's reading of the shape.
    """
    shape, leaf = shapes[name], leaf_of(name)
    found: list[Candidate] = []
    fan = None if KERNEL in leaf else torch_fan(name, shapes)
    if fan:
        found.append(Candidate(f"torch's default, U(±1/sqrt({fan:g}))", "uniform", 1 / math.sqrt(3 * fan)))
    if len(shape) >= 2:
        for size in dict.fromkeys(f for f in (fans, *_shape_fans(shape, leaf)) if f is not None and f.fan_in > 1):
            found += _scaled(size)
        if leaf == "embedding":
            words = f"Flax's tables, normal of std 1/sqrt({shape[-1]})"
            found.insert(0, Candidate(words, "normal", 1 / math.sqrt(shape[-1])))
        found.append(Candidate("Keras' tables, U(±0.05)", "uniform", 0.05 / math.sqrt(3)))
    for kind, stds in FIXED.items():
        found += [Candidate(f"{_words(kind)} of std {std:.3g}", kind, std) for std in stds]
    return list({(c.kind, round(math.log(c.std), 9)): c for c in reversed(found)}.values())[::-1]


def _scaled(fans: Fans) -> list[Candidate]:
    """He, Glorot and LeCun; where fan_in and fan_out are equal one row says so."""
    found = []
    square = fans.fan_in == fans.fan_out
    for kind in KINDS:
        words = _words(kind)
        he = {"fan_in = fan_out": fans.fan_in} if square else {"fan_out": fans.fan_out, "fan_in": fans.fan_in}
        found += [Candidate(f"He {words}, {mode}", kind, math.sqrt(2 / fan)) for mode, fan in he.items()]
        glorot = f"Glorot or LeCun {words}" if square else f"Glorot {words}"
        found.append(Candidate(glorot, kind, math.sqrt(1 / fans.avg)))
        found.append(Candidate(f"LeCun {words}", kind, math.sqrt(1 / fans.fan_in)))
    return found


def _words(kind: str) -> str:
    return kind.replace("_", " ")


KERNEL = "kernel"
"""What Keras and Flax call a weight: inputs before outputs, as torch's ``weight`` has them the other way round."""


def leaf_of(name: str) -> str:
    """The parameter's own name: ``Dense_0/kernel`` -> ``kernel``, ``conv/bias:0`` -> ``bias``."""
    return name.replace("/", ".").rpartition(".")[2].partition(":")[0]


def _shape_fans(shape: tuple[int, ...], leaf: str) -> list[Fans]:
    """By the order of axes that goes with the name; a kernel of three axes is a convolution or an attention's."""
    *taps, rows, columns = shape
    if KERNEL not in leaf:
        rows, columns, *taps = shape
        rows, columns = columns, rows
    sizes = [(rows * math.prod(taps), columns * math.prod(taps))]
    if KERNEL in leaf and len(shape) == 3:
        sizes += [(shape[0], shape[1] * shape[2]), (shape[0] * shape[1], shape[2])]
    found = []
    for fan_in, fan_out in sizes:
        try:
            found.append(Fans(fan_in, fan_out))
        except ArgumentError:
            continue
    return found


def torch_fan(name: str, shapes: Mapping[str, tuple[int, ...]]) -> float | None:
    """What torch's reset_parameters takes as fan_in: of the weight itself, of the one beside a bias, or hidden size."""
    module, _, leaf = name.rpartition(".")
    stem = f"{module}." if module else ""
    if leaf.startswith(("weight_", "bias_")):
        beside = shapes.get(f"{stem}{'weight_hh' + leaf[9:] if leaf.startswith('weight_') else 'weight_hh' + leaf[7:]}")
        return float(beside[1]) if beside is not None and len(beside) == 2 else None
    shape = shapes[name]
    if len(shape) == 1 and leaf == "bias":
        shape = shapes.get(f"{stem}weight", ())
    return float(math.prod(shape[1:])) if len(shape) >= 2 and math.prod(shape[1:]) else None
