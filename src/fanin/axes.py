"""What each axis of a weight means, and the fans that follow.

A shape alone does not say which axis is which: torch stores a dense weight as (out, in), Keras and JAX as (in, out).
So the roles are an argument, ``layout``, one letter an axis:

    O  output channels or features          H W D  kernel height, width, depth
    I  input channels or features           E      experts, heads, ...: independent copies, not counted
    M  channel multiplier of a depthwise kernel (Keras: "HWIM")

Without a layout a shape is read as torch would store it: "OI", "OIW", "OIHW", "OIDHW", and "IO..." with
``transposed=True``. Where that reading would need an odd kernel and the shape looks like another layout, as
(3, 3, 64, 128) does, an error asks for the layout instead of guessing.

A tied weight has one role for each use: an embedding that is also the output head has ``layout="embedding"`` fans
where it is looked up and "OI" fans where it multiplies. Its scale must be chosen for one of them; ask for the fans
of the role that matters.
"""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fanin.errors import ArgumentError

ROLES = {"O": "out", "I": "in", "H": "spatial", "W": "spatial", "D": "spatial", "E": "batch", "M": "multiplier"}
TORCH = {2: "OI", 3: "OIW", 4: "OIHW", 5: "OIDHW"}
TORCH_TRANSPOSED = {3: "IOW", 4: "IOHW", 5: "IODHW"}
TRANSPOSED = {"IOW", "IOHW", "IODHW", "WOI", "HWOI", "DHWOI"}  # how torch and Keras store transposed convolutions
KNOWN = [*TORCH.values(), *TORCH_TRANSPOSED.values(), "IO", "WIO", "HWIO", "DHWIO", "WOI", "HWOI", "DHWOI"]
KNOWN += ["EOI", "EIO", "WIM", "HWIM", "embedding"]
RECURRENT = ("LSTM", "LSTMCell", "GRU", "GRUCell", "RNN", "RNNCell")
LARGEST_KERNEL = 11  # beyond it a bare shape is more likely another layout


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
        sizes = _per_axis("input_size", input_size, len(self.slides), least=1)
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

    Source: Glorot & Bengio 2010, Understanding the difficulty of training deep feedforward neural networks;
    He et al. 2015, arXiv:1502.01852.

    Example:
        >>> fans((5, 5, 3, 8), layout="HWIO"), fans((16, 8, 4, 4), layout="IOHW", stride=2)
        (Fans(fan_in=75, fan_out=200), Fans(fan_in=64, fan_out=128))
    """
    if isinstance(shape_or_module, Fans):
        return shape_or_module
    if _is_module(shape_or_module):
        return _of_module(shape_or_module, parameter)
    shape = _shape(shape_or_module)
    if in_axes is not None or out_axes is not None:
        if layout is not None or in_axes is None or out_axes is None:
            raise ArgumentError(
                f"shape {shape} with in_axes {in_axes}, out_axes {out_axes}, layout {layout}",
                cause="declared axes replace a layout, and both ends are needed",
                remedy="give in_axes and out_axes, or a layout",
            )
        return _of_axes(shape, in_axes, out_axes, batch_axes, blocks, block_axis)
    if layout is not None and str(layout).lower() == "embedding":
        if len(shape) != 2:
            raise ArgumentError(f"an embedding of shape {shape}", remedy="give (entries, features)")
        return Fans(1, shape[1])
    if transposed is None:
        transposed = layout in TRANSPOSED
    roles = _roles(shape, layout, transposed)
    size = _totals(shape, roles)
    kernel = [n for n, role in zip(shape, roles, strict=True) if role == "spatial"]
    c_in, c_out = _channels(
        size,
        shape,
        groups=groups,
        transposed=transposed,
        depthwise="multiplier" in roles,
        blocks=blocks,
        block_axis=block_axis,
    )
    slides = _slides(kernel, stride, dilation, padding, output_padding, padding_mode, transposed)
    taps = math.prod(kernel)
    seen = math.prod(s.stride for s in slides) if transposed else 1
    return Fans(c_in * taps / seen, c_out * taps, c_in, c_out, slides)


def axis_roles(shape: Sequence[int], layout: str | None = None, *, transposed: bool = False) -> tuple[str, ...]:
    """The role of each axis: "out", "in", "spatial", "batch" or "multiplier".

    Errors: ArgumentError as ``fans`` has them.

    Example:
        >>> axis_roles((5, 5, 3, 8), "HWIO")
        ('spatial', 'spatial', 'in', 'out')
    """
    return _roles(_shape(shape), layout, transposed)


def _shape(given: Any) -> tuple[int, ...]:
    if isinstance(given, str) or not hasattr(given, "__iter__"):
        raise ArgumentError(
            f"fans of {given!r}, a {type(given).__name__}",
            cause="it is neither a shape nor a module whose weight is known",
            remedy="give the weight's shape, such as (out, in), with its layout",
        )
    shape = tuple(_whole("axis", n, least=1) for n in given)
    if len(shape) < 2:
        raise ArgumentError(
            f"shape {shape} has no fans",
            cause="a bias or a scale has no input and output axis",
            remedy="give the shape of the weight, of two axes or more",
        )
    return shape


def _roles(shape: tuple[int, ...], layout: str | None, transposed: bool) -> tuple[str, ...]:
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


def _totals(shape: tuple[int, ...], roles: tuple[str, ...]) -> dict[str, int]:
    return {role: math.prod(n for n, r in zip(shape, roles, strict=True) if r == role) for role in ROLES.values()}


def _channels(
    size: dict[str, int],
    shape: tuple[int, ...],
    *,
    groups: int = 1,
    transposed: bool = False,
    depthwise: bool = False,
    blocks: int = 1,
    block_axis: str = "O",
) -> tuple[int, int]:
    """Channels in and out of one group of one block."""
    groups, blocks = _whole("groups", groups, least=1), _whole("blocks", blocks, least=1)
    c_in, c_out = size["in"], size["out"]
    if depthwise:  # the I axis then lists groups of one channel each
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


def _slides(kernel, stride, dilation, padding, output_padding, padding_mode, transposed: bool) -> tuple[Slide, ...]:
    d = len(kernel)
    strides, dilations = _per_axis("stride", stride, d, 1), _per_axis("dilation", dilation, d, 1)
    extra = _per_axis("output_padding", output_padding, d, 0)
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
        pairs = [_per_axis("padding", p, 2, 0) for p in padding]
        if len(pairs) != d:
            raise ArgumentError(f"padding {padding!r} for {d} spatial axes", remedy="give one pair an axis")
        return pairs
    return [(p, p) for p in _per_axis("padding", padding, d, 0)]


def _per_axis(what: str, given: Any, d: int, least: int) -> tuple[int, ...]:
    values = tuple(given) if hasattr(given, "__iter__") and not isinstance(given, str) else (given,) * d
    if len(values) != d:
        raise ArgumentError(f"{what} {given!r} for {d} axes", remedy="give one number, or one an axis")
    return tuple(_whole(what, n, least) for n in values)


def _whole(what: str, given: Any, least: int) -> int:
    try:
        value = operator.index(given)
    except TypeError:
        value = None
    if value is None or isinstance(given, bool) or value < least:
        raise ArgumentError(f"{what} is {given!r}", remedy=f"give a whole number of at least {least}")
    return value


def _tidy(value: float) -> float:
    return int(value) if value == int(value) else value


def _of_axes(shape, in_axes, out_axes, batch_axes, blocks: int, block_axis: str) -> Fans:
    """Fans of declared axes."""
    roles: dict[int, str] = {}
    for role, axes in (("in", in_axes), ("out", out_axes), ("batch", batch_axes)):
        for axis in axes if hasattr(axes, "__iter__") else (axes,):
            try:
                place = range(len(shape))[operator.index(axis)]
            except (IndexError, TypeError):
                raise ArgumentError(f"axis {axis!r} of shape {shape}", remedy="give a position in the shape") from None
            if place in roles:
                raise ArgumentError(
                    f"axis {axis} of shape {shape} is both {roles[place]} and {role}", remedy="give it once"
                )
            roles[place] = role
    named = tuple(roles.get(i, "spatial") for i in range(len(shape)))
    size = _totals(shape, named)
    c_in, c_out = _channels(size, shape, blocks=blocks, block_axis=block_axis)
    return Fans(c_in * size["spatial"], c_out * size["spatial"], c_in, c_out)


def _is_module(thing: Any) -> bool:
    return hasattr(thing, "named_parameters") and hasattr(thing, "named_modules")


def _of_module(module: Any, parameter: str | None) -> Fans:
    """Fans of a torch module, known by the names of its classes; torch itself is not imported."""
    names = [c.__name__ for c in type(module).__mro__ if c.__module__.split(".")[0] in ("torch", "transformers")]
    kind = next((name for name in names if name in _MODULES or name in RECURRENT), None)
    if kind is None:
        raise ArgumentError(
            f"fans of {type(module).__name__}",
            cause="it is no module whose weight layout is known",
            remedy="give the shape of its weight and the layout",
        )
    rule = _recurrent if kind in RECURRENT else _MODULES[kind]
    try:
        return rule(module, parameter)
    except AttributeError as error:
        raise ArgumentError(
            f"{type(module).__name__} has no weight {parameter or ''}".rstrip(),
            cause=str(error),
            remedy="name one it has",
        ) from None


def _weight(module: Any, parameter: str | None, default: str = "weight") -> tuple[int, ...]:
    weight = operator.attrgetter(parameter or default)(module)
    try:
        return tuple(weight.shape)
    except (AttributeError, RuntimeError):  # a lazy module has not seen an input; a parameter may be None
        raise ArgumentError(
            f"{type(module).__name__} has no {parameter or default} yet",
            cause="it is a lazy module that has not seen an input, or was built without it",
            remedy="run the module once, or name another parameter",
        ) from None


def _convolution(module: Any, parameter: str | None) -> Fans:
    return fans(
        _weight(module, parameter),
        layout=(TORCH_TRANSPOSED if module.transposed else TORCH)[len(module.weight.shape)],
        groups=module.groups,
        transposed=module.transposed,
        stride=module.stride,
        dilation=module.dilation,
        padding=module.padding,
        output_padding=module.output_padding,
        padding_mode=module.padding_mode,
    )


def _bilinear(module: Any, parameter: str | None) -> Fans:
    """The products of both inputs are what a bilinear weight takes in."""
    return fans(_weight(module, parameter), in_axes=(1, 2), out_axes=0)


def _attention(module: Any, parameter: str | None) -> Fans:
    packed = getattr(module, "in_proj_weight", None) is not None
    name = parameter or ("in_proj_weight" if packed else "q_proj_weight")
    return fans(_weight(module, name), layout="OI", blocks=3 if name == "in_proj_weight" else 1)


def _recurrent(module: Any, parameter: str | None) -> Fans:
    name = parameter or ("weight_ih" if hasattr(module, "weight_ih") else "weight_ih_l0")
    shape = _weight(module, name)
    return fans(shape, layout="OI", blocks=1 if name.startswith("weight_hr") else shape[0] // module.hidden_size)


_MODULES = {
    "Linear": lambda m, p: fans(_weight(m, p), layout="OI"),
    "Conv1D": lambda m, p: fans(_weight(m, p), layout="IO"),
    "Embedding": lambda m, p: fans(_weight(m, p), layout="embedding"),
    "EmbeddingBag": lambda m, p: fans(_weight(m, p), layout="embedding"),
    "Bilinear": _bilinear,
    "MultiheadAttention": _attention,
    **{f"Conv{transposed}{d}d": _convolution for transposed in ("", "Transpose") for d in (1, 2, 3)},
}
