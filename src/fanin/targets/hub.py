"""Targets in timm and torchvision: random weights, nothing downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from fanin.errors import TargetError
from fanin.targets.inputs import InputSpec, random_tensor
from fanin.targets.resolve import Request, Target, parse_overrides, require


def build_timm(request: Request) -> Target:
    """``timm:resnet50``."""
    timm = require("timm", "timm")
    name = _known(request, timm.list_models())
    model = _made(request, timm.create_model, name, pretrained=False)
    size = tuple(getattr(model, "default_cfg", {}).get("input_size", (3, 224, 224)))
    return _with_images(request, model, size)


def build_torchvision(request: Request) -> Target:
    """``torchvision:resnet50``."""
    models = require("torchvision", "torchvision").models
    name = _known(request, models.list_models())
    model = _made(request, models.get_model, name, weights=None)
    side = 299 if "inception" in name else 224
    return _with_images(request, model, (3, side, side))


def _known(request: Request, names: Sequence[str]) -> str:
    scheme, _, name = request.text.partition(":")
    if request.small:
        raise TargetError(f"--small cannot shrink {request.text}", remedy=f"choose a smaller model of {scheme}")
    if name in names:
        return name
    near = get_close_matches(name, names, n=3, cutoff=0.5)
    remedy = f"did you mean {', '.join(f'{scheme}:{n}' for n in near)}?" if near else f"see {scheme}'s list of models"
    raise TargetError(f"{scheme} has no model {name!r}", remedy=remedy)


def _made(request: Request, make: Any, name: str, **fixed: Any) -> Any:
    try:
        return make(name, **fixed, **parse_overrides(request.overrides))
    except Exception as error:
        seen = f"{request.text} cannot be built: {type(error).__name__}: {error}"
        raise TargetError(
            seen, remedy="check the names and values given with --set" if request.overrides else None
        ) from error


def _with_images(request: Request, model: Any, size: tuple[int, ...]) -> Target:
    batch = random_tensor(InputSpec("", "float32", (4, *size)), seed=0, meta=request.meta)
    return Target(
        model, batch, request.text, (f"input made up: float32[4,{','.join(map(str, size))}], i.i.d. N(0, 1)",)
    )
