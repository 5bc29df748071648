"""Interpolation as chains: weighted sums along one axis after another."""

from __future__ import annotations

import numpy as np
import torch

from fanin.frameworks.torch.arguments import Arguments, Row
from fanin.frameworks.torch.chain import Chain, Shape
from fanin.frameworks.torch.rearranging import doubled


def nearest(a: Arguments) -> Chain:
    """Every place takes the nearest one: copies in a row where the factor is whole, else a gather."""
    chain, x = Chain(a), 0
    size = a.size("self") if "self" in a.names else a.size("input")
    for axis in range(2, len(size)):
        n, m = size[axis], a.shape[axis]
        if m % n == 0:
            x = doubled(chain, x, axis, m // n) if m > n else x
        else:
            x = chain.gather(x, axis, np.minimum((np.arange(m) * (n / m)).astype(int), n - 1))
    return chain if chain.links else _unchanged(chain, size)


def _unchanged(chain: Chain, size: Shape) -> Chain:
    chain.reshape(0, size)
    return chain


def interpolation(mode: str, antialias: bool = False) -> Row:
    """Interpolation, linear in its input and one axis after another; the weights are its own kernel's."""

    def interpolated(a: Arguments) -> Chain:
        size = a.size("self") if "self" in a.names else a.size("input")
        corners = bool(a.get("align_corners"))
        axes = [axis for axis in range(2, len(size)) if a.shape[axis] != size[axis]]
        chain = Chain(a)
        if not axes:
            return _unchanged(chain, size)
        chain.weigh(0, {axis: _between(size[axis], a.shape[axis], mode, corners, antialias) for axis in axes})
        return chain

    return interpolated


def _between(n: int, m: int, mode: str, corners: bool, antialias: bool) -> np.ndarray:
    """Weights (m, n) of interpolation along one axis: what each unit vector becomes."""
    units = torch.eye(n, dtype=torch.float64)[:, None]
    if mode != "cubic" and not antialias:
        out = torch.nn.functional.interpolate(units, size=m, mode=mode, align_corners=corners)
        return out.reshape(n, m).T.numpy()
    units = units[..., None].repeat(1, 1, 1, 2)  # in the plane alone; of one column PyTorch copies the nearest
    of = {"mode": f"bi{mode}", "align_corners": corners, "antialias": antialias}
    return torch.nn.functional.interpolate(units, size=(m, 2), **of)[..., 0].reshape(n, m).T.numpy()


INTERPOLATING: dict[str, Row] = {
    **{f"upsample_nearest{d}d": nearest for d in (1, 2, 3)},
    **dict.fromkeys(("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d"), interpolation("linear")),
    "upsample_bicubic2d": interpolation("cubic"),
    "_upsample_bilinear2d_aa": interpolation("linear", antialias=True),
    "_upsample_bicubic2d_aa": interpolation("cubic", antialias=True),
}
"""Linear in their input."""
