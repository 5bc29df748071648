"""How a kernel moves along its spatial axes: stride, dilation, padding, and what they connect."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fanin.errors import ArgumentError


@dataclass(frozen=True)
class Slide:
    """How a kernel moves along one spatial axis."""

    kernel: int
    stride: int = 1
    dilation: int = 1
    padding: tuple[int, int] | str = (0, 0)  # (before, after), or "same"
    transposed: bool = False
    output_padding: int = 0
    pads_with_zeros: bool = True  # else with copies of the signal: circular, reflect, replicate

    def sizes(self, n: int) -> tuple[int, int, int]:
        """(output length, padding before, padding after) for an input of length n."""
        reach = self.dilation * (self.kernel - 1) + 1
        if self.transposed:
            before, after = (0, 0) if isinstance(self.padding, str) else self.padding
            if self.padding == "same":
                before = max(reach - self.stride, 0) // 2
                return n * self.stride, before, 0
            return (n - 1) * self.stride + reach - before - after + self.output_padding, before, after
        if self.padding == "same":
            out = -(-n // self.stride)
            total = max((out - 1) * self.stride + reach - n, 0)
            return out, total // 2, total - total // 2
        before, after = (0, 0) if isinstance(self.padding, str) else self.padding
        return (n + before + after - reach) // self.stride + 1, before, after

    def connections(self, n: int) -> tuple[int, int]:
        """(pairs of an input and an output that a tap joins, output length) for an input of length n."""
        out, before, _ = self.sizes(n)
        if out < 1:
            raise ArgumentError(
                f"an input of length {n} gives {max(out, 0)} outputs with a kernel of {self.kernel}",
                cause=f"stride {self.stride}, dilation {self.dilation}, padding {self.padding}",
                remedy="give the spatial size of the layer's input",
            )
        if not self.pads_with_zeros and not self.transposed:
            return out * self.kernel, out
        moving, fixed = (n, out) if self.transposed else (out, n)
        target = np.arange(moving)[:, None] * self.stride + np.arange(self.kernel) * self.dilation - before
        return int(np.sum((target >= 0) & (target < fixed))), out


def slides(kernel, stride, dilation, padding, output_padding, padding_mode, transposed: bool) -> tuple[Slide, ...]:
    d = len(kernel)
    strides, dilations = per_axis("stride", stride, d, 1), per_axis("dilation", dilation, d, 1)
    extra = per_axis("output_padding", output_padding, d, 0)
    if padding_mode not in ("zeros", "circular", "reflect", "replicate"):
        raise ArgumentError(f"padding_mode is {padding_mode!r}", remedy="give zeros, circular, reflect or replicate")
    zeros = padding_mode == "zeros"
    pads = _paddings(padding, d)
    return tuple(
        Slide(k, s, dil, pad, transposed, more, zeros)
        for k, s, dil, pad, more in zip(kernel, strides, dilations, pads, extra, strict=True)
    )


def _paddings(padding: Any, d: int) -> list[Any]:
    if isinstance(padding, str):
        word = padding.lower()
        if word not in ("same", "valid"):
            raise ArgumentError(f"padding is {padding!r}", remedy='give "same", "valid", or numbers')
        return ["same" if word == "same" else (0, 0)] * d
    if not isinstance(padding, int) and any(hasattr(p, "__len__") for p in padding):
        pairs = [per_axis("padding", p, 2, 0) for p in padding]
        if len(pairs) != d:
            raise ArgumentError(f"padding {padding!r} for {d} spatial axes", remedy="give one pair an axis")
        return pairs
    return [(p, p) for p in per_axis("padding", padding, d, 0)]


def per_axis(what: str, given: Any, d: int, least: int) -> tuple[int, ...]:
    values = tuple(given) if hasattr(given, "__iter__") and not isinstance(given, str) else (given,) * d
    if len(values) != d:
        raise ArgumentError(f"{what} {given!r} for {d} axes", remedy="give one number, or one an axis")
    return tuple(whole(what, n, least) for n in values)


def whole(what: str, given: Any, least: int) -> int:
    try:
        value = operator.index(given)
    except TypeError:
        value = None
    if value is None or isinstance(given, bool) or value < least:
        raise ArgumentError(f"{what} is {given!r}", remedy=f"give a whole number of at least {least}")
    return value
