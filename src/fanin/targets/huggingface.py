"""``hf:<model_type>`` and ``hf:path/to/config.json``: a transformers model from its configuration, random weights.

``hf:bert:BertForMaskedLM`` names the class to build. Without it, a ``config.json`` builds what its "architectures"
says; a model type builds the encoder-decoder with its head, the causal language model, or the bare model; one that
is a part of a larger model, or made for one task alone, the class that takes its configuration.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from fanin.errors import TargetError
from fanin.targets.classes import chosen
from fanin.targets.memory import check_size
from fanin.targets.resolve import Request, Target, parse_overrides, require


def build(request: Request) -> Target:
    """Configuration, class, model, batch."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    transformers = require("transformers", "hf")
    place, class_name = _parts(request.text)
    fields, notes = _fields(place, request)
    config = _configure(fields)
    overrides = _translated(parse_overrides(request.overrides), config, request.text)
    config = _configure(_merged(fields, overrides))
    if request.small:
        from fanin.targets.shrink import shrink

        config, note = shrink(config, lambda c: _shape_only(transformers, c, class_name), keep=overrides)
        notes.append(note)
    without_cache(config)
    if not request.meta:
        check_size(_shape_only(transformers, config, class_name), request)
    model = _model(transformers, config, class_name)
    notes.append(f"built {type(model).__name__} with random weights")
    from fanin.targets.batches import default_batch
    from fanin.targets.losses import default_loss

    batch, described = default_batch(model, config, meta=request.meta)
    loss, target, said = default_loss(model, config, batch)
    return Target(model, batch, request.text, (*notes, *described, *said), loss, target)


def model_types() -> tuple[str, ...]:
    """Every model type that the installed transformers knows; empty without transformers."""
    try:
        from transformers.models.auto import configuration_auto
    except ImportError:
        return ()
    return tuple(vars(configuration_auto)["CONFIG_MAPPING_NAMES"])


def _parts(text: str) -> tuple[str, str | None]:
    place = text.removeprefix("hf:")
    head, _, tail = place.rpartition(":")
    return (head, tail) if head and tail.isidentifier() and tail[:1].isupper() else (place, None)


def _fields(place: str, request: Request) -> tuple[dict[str, Any], list[str]]:
    """What a configuration is made of: the model type, and the file's fields where there is a file."""
    path = Path(place)
    path = path / "config.json" if path.is_dir() else path
    if path.suffix == ".json" or path.is_file():
        return _read(path), []
    if place in model_types():
        return {"model_type": place}, []
    raise _unknown_type(place)


def _read(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise TargetError(
            f"there is no file {path}", remedy="give the path of a config.json from the working directory"
        ) from error
    except (OSError, ValueError) as error:
        raise TargetError(
            f"{path} cannot be read as JSON: {error}", remedy="give the config.json of a transformers model"
        ) from error
    kind = fields.get("model_type") if isinstance(fields, dict) else None
    if kind in model_types():
        return fields
    if kind is None:
        raise TargetError(f"{path} has no field model_type", remedy='add "model_type": "llama" or whichever it is')
    raise _unknown_type(str(kind))


def _unknown_type(kind: str) -> TargetError:
    types = model_types()
    head = kind.rpartition("/")[2].lower()
    near = get_close_matches(head, types, n=3, cutoff=0.6) or [t for t in types if head.startswith(t + "-")][:3]
    cause = (
        "names on a model hub are not downloaded"
        if "/" in kind
        else f"the installed transformers knows {len(types)} types"
    )
    remedy = (
        f"did you mean {', '.join(f'hf:{t}' for t in near)}?"
        if near
        else "give a model type or the path of a config.json"
    )
    return TargetError(f"hf has no model type {kind!r}", cause=cause, remedy=remedy)


def _configure(fields: Mapping[str, Any]) -> Any:
    from transformers import AutoConfig

    rest = {key: value for key, value in fields.items() if key not in ("model_type", "transformers_version")}
    try:
        return AutoConfig.for_model(fields["model_type"], **rest)
    except Exception as error:
        raise TargetError(
            f"the {fields['model_type']} configuration refuses these values: {_first_line(error)}",
            remedy="check the values given with --set or in config.json",
        ) from error


def _translated(overrides: Mapping[str, Any], config: Any, text: str) -> dict[str, Any]:
    """Overrides under the configuration's own names; an unknown name is an error, not a new field."""
    own = {}
    for key, value in overrides.items():
        holder: Any = config
        path = key.split(".")
        for part in path[:-1]:
            holder = getattr(holder, part, None)
        aliases = getattr(holder, "attribute_map", {})
        names = {**holder.to_dict(), **aliases} if hasattr(holder, "to_dict") else {}
        if path[-1] not in names:
            near = get_close_matches(path[-1], list(names), n=2, cutoff=0.5)
            remedy = f"did you mean {' or '.join('.'.join([*path[:-1], n]) for n in near)}?" if near else None
            raise TargetError(f"the configuration of {text} has no field {key!r}", remedy=remedy)
        own[".".join([*path[:-1], aliases.get(path[-1], path[-1])])] = value
    return own


def _merged(fields: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(fields)
    for key, value in overrides.items():
        head, dot, rest = key.partition(".")
        merged[head] = _merged(merged.get(head) or {}, {rest: value}) if dot else value
    return merged


def without_cache(config: Any) -> None:
    """Turn caches off, in the configuration and its parts, in place."""
    for part in (config, *(v for v in vars(config).values() if hasattr(v, "use_cache"))):
        if getattr(part, "use_cache", False):
            part.use_cache = False  # keys and values kept for generation are not part of training


def _shape_only(transformers: Any, config: Any, class_name: str | None) -> Any:
    import torch

    with torch.device("meta"):
        return _model(transformers, config, class_name)


def _model(transformers: Any, config: Any, class_name: str | None) -> Any:
    import torch

    cls = chosen(transformers, config, class_name)
    make = getattr(cls, "from_config", None) or cls._from_config
    try:
        return make(config, dtype=torch.float32)
    except Exception as error:
        raise TargetError(
            f"{config.model_type} cannot be built: {type(error).__name__}: {_first_line(error)}",
            remedy="check the configuration; widths must divide by heads and groups",
        ) from error


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(error).__name__
