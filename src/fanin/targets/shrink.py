"""``--small``: the same architecture with fewer layers, narrower, with a small vocabulary.

A table says which fields of a configuration count what; names are those of transformers. A shrunk configuration is
tried on the meta device; where it does not run, the next level shrinks less.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

from fanin.errors import TargetError

CAPS = {  # a field is cut to at most this
    2: "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers num_decoder_layers "
    "num_encoder_layers num_key_value_heads num_experts_per_tok moe_top_k top_k num_kv_heads n_group topk_group "
    "n_shared_experts first_k_dense_replace",
    4: "num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads "
    "num_local_experts num_experts n_routed_experts moe_num_experts",
    256: "max_position_embeddings n_positions max_source_positions max_target_positions",
    1000: "vocab_size",
}
WIDTHS = {"hidden_size", "n_embd", "d_model", "dim", "embed_dim", "emb_dim"}
DERIVED = ("stage_names", "out_features", "out_indices")  # follow from the depths; stale ones are refused
INNER = set(  # widths that follow the hidden size
    "intermediate_size n_inner d_ff encoder_ffn_dim decoder_ffn_dim ffn_dim moe_intermediate_size hidden_dim "  # noqa: SIM905
    "shared_expert_intermediate_size embedding_size pooler_output_size projection_dim word_embed_proj_dim".split()
)
DEPTH = set(CAPS[2].split()[:8])
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads")
WIDTH = 64
ALL, NO_HEADS, KEEP_HEAD_SIZE, ONLY_DEPTH = range(4)  # how much is shrunk
_CAP = {name: cap for cap, names in CAPS.items() for name in names.split()}


def shrink(config: Any, build: Callable[[Any], Any], *, keep: Mapping[str, Any]) -> tuple[Any, str]:
    """A smaller configuration that can be built.

    Args:
        config: a transformers configuration.
        build: builds it on the meta device; raises where it cannot be built.
        keep: fields the user has set; they stay.
    """
    for runs, level in product((True, False), (ALL, NO_HEADS, KEEP_HEAD_SIZE, ONLY_DEPTH)):
        try:
            smaller = _shrunk(config, level, keep)
            _try(build(smaller), smaller, runs)
        except Exception:  # whatever the model class raises: the next, more careful try
            continue
        return smaller, f"--small: {_difference(config.to_dict(), smaller.to_dict())}"
    raise TargetError(
        f"--small cannot shrink {config.model_type}", remedy="choose the fields yourself: --set num_hidden_layers=2"
    )


def _try(model: Any, config: Any, runs: bool) -> None:
    """Run the shrunk model on the meta device, where that costs nothing; not every model can run there."""
    import torch

    from fanin.targets.batches import default_batch

    batch, _ = default_batch(model, config, meta=True)
    if runs and batch is not None:
        with torch.no_grad():
            model(**batch)


def _shrunk(config: Any, level: int, keep: Mapping[str, Any]) -> Any:
    values = {k: v for k, v in config.to_dict().items() if k not in DERIVED}
    changed: dict[str, Any] = {k: v for k, v in _changes(values, level).items() if k not in keep}
    for name, part in vars(config).items():
        if hasattr(part, "to_dict") and hasattr(part, "model_type"):
            inner = {key.partition(".")[2]: 0 for key in keep if key.startswith(name + ".")}
            changed[name] = {
                **part.to_dict(),
                **_changes(part.to_dict(), level),
                **{k: part.to_dict()[k] for k in inner},
            }
    return type(config)(**{**values, **changed})


def _changes(values: Mapping[str, Any], level: int) -> dict[str, Any]:
    names = DEPTH if level == ONLY_DEPTH else _CAP
    changes: dict[str, Any] = {k: min(v, _CAP[k]) for k, v in values.items() if k in names and _count(v)}
    changes |= _shorter_lists(values, changes)
    if level == ONLY_DEPTH:
        return changes
    changes |= _widths(values, changes, level)
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
    widths |= {k: max(8, round(v * new / old)) for k, v in values.items() if k in INNER and _count(v)}
    if heads and level == ALL:
        widths |= {k: max(8, new // heads[1]) for k in ("head_dim", "d_kv") if _count(values.get(k))}
    return widths


def _shorter_lists(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Lists with one item a layer, such as layer_types, are cut to the new depth."""
    depth = next(((values[k], changes[k]) for k in changes if k in DEPTH), None)
    if depth is None or depth[0] == depth[1]:
        return {}
    return {
        k: v[: depth[1]]
        for k, v in values.items()
        if isinstance(v, list) and len(v) == depth[0] and k != "hidden_sizes"
    }


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
