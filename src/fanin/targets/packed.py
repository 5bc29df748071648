"""Images as rows of patches, with the grids that tell them apart: what towers take that read images of any size."""

from __future__ import annotations

from typing import Any

IMAGES, SIDE = 2, 16


def patches(model: Any, config: Any) -> tuple[tuple[int, ...], Any]:
    """Patches of all images end to end, every one laid out as a row of numbers."""
    return (IMAGES * SIDE**2, _numbers(config)), None


def patches_by_image(model: Any, config: Any) -> tuple[tuple[int, ...], Any]:
    """The same, image by image."""
    return (IMAGES, SIDE**2, _numbers(config)), None


def grids(model: Any, config: Any) -> tuple[tuple[int, ...], Any]:
    """Frames, rows and columns of patches of every image."""
    import torch

    return (IMAGES, 3), torch.tensor([[1, SIDE, SIDE]] * IMAGES, device="cpu")


def spatial_shapes(model: Any, config: Any) -> tuple[tuple[int, ...], Any]:
    """Rows and columns alone."""
    import torch

    return (IMAGES, 2), torch.tensor([[SIDE, SIDE]] * IMAGES, device="cpu")


def seen(model: Any, config: Any) -> tuple[tuple[int, ...], Any]:
    """No patch is padding."""
    import torch

    return (IMAGES, SIDE**2), torch.tensor([1], device="cpu")


def _numbers(config: Any) -> int:
    channels = next((getattr(config, n) for n in ("in_channels", "in_chans", "num_channels") if hasattr(config, n)), 3)
    return channels * (getattr(config, "temporal_patch_size", None) or 1) * config.patch_size**2
