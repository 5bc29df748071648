"""The role of each axis of a weight, from its layout or from torch's order, and the channels that follow."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from typing import Any

from fanin.axes.slide import whole
from fanin.errors import ArgumentError

ROLES = {"O": "out", "I": "in", "H": "spatial", "W": "spatial", "D": "spatial", "E": "batch", "M": "multiplier"}
TORCH = {2: "OI", 3: "OIW", 4: "OIHW", 5: "OIDHW"}
TORCH_TRANSPOSED = {3: "IOW", 4: "IOHW", 5: "IODHW"}
TRANSPOSED = {"IOW", "IOHW", "IODHW", "WOI", "HWOI", "DHWOI"}  # how torch and Keras store transposed convolutions
KNOWN = [*TORCH.values(), *TORCH_TRANSPOSED.values(), "IO", "WIO", "HWIO", "DHWIO", "WOI", "HWOI", "DHWOI"]
KNOWN += ["EOI", "EIO", "WIM", "HWIM", "embedding"]
LARGEST_KERNEL = 11  # beyond it a bare shape is more likely another layout


def axis_roles(shape: Sequence[int], layout: str | None = None, *, transposed: bool = False) -> tuple[str, ...]:
    """The role of each axis: "out", "in", "spatial", "batch" or "multiplier".

    Errors: ArgumentError as ``fans`` has them.

    Example:
        >>> axis_roles((5, 5, 3, 8), "HWIO")
        ('spatial', 'spatial', 'in', 'out')
    """
    return roles_of(checked(shape), layout, transposed)


def checked(given: Any) -> tuple[int, ...]:
    if isinstance(given, str) or not hasattr(given, "__iter__"):
        raise ArgumentError(
            f"fans of {given!r}, a {type(given).__name__}",
            cause="it is neither a shape nor a module whose weight is known",
            remedy="give the weight's shape, such as (out, in), with its layout",
        )
    shape = tuple(whole("axis", n, least=1) for n in given)
    if len(shape) < 2:
        raise ArgumentError(
            f"shape {shape} has no fans",
            cause="a bias or a scale has no input and output axis",
            remedy="give the shape of the weight, of two axes or more",
        )
    return shape


def roles_of(shape: tuple[int, ...], layout: str | None, transposed: bool) -> tuple[str, ...]:
    if layout is None:
        layout = (TORCH_TRANSPOSED if transposed else TORCH).get(len(shape))
        if layout is None:
            raise ArgumentError(
                f"shape {shape} has {len(shape)} axes{' (transposed)' if transposed else ''}",
                cause="no torch layer has such a weight",
                remedy="give layout=, or in_axes= and out_axes=",
            )
        _refuse_ambiguous(shape, layout)
    letters = str(layout)
    known = all(letter in ROLES for letter in letters) and len(set(letters)) == len(letters)
    if not known or "I" not in letters or len({"O", "M"} & set(letters)) != 1:
        near = difflib.get_close_matches(letters, KNOWN, n=1, cutoff=0.5)
        raise ArgumentError(
            f"layout {layout!r} is unknown",
            cause=f"did you mean {near[0]!r}?" if near else "a layout is one letter an axis",
            remedy=f"use {', '.join(KNOWN)}, or declare in_axes and out_axes",
        )
    if len(letters) != len(shape):
        raise ArgumentError(
            f"layout {layout!r} has {len(letters)} axes, shape {shape} has {len(shape)}",
            remedy="give one letter an axis",
        )
    return tuple(ROLES[letter] for letter in letters)


def _refuse_ambiguous(shape: tuple[int, ...], layout: str) -> None:
    """Stop where torch's reading of a bare shape would need an unlikely kernel and another reading would not."""
    kernel, lead = shape[2:], shape[: len(shape) - 2]
    small = len(set(lead)) == 1 and lead[0] % 2 == 1 and lead[0] <= LARGEST_KERNEL
    if len(shape) == 3:
        doubtful = kernel[0] > 31
    else:
        doubtful = small and len(shape) > 3 and (shape[-2] != shape[-1] or shape[-1] > LARGEST_KERNEL)
    if doubtful:
        other = {3: 'layout="WIO" (Keras, JAX) or "EOI" (stacked experts)', 4: 'layout="HWIO"', 5: 'layout="DHWIO"'}
        raise ArgumentError(
            f"shape {shape} is ambiguous",
            cause=f'as a torch weight ("{layout}") its kernel would be {" x ".join(map(str, kernel))}',
            remedy=f'give layout="{layout}" if so, or else {other[len(shape)]}',
        )


def totals(shape: tuple[int, ...], roles: tuple[str, ...]) -> dict[str, int]:
    return {role: math.prod(n for n, r in zip(shape, roles, strict=True) if r == role) for role in ROLES.values()}


def channels(
    shape: tuple[int, ...],
    roles: tuple[str, ...],
    *,
    groups: int = 1,
    transposed: bool = False,
    blocks: int = 1,
    block_axis: str = "O",
) -> tuple[int, int]:
    """Channels in and out of one group of one block."""
    groups, blocks, size = whole("groups", groups, least=1), whole("blocks", blocks, least=1), totals(shape, roles)
    c_in, c_out = size["in"], size["out"]
    if "multiplier" in roles:  # depthwise: the I axis then lists groups of one channel each
        c_in, c_out = 1, size["multiplier"]
    if block_axis not in ("O", "I"):
        raise ArgumentError(f"block_axis is {block_axis!r}", remedy='give "O" or "I"')
    if block_axis == "O":
        c_out = _divided("blocks", blocks, c_out, shape)
    else:
        c_in = _divided("blocks", blocks, c_in, shape)
    if transposed:
        return _divided("groups", groups, c_in, shape), c_out
    return c_in, _divided("groups", groups, c_out, shape)


def _divided(what: str, parts: int, n: int, shape: tuple[int, ...]) -> int:
    if n % parts:
        raise ArgumentError(
            f"{what}={parts} does not divide the {n} channels of shape {shape}",
            cause="the layout, or the number, is another",
            remedy=f"give the {what} that the layer has",
        )
    return n // parts
