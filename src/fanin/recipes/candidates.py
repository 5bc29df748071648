"""Standard deviations that known schemes give a tensor of a shape, by the law that they draw from."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from fanin.axes import Fans
from fanin.distributions import truncation_factor
from fanin.errors import ArgumentError


@dataclass(frozen=True)
class Candidate:
    """A scheme: its name in words, the law's kind, the std that it gives, and whether it is asked only after others."""

    scheme: str
    kind: str
    std: float
    rare: bool = False


FIXED = {"normal": (1.0, 0.02, 0.01), "truncated_normal": (0.02, 0.02 * truncation_factor(2.0))}
GAINS = {"tanh": 5 / 3, "relu": math.sqrt(2), "leaky_relu": math.sqrt(2 / (1 + 0.01**2)), "selu": 0.75}
"""What torch.nn.init.calculate_gain gives, by the name of the nonlinearity."""
QUERY = re.compile(r"(^|[._/])(q|q_proj|query)[._/]weight$")
"""Queries, which T5 scales by the head's size in place of the logits (Raffel et al. 2020, as Mesh TensorFlow does)."""
HEADS = re.compile(r"(^|/)(query|key|value|out|attention_output)/kernel")
"""Attention's projections in Flax and Keras, whose kernels split the features by heads."""
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
        for size in dict.fromkeys(f for f in (fans, *_shape_fans(shape, name)) if f is not None and f.fan_in > 1):
            found += _scaled(size)
            found += _with_gain(size)
        if leaf == "embedding":
            words = f"Flax's tables, normal of std 1/sqrt({shape[-1]})"
            found.insert(0, Candidate(words, "normal", 1 / math.sqrt(shape[-1])))
        found.append(Candidate("Keras' tables, U(±0.05)", "uniform", 0.05 / math.sqrt(3)))
    _, count = series(shapes).get(name, ("", 1))
    if len(shape) == 2 and count > 1:
        words = f"GPT-2's residual projections, normal of std 0.02/sqrt(2·{count})"
        found.append(Candidate(words, "normal", 0.02 / math.sqrt(2 * count)))
    if len(shape) == 2 and QUERY.search(name):
        sizes = (2**k for k in range(3, 9) if shape[0] % 2**k == 0)
        found += [
            Candidate(
                f"T5's queries, normal of std 1/sqrt({shape[1]}·{size})", "normal", (shape[1] * size) ** -0.5, True
            )
            for size in sizes
        ]
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


def _with_gain(fans: Fans) -> list[Candidate]:
    """Glorot's and He's with a gain of torch's table."""
    found = []
    for kind in ("normal", "uniform"):
        for act, gain in GAINS.items():
            found.append(
                Candidate(f"Glorot {kind}, gain {gain:.3g} ({act})", kind, gain / math.sqrt(fans.avg), rare=True)
            )
            found += [
                Candidate(f"He {kind}, {mode}, gain {gain:.3g} ({act})", kind, gain / math.sqrt(fan), rare=True)
                for mode, fan in (("fan_in", fans.fan_in), ("fan_out", fans.fan_out))
                if act != "relu"
            ]
    return found


def series(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[str, int]]:
    """Name -> (its pattern, "#" for the first number that runs, how many share it), for tensors of repeated blocks.

    Example:
        >>> series({"h.0.w": (2, 2), "h.1.w": (2, 2), "head.w": (2, 2)})
        {'h.0.w': ('h.#.w', 2), 'h.1.w': ('h.#.w', 2)}
    """
    return _series(tuple(shapes))


@lru_cache(maxsize=4)
def _series(names: tuple[str, ...]) -> dict[str, tuple[str, int]]:
    found: dict[str, tuple[str, int]] = {}
    patterns = {name: [_wild(name, m.span()) for m in NUMBER.finditer(name)] for name in names}
    count = Counter(pattern for made in patterns.values() for pattern in made)
    for name, made in patterns.items():
        running = [pattern for pattern in made if count[pattern] > 1]
        if running:
            found[name] = running[0], count[running[0]]
    return found


NUMBER = re.compile(r"(?<![^./_])\d+(?![^./_])")


def _wild(name: str, span: tuple[int, int]) -> str:
    return f"{name[: span[0]]}#{name[span[1] :]}"


def _words(kind: str) -> str:
    return kind.replace("_", " ")


KERNEL = "kernel"
"""What Keras and Flax call a weight: inputs before outputs, as torch's ``weight`` has them the other way round."""


def leaf_of(name: str) -> str:
    """The parameter's own name: ``Dense_0/kernel`` -> ``kernel``, ``conv/bias:0`` -> ``bias``."""
    return name.replace("/", ".").rpartition(".")[2].partition(":")[0]


def _shape_fans(shape: tuple[int, ...], name: str) -> list[Fans]:
    """By the order of axes that goes with the name; a kernel of three axes is a convolution or an attention's.

    Of readings that give one std the first is told, so an attention's goes first where the name says attention.
    """
    leaf = leaf_of(name)
    *taps, rows, columns = shape
    if KERNEL not in leaf:
        rows, columns, *taps = shape
        rows, columns = columns, rows
    sizes = [(rows * math.prod(taps), columns * math.prod(taps))]
    if KERNEL in leaf and len(shape) == 3:
        heads = [(shape[0], shape[1] * shape[2]), (shape[0] * shape[1], shape[2])]
        sizes = [*heads, *sizes] if HEADS.search(name) else [*sizes, *heads]
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
