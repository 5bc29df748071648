"""What a reader should look at in a model's tensors: outliers, known mistakes, twins, unscaled branches."""

from __future__ import annotations

import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from fanin.distributions import Distribution
from fanin.recipes.candidates import Candidate, leaf_of, series


def outliers(values: np.ndarray, law: Distribution, level: float) -> str:
    """Elements that so many draws of a normal law do not reach."""
    from scipy.special import ndtr, ndtri

    if law.kind != "normal":
        return ""
    n, largest = values.size, float(np.abs(values - law.mean).max()) / law.std
    if 2 * n * float(ndtr(-largest)) > level:
        return ""
    reach = float(ndtri(1 - level / (2 * n)))
    count = int((np.abs(values - law.mean) > reach * law.std).sum())
    return f"{count} of its elements are larger than {n} draws give: up to {largest:.3g} std, where {reach:.2g} is rare"


def mistake(law: Distribution, known: list[Candidate]) -> str:
    """Whether the scale is a known mistake: a variance taken for a std, or the other way round."""
    std = law.moments((2, 2))[1]
    for c in known:
        if c.kind == law.kind and c.std != 1 and abs(std / c.std**2 - 1) < 0.02:
            return f"its std is the variance of {c.scheme}: was a variance passed as a standard deviation?"
    return ""


def twins(found: Iterable[tuple[str, tuple[int, ...], np.ndarray | None]]) -> dict[str, str]:
    """Name of a tensor -> an earlier one that holds the same values in memory of its own."""
    seen: dict[bytes, tuple[str, np.ndarray]] = {}
    same: dict[str, str] = {}
    for name, shape, array in found:
        if array is None:
            continue
        key = hashlib.blake2b(np.ascontiguousarray(array).tobytes() + str(shape).encode()).digest()
        if key in seen and not np.shares_memory(array, seen[key][1]):
            same[name] = seen[key][0]
        seen.setdefault(key, (name, array))
    return same


BRANCH_ENDS = re.compile(
    r"(^|[._/])(o|c_proj|o_proj|out_proj|wo|w2|down_proj|fc2|linear2|lin2|out_lin|dense_4h_to_h|fc_out|proj_out|"
    r"attention\.dense|self_attention\.dense|attention\.output\.dense|output\.dense|mlp\.proj|attn\.proj)$"
)
"""What the last weight of a residual branch is called."""
NORMS = re.compile(r"(^|[._/])(ln_f|ln_final|final_layer_?norm|final_norm|norm_f|f_norm|norm|layer_?norm|ln)$", re.I)
"""What a norm behind all blocks is called."""
BLOCKS = 4
"""Blocks from which on an unscaled branch is worth a word: eight sums of size one add to a signal of three."""


def unscaled(shapes: Mapping[str, tuple[int, ...]], stds: Mapping[str, float | None]) -> dict[str, str]:
    """Residual projections of a norm-first model whose std is that of the other weights of their blocks.

    GPT-2 divides by sqrt(2 L), so that L blocks add a signal of the size of one. A model is taken as norm-first if a
    norm follows its blocks.

    Args:
        shapes: of all tensors, in the model's order.
        stds: fitted standard deviations of freshly drawn matrices.
    """
    blocks = series(shapes)
    if not _norm_behind(shapes, blocks):
        return {}
    inside: dict[str, list[str]] = defaultdict(list)
    for name, std in stds.items():
        if std and name in blocks and len(shapes[name]) == 2:
            inside[blocks[name][0].rpartition("#")[0]].append(name)
    marked = {}
    for names in inside.values():
        ends = [name for name in names if BRANCH_ENDS.search(_owner(name))]
        others = [stds[name] or 0.0 for name in names if name not in ends]
        count = max((blocks[name][1] for name in ends), default=0)
        if not ends or not others or count < BLOCKS:
            continue
        sums = len(ends)
        usual = float(np.median(others))
        for name in ends:
            if abs(math.log((stds[name] or usual) / usual)) < math.log(sums) / 4:  # nearer to one than to the rule
                marked[name] = f"one of {sums} residual projections that were never scaled by 1/sqrt({sums})"
    return marked


def _owner(name: str) -> str:
    """The module of a weight: the name without its last part."""
    return name[: len(name) - len(leaf_of(name))].rstrip("./")


def _norm_behind(shapes: Mapping[str, tuple[int, ...]], blocks: Mapping[str, tuple[str, int]]) -> bool:
    names = list(shapes)
    last = max((i for i, name in enumerate(names) if name in blocks), default=len(names))
    return any(len(shapes[n]) == 1 and NORMS.search(_owner(n)) for n in names[last + 1 :])
