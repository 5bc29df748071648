"""``--small``: the same architecture with fewer layers, narrower, with a small vocabulary.

A table says which fields of a configuration count what; names are those of transformers. A shrunk configuration is
tried on the meta device; where it does not run, the next level shrinks less.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from itertools import product
from math import ceil
from typing import Any

from fanin.errors import TargetError
from fanin.targets.units import Units, filled, scaled, units

CAPS = {  # a field is cut to at most this
    2: "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers num_decoder_layers "
    "num_encoder_layers num_key_value_heads num_experts_per_tok moe_top_k moe_k top_k num_kv_heads n_group topk_group "
    "n_shared_experts first_k_dense_replace n_groups mamba_n_groups",
    4: "num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads "
    "num_local_experts num_experts n_routed_experts moe_num_experts",
    256: "max_position_embeddings n_positions max_source_positions max_target_positions",
    1000: "vocab_size vocab_size_per_layer_input",
}
WIDTHS = {"hidden_size", "n_embd", "d_model", "dim", "embed_dim", "emb_dim"}
DERIVED = ("stage_names", "out_features", "out_indices")  # follow from the depths; stale ones are refused
INNER = set(  # widths that follow the hidden size
    "intermediate_size n_inner d_ff encoder_ffn_dim decoder_ffn_dim ffn_dim moe_intermediate_size hidden_dim "  # noqa: SIM905
    "shared_expert_intermediate_size embedding_size pooler_output_size projection_dim word_embed_proj_dim".split()
)
DEPTH = set(CAPS[2].split()[:8])
SHARING = "num_kv_shared_layers"
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads")
WIDTH = 64
LARGE = 100_000_000  # parameters: a shrunk model above is shrunk by the next rule, where one does better
ON_CPU = 30_000_000  # up to so many parameters a model that cannot run on the meta device is run for real
ALL, NO_HEADS, KEEP_HEAD_SIZE, BY_UNITS, ONLY_DEPTH = range(5)  # how much is shrunk
_CAP = {name: cap for cap, names in CAPS.items() for name in names.split()}


def shrink(config: Any, build: Callable[[Any], Any], *, keep: Mapping[str, Any]) -> tuple[Any, str]:
    """A smaller configuration that can be built.

    Args:
        config: a transformers configuration.
        build: builds it on the meta device; raises where it cannot be built.
        keep: fields the user has set; they stay.
    """
    large = None
    for runs, open_too, level in product((True, False), (False, True), range(ONLY_DEPTH + 1)):
        try:
            smaller = _shrunk(config, level, keep, open_too)
            count = _try(build, smaller, runs)
        except Exception:  # whatever the model class raises: the next, more careful try
            continue
        if count <= LARGE:
            return smaller, f"--small: {_difference(config.to_dict(), smaller.to_dict())}"
        large = large if large and large[0] <= count else (count, smaller)
    if large:
        return large[1], f"--small: {_difference(config.to_dict(), large[1].to_dict())}"
    raise TargetError(
        f"--small cannot shrink {config.model_type}", remedy="choose the fields yourself: --set num_hidden_layers=2"
    )


def _try(build: Callable[[Any], Any], config: Any, runs: bool) -> int:
    """Count the shrunk model's parameters; with ``runs``, run it on the meta device, where that costs nothing.

    What decides by values (experts that are chosen) cannot run there: a small model then runs for real.
    """
    import torch

    from fanin.targets.batches import default_batch
    from fanin.targets.huggingface import without_cache

    without_cache(config)
    model = build(config)
    count = sum(p.numel() for p in model.parameters())
    if not runs:
        return count
    try:
        _run(model, default_batch(model, config, meta=True)[0])
    except Exception:
        if count > ON_CPU:
            raise
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            model = type(model)(config)
        _run(model, default_batch(model, config, meta=False)[0])
    return count


def _run(model: Any, batch: Mapping[str, Any] | None) -> None:
    import torch

    if batch is not None:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            model(**batch)


def _shrunk(config: Any, level: int, keep: Mapping[str, Any], open_too: bool) -> Any:
    """The configuration shrunk to ``level``; with ``open_too``, fields it leaves open get their usual values."""
    whole = config.to_dict()
    values = {k: v for k, v in whole.items() if k not in DERIVED}
    values |= filled(values) if open_too else {}
    by = units(values, WIDTH)
    changed: dict[str, Any] = {k: v for k, v in _changes(values, level, by).items() if k not in keep}
    for name, part in vars(config).items():
        if hasattr(part, "to_dict") and hasattr(part, "model_type"):
            own = part.to_dict()
            own |= filled(own) | _inherited(own, whole) if open_too else {}
            inner = {key.partition(".")[2]: 0 for key in keep if key.startswith(name + ".")}
            own_units = units(own, WIDTH) if "hidden_size" in own else by
            changed[name] = {**own, **_changes(own, level, own_units), **{k: part.to_dict()[k] for k in inner}}
    if level == BY_UNITS and is_dataclass(config):  # what a configuration works out itself, it works out anew
        own_fields = {f.name for f in fields(config)}
        values, changed = ({k: v for k, v in d.items() if k in own_fields} for d in (values, changed))
    return type(config)(**{**values, **changed})


def _inherited(own: Mapping[str, Any], whole: Mapping[str, Any]) -> dict[str, Any]:
    """A part without an angle of its own turns positions as the whole does."""
    rope = whole.get("rope_parameters") or {}
    return {k: rope[k] for k in ("rope_theta",) if k in rope and k not in own}


def _changes(values: Mapping[str, Any], level: int, by: Units) -> dict[str, Any]:
    names = DEPTH if level == ONLY_DEPTH else _CAP
    changes: dict[str, Any] = {k: min(v, _CAP[k]) for k, v in values.items() if k in names and _count(v)}
    changes |= _shorter_lists(values, changes)
    depth = next((changes[k] for k in changes if k in DEPTH), None)
    if depth and values.get(SHARING, 0) >= depth:  # layers that share another's keys: of so few none
        changes[SHARING] = 0
    if level == ONLY_DEPTH:
        return changes
    changes |= scaled(values, by) if level == BY_UNITS else _widths(values, changes, level)
    changes |= {
        k: [max(16, c // 8) for c in v] for k, v in values.items() if k == "hidden_sizes" and isinstance(v, list)
    }
    changes |= {k: [min(2, d) for d in v] for k, v in values.items() if k == "depths" and isinstance(v, list)}
    vocabulary = changes.get("vocab_size")
    if vocabulary:
        changes |= {k: v % vocabulary for k, v in values.items() if k.endswith("_token_id") and _count(v)}
    return changes


def _widths(values: Mapping[str, Any], changes: Mapping[str, Any], level: int) -> dict[str, Any]:
    """The hidden size and what follows it: inner widths in proportion, the size of a head."""
    old = next((values[k] for k in values if k in WIDTHS and _count(values[k])), None)
    heads = next(((values[k], changes[k]) for k in HEADS if k in changes), None)
    if not old:
        return {}
    new = heads[1] * (old // heads[0]) if heads and level == KEEP_HEAD_SIZE else min(old, WIDTH)
    widths = {k: new for k in values if k in WIDTHS and _count(values[k])}
    if heads:  # one key head a query head stays so
        widths |= {k: heads[1] for k in ("num_key_value_heads", "num_kv_heads") if values.get(k) == heads[0]}
    inner = {k: v * new / old for k, v in values.items() if k in INNER and _count(v)}
    widths |= {k: max(8, 4 * ceil(v / 4)) for k, v in inner.items()}  # grouped products want strides of 16 bytes
    if heads and level == ALL:
        widths |= {k: max(8, new // heads[1]) for k in ("head_dim", "d_kv") if _count(values.get(k))}
    return widths


def _shorter_lists(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Lists with one item a layer, such as layer_types, are cut to the new depth: one layer of every kind first."""
    depth = next(((values[k], changes[k]) for k in changes if k in DEPTH), None)
    if depth is None or depth[0] == depth[1]:
        return {}
    lists = {k: v for k, v in values.items() if isinstance(v, list) and len(v) == depth[0] and k != "hidden_sizes"}
    first = {str([v[i] for v in lists.values()]): i for i in reversed(range(depth[0]))}
    chosen = sorted(first.values())[: depth[1]]
    chosen = sorted({*chosen, *[i for i in range(depth[0]) if i not in chosen][: depth[1] - len(chosen)]})
    return {k: [v[i] for i in chosen] for k, v in lists.items()}


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    return ", ".join(_changed_fields(old, new)) or "nothing to shrink"


def _changed_fields(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    parts = []
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, dict) and isinstance(before, dict) and key.endswith("_config"):
            parts += _changed_fields(before, value, f"{key}.")
        elif before != value and (_count(value) or key in ("hidden_sizes", "depths")) and not key.endswith("_id"):
            parts.append(f"{prefix}{key} {before} -> {value}")
    return parts
