"""fan_in and fan_out of a weight, in the interior and averaged over all positions."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fanin.axes.layers import is_module, of_module
from fanin.axes.layout import TRANSPOSED, channels, checked, roles_of, totals
from fanin.axes.slide import Slide, per_axis, slides
from fanin.errors import ArgumentError


@dataclass(frozen=True)
class Fans:
    """How many inputs feed an output (fan_in) and how many outputs an input feeds (fan_out).

    They count one interior element, and fan_out counts at stride 1, as every initialization scheme does; what the
    borders and the stride make of it is ``effective(input_size)``.

    Example:
        >>> Fans(300, 100).avg, round(Fans(300, 100).geo, 2)
        (200.0, 173.21)
    """

    fan_in: float
    fan_out: float
    in_channels: float = field(default=0, repr=False, compare=False)  # of one group
    out_channels: float = field(default=0, repr=False, compare=False)
    slides: tuple[Slide, ...] = field(default=(), repr=False, compare=False)  # one a spatial axis

    def __post_init__(self) -> None:
        for name in ("fan_in", "fan_out"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 < value < math.inf:
                raise ArgumentError(f"{name} is {value!r}", cause="a fan is a positive number", remedy="give a count")
            object.__setattr__(self, name, _tidy(float(value)))

    @property
    def avg(self) -> float:
        """(fan_in + fan_out) / 2."""
        return (self.fan_in + self.fan_out) / 2

    @property
    def geo(self) -> float:
        """sqrt(fan_in fan_out)."""
        return math.sqrt(self.fan_in * self.fan_out)

    @property
    def receptive(self) -> int:
        """Taps of the kernel; 1 for a dense weight."""
        return math.prod(s.kernel for s in self.slides)

    def effective(self, input_size: int | Sequence[int] | None = None) -> Fans:
        """The true averages of both fans over all positions, for an input of this spatial size.

        Taps that fall on zero padding do not count; stride, dilation and transposition do. With C connections along
        an axis of n inputs and m outputs, fan_in takes C / m and fan_out C / n.

        Args:
            input_size: length of each spatial axis of the layer's input, or one for all; not needed for dense weights.

        Errors: ArgumentError for a missing or wrong size, or one that leaves no output.

        Example:
            >>> fans((8, 3, 3, 3), padding=1).effective(8)  # 27 * (1 - 2/24)**2
            Fans(fan_in=22.6875, fan_out=60.5)
        """
        if not self.slides:
            return self
        if input_size is None:
            raise ArgumentError("effective() of a convolution without a size", remedy="give the input's spatial size")
        sizes = per_axis("input_size", input_size, len(self.slides), least=1)
        fan_in, fan_out = self.in_channels, self.out_channels
        for slide, n in zip(self.slides, sizes, strict=True):
            joined, out = slide.connections(n)
            fan_in, fan_out = fan_in * joined / out, fan_out * joined / n
        return Fans(fan_in, fan_out, self.in_channels, self.out_channels, self.slides)


def fans(
    shape_or_module: Any,
    *,
    layout: str | None = None,
    groups: int = 1,
    transposed: bool | None = None,
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    padding: int | str | Sequence[Any] = 0,
    output_padding: int | Sequence[int] = 0,
    padding_mode: str = "zeros",
    blocks: int = 1,
    block_axis: str = "O",
    in_axes: int | Sequence[int] | None = None,
    out_axes: int | Sequence[int] | None = None,
    batch_axes: int | Sequence[int] = (),
    parameter: str | None = None,
) -> Fans:
    """fan_in and fan_out of a weight.

    Dense: the lengths of I and O. Convolution: fan_in = (c_in / groups) k, fan_out = (c_out / groups) k with k
    the product of the kernel's lengths. Transposed convolution: fan_in = (c_in / groups) k / s, s the product of
    the strides, since an output meets only every s-th tap. Embedding: fan_in = 1, since one row is looked up.

    Args:
        shape_or_module: the weight's shape, or a torch module (Linear, Conv, ConvTranspose, Embedding, Bilinear,
            recurrent, MultiheadAttention, or Conv1D of transformers), which brings all the rest with it.
        layout: the role of each axis: "OI" (torch), "IO" (Keras, JAX, Conv1D), "OIHW", "HWIO", "IOHW" and "HWOI"
            (transposed, torch and Keras), "HWIM" (depthwise, Keras), "EOI" and "EIO" (stacked experts), "embedding",
            or any other order of the letters in this module's docstring.
        groups: of a convolution; its weight holds the channels of one group on the I axis (O, if transposed).
        transposed: whether it is a transposed convolution; the layouts above imply it.
        stride, dilation, padding, output_padding, padding_mode: as of the torch layer; padding may also be "same",
            "valid", or a (before, after) pair for each axis. They matter to ``effective``; the stride also to the
            fan_in of a transposed convolution.
        blocks: how many matrices are packed side by side along ``block_axis`` ("O" or "I"): 3 for a packed
            query-key-value weight, 2 for gate and up, 4 for an LSTM. The fans are those of one.
        in_axes, out_axes, batch_axes: positions of these axes, in place of a layout, for a weight of an einsum;
            axes in none of them are taken as a receptive field, which counts in both fans.
        parameter: which weight of a module that has several: "weight_hh_l0" of an LSTM, "out_proj.weight" of attention.

    Errors: ArgumentError for a shape that is no weight's, an ambiguous one, an unknown layout or module, groups or
    blocks that do not divide.

    Source: Glorot & Bengio 2010, AISTATS 9, p. 249; He et al. 2015, arXiv:1502.01852.

    Example:
        >>> fans((5, 5, 3, 8), layout="HWIO"), fans((16, 8, 4, 4), layout="IOHW", stride=2)
        (Fans(fan_in=75, fan_out=200), Fans(fan_in=64, fan_out=128))
    """
    if isinstance(shape_or_module, Fans):
        return shape_or_module
    if is_module(shape_or_module):
        return of_module(shape_or_module, parameter)
    shape = checked(shape_or_module)
    if in_axes is not None or out_axes is not None:
        return _of_axes(shape, layout, in_axes, out_axes, batch_axes, blocks, block_axis)
    if layout is not None and str(layout).lower() == "embedding":
        return _of_table(shape)
    moving = (stride, dilation, padding, output_padding, padding_mode)
    return _of_kernel(shape, layout, transposed, moving, {"groups": groups, "blocks": blocks, "block_axis": block_axis})


def _of_kernel(
    shape: tuple[int, ...], layout: str | None, transposed: bool | None, moving: tuple, packed: dict[str, Any]
) -> Fans:
    """A dense weight or a kernel: what ``slides`` and ``channels`` say of its axes."""
    transposed = layout in TRANSPOSED if transposed is None else transposed
    roles = roles_of(shape, layout, transposed)
    kernel = [n for n, role in zip(shape, roles, strict=True) if role == "spatial"]
    moves = slides(kernel, *moving, transposed=transposed)
    c_in, c_out = channels(shape, roles, transposed=transposed, **packed)
    seen = math.prod(s.stride for s in moves) if transposed else 1
    taps = math.prod(kernel)
    return Fans(c_in * taps / seen, c_out * taps, c_in, c_out, moves)


def _of_table(shape: tuple[int, ...]) -> Fans:
    """One row is looked up: one input an output."""
    if len(shape) != 2:
        raise ArgumentError(f"an embedding of shape {shape}", remedy="give (entries, features)")
    return Fans(1, shape[1])


def _of_axes(shape, layout, in_axes, out_axes, batch_axes, blocks: int, block_axis: str) -> Fans:
    """Fans of declared axes."""
    if layout is not None or in_axes is None or out_axes is None:
        raise ArgumentError(
            f"shape {shape} with in_axes {in_axes}, out_axes {out_axes}, layout {layout}",
            cause="declared axes replace a layout, and both ends are needed",
            remedy="give in_axes and out_axes, or a layout",
        )
    declared: dict[int, str] = {}
    for role, axes in (("in", in_axes), ("out", out_axes), ("batch", batch_axes)):
        for axis in axes if hasattr(axes, "__iter__") else (axes,):
            try:
                place = range(len(shape))[operator.index(axis)]
            except (IndexError, TypeError):
                raise ArgumentError(f"axis {axis!r} of shape {shape}", remedy="give a position in the shape") from None
            if place in declared:
                raise ArgumentError(
                    f"axis {axis} of shape {shape} is both {declared[place]} and {role}", remedy="give it once"
                )
            declared[place] = role
    roles = tuple(declared.get(i, "spatial") for i in range(len(shape)))
    c_in, c_out = channels(shape, roles, blocks=blocks, block_axis=block_axis)
    taps = totals(shape, roles)["spatial"]
    return Fans(c_in * taps, c_out * taps, c_in, c_out)


def _tidy(value: float) -> float:
    return int(value) if value == int(value) else value
