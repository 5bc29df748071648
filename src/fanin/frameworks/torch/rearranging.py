"""Copies and rearrangements as chains: repeats, shuffles, patches, windows."""

from __future__ import annotations

import math
from functools import reduce
from itertools import pairwise

import numpy as np

from fanin.frameworks.torch.arguments import Arguments, Row
from fanin.frameworks.torch.chain import Chain, resized


def repeat(a: Arguments) -> Chain:
    """Whole copies side by side along every axis."""
    chain = Chain(a)
    times = [int(n) for n in (a.get("repeats") or a.get("dims"))]
    size = a.size("self")
    rank = max(len(times), len(size))
    times, size = [1] * (rank - len(times)) + times, (1,) * (rank - len(size)) + tuple(size)
    fine = chain.reshape(0, tuple(m for n in size for m in (1, n)))
    wide = chain.expand(fine, tuple(m for k, n in zip(times, size, strict=True) for m in (k, n)))
    chain.reshape(wide, a.shape)
    return chain


def repeat_interleave(a: Arguments) -> Chain:
    """Every element several times in a row."""
    chain, size, times = Chain(a), a.size("self"), a["repeats"]
    if not isinstance(times, int):
        raise TypeError("a tensor of repeats")
    x = 0
    if a.get("dim") is None:
        size = (math.prod(size),)
        x = chain.reshape(0, size)
    doubled(chain, x, int(a.get("dim") or 0) % len(size), times)
    return chain


def doubled(chain: Chain, x: int, axis: int, times: int) -> int:
    size = chain.shapes[x]
    fine = chain.reshape(x, (*size[: axis + 1], 1, *size[axis + 1 :]))
    wide = chain.expand(fine, (*size[: axis + 1], times, *size[axis + 1 :]))
    return chain.reshape(wide, resized(size, axis, size[axis] * times))


def pixel_shuffle(a: Arguments) -> Chain:
    """(C r r, H, W) -> (C, H r, W r)."""
    chain, r = Chain(a), int(a["upscale_factor"])
    *lead, c, h, w = a.size("self")
    fine, k = chain.reshape(0, (*lead, c // r**2, r, r, h, w)), len(lead)
    moved = chain.permute(fine, (*range(k), k, k + 3, k + 1, k + 4, k + 2))
    chain.reshape(moved, a.shape)
    return chain


def pixel_unshuffle(a: Arguments) -> Chain:
    """(C, H r, W r) -> (C r r, H, W)."""
    chain, r = Chain(a), int(a["downscale_factor"])
    *lead, c, h, w = a.size("self")
    fine, k = chain.reshape(0, (*lead, c, h // r, r, w // r, r)), len(lead)
    moved = chain.permute(fine, (*range(k), k, k + 2, k + 4, k + 1, k + 3))
    chain.reshape(moved, a.shape)
    return chain


def im2col(a: Arguments) -> Chain:
    """Patches as columns: (B, C, H, W) -> (B, C kh kw, places)."""
    chain, x = Chain(a), 0
    b, c, *_ = a.size("self")
    kernel, dilation = [int(n) for n in a["kernel_size"]], [int(n) for n in a["dilation"]]
    padding, stride = [int(n) for n in a["padding"]], [int(n) for n in a["stride"]]
    if any(padding):
        x = chain.pad(x, [(0, 0), (0, 0), *[(p, p) for p in padding]])
    outs = []
    for i in range(2):
        size = chain.shapes[x][2 + i]
        outs.append((size - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1)
        index = np.arange(kernel[i])[:, None] * dilation[i] + np.arange(outs[i]) * stride[i]
        x = chain.gather(x, 2 + i, index.ravel())
    x = chain.reshape(x, (b, c, kernel[0], outs[0], kernel[1], outs[1]))
    x = chain.permute(x, (0, 1, 2, 4, 3, 5))
    chain.reshape(x, (b, c * kernel[0] * kernel[1], outs[0] * outs[1]))
    return chain


def windows(a: Arguments) -> Chain:
    """Tensor.unfold: windows of one axis, their elements along a new last one."""
    chain, size = Chain(a), a.size("self")
    axis = int(a["dimension"]) % len(size)
    width, step = int(a["size"]), int(a["step"])
    count = (size[axis] - width) // step + 1
    index = np.arange(count)[:, None] * step + np.arange(width)
    x = chain.gather(0, axis, index.ravel())
    x = chain.reshape(x, (*size[:axis], count, width, *size[axis + 1 :]))
    order = [i for i in range(len(size) + 1) if i != axis + 1]
    chain.permute(x, (*order, axis + 1))
    return chain


def strided(a: Arguments) -> Chain:
    """Tensor.as_strided of dense storage, such as overlapping windows: axes whose steps overlap are read off one axis.

    Ordered by falling strides, an axis that steps over all that the axes after it reach starts an axis of the storage;
    Unmodelled where the storage does not fall into such axes.
    """
    source, offset = a.strides("self"), a.get("storage_offset")
    size, stride = [int(n) for n in a["size"]], [int(n) for n in a["stride"]]
    order = sorted(range(len(size)), key=lambda i: -stride[i])
    axes = _storage_axes([size[i] for i in order], [stride[i] for i in order])
    numel = math.prod(a.size("self"))
    dense = sorted(range(len(source)), key=lambda i: (-source[i], i))
    if offset or not axes or axes[-1][1] != 1 or not _is_dense(a.size("self"), source, dense):
        raise ValueError("strides that are not axes of dense storage")
    chain, units = Chain(a), [numel, *(unit for _, unit in axes)]
    lengths = [m // n for m, n in pairwise(units)]
    if math.prod(lengths) != numel or any(int(i.max()) >= n for (i, _), n in zip(axes, lengths, strict=True)):
        raise ValueError("strides that are not axes of dense storage")
    x = chain.reshape(chain.permute(0, dense), tuple(lengths))
    for k, (index, _) in enumerate(axes):
        if not np.array_equal(index, np.arange(lengths[k])):
            x = chain.gather(x, k, index)
    x = chain.reshape(x, tuple(size[i] for i in order))
    chain.permute(x, np.argsort(order).tolist())
    return chain


def _storage_axes(size: list[int], stride: list[int]) -> list[tuple[np.ndarray, int]]:
    """Indices into each axis of the storage, and how many elements one step along it is."""
    axes: list[tuple[np.ndarray, int]] = []
    run: list[int] = []
    for k in range(len(size)):
        run.append(k)
        reach = 1 + sum((size[j] - 1) * stride[j] for j in range(k + 1, len(size)))
        if reach <= stride[k]:
            unit = stride[k]
            if any(stride[j] % unit for j in run):
                return []
            axes.append((reduce(np.add.outer, [np.arange(size[j]) * (stride[j] // unit) for j in run]).ravel(), unit))
            run = []
    return [] if run else axes


def _is_dense(size: tuple[int, ...], stride: tuple[int, ...], order: list[int]) -> bool:
    """Whether the storage holds every element once, the axes in this order."""
    expected = 1
    for i in reversed(order):
        if size[i] != 1 and stride[i] != expected:
            return False
        expected *= size[i]
    return True


REARRANGING: dict[str, Row] = {
    **dict.fromkeys(("repeat", "tile"), repeat),
    "repeat_interleave": repeat_interleave,
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    "im2col": im2col,
    "unfold": windows,
    "as_strided": strided,
}
"""Every element comes from one place."""
