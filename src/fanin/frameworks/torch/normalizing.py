"""Rows of the table that divide by a statistic: layer, root mean square, batch, instance and group normalization."""

from __future__ import annotations

import torch

from fanin.frameworks.torch.arguments import Arguments, Built, One, Row
from fanin.graph import Kind


def _layer_norm(a: Arguments) -> One:
    n, dims = len(a["normalized_shape"]), len(a.size("input"))
    axes = tuple(range(dims - n, dims))
    eps = float(a["eps"] if a.get("eps") is not None else torch.finfo(torch.float32).eps)
    return Kind.NORM, {"weight": a.at("weight"), "bias": a.at("bias"), "axes": axes, "eps": eps, "feature_axes": axes}


def _rms_norm(a: Arguments) -> Built:
    kind, attrs = _layer_norm(a)
    return kind, {**attrs, "bias": None, "centred": False}


def _batch_norm(a: Arguments) -> One:
    dims = len(a.size("input"))
    stats = bool(a.get("training", a.get("use_input_stats", True)))
    return Kind.NORM, {
        "weight": a.at("weight"),
        "bias": a.at("bias"),
        "running_mean": a.at("running_mean"),
        "running_var": a.at("running_var"),
        "axes": (0, *range(2, dims)),
        "eps": float(a["eps"]),
        "batch_stats": stats,
        "feature_axes": (1,),
        "batch": True,
    }


def _instance_norm(a: Arguments) -> Built:
    kind, attrs = _batch_norm(a)
    return kind, {**attrs, "axes": tuple(range(2, len(a.size("input")))), "batch": False}


def _group_norm(a: Arguments) -> Built:
    axes = tuple(range(1, len(a.size("input"))))
    return Kind.NORM, {
        "weight": a.at("weight"),
        "bias": a.at("bias"),
        "axes": axes,
        "eps": float(a["eps"]),
        "groups": int(a["num_groups"]),
        "feature_axes": (1,),
    }


NORMALIZING: dict[str, Row] = {
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "batch_norm": _batch_norm,
    "instance_norm": _instance_norm,
    "group_norm": _group_norm,
}
"""They differ in the axes that share a statistic."""
