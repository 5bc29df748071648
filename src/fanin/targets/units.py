"""Shrinking by units: every field of a configuration is scaled by what it counts, so that products stay equal.

Counts of heads scale by h, sizes of a head by s, widths by h s: whatever held between them (hidden = heads x size,
expand x hidden = Mamba's heads x their size) holds after. Which field counts what is read off its name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

HEAD_COUNT = re.compile(r"(?<!^d)(?<!_d)(^|_)heads?$")
HEAD_SIZE = re.compile(r"(head_?dim|head_size|^d_head|_d_head|^dim_head|d_kv|kv_channels|rotary_dim|qk_dim)$|^head_dim")
WIDTH_NAME = re.compile(
    r"(hidden|embedding|embed|emb|intermediate|latents?|proj|ffn|ff|inner|model|rnn|lru|dt|channel)s?_"
    r"(size|dim|width|rank)$|^(d_model|d_inner|d_ff|d_latents|d_embed|n_embd|n_inner|dim|width|lru_width|rank)$"
    r"|(^|_)(hidden_dim|dim_ff|mlp_dim|ffn_dim|lora_rank|intermediate_size|hidden_size)$"
)
LAYERS = re.compile(
    r"(^|_)(n_layers?|num_(\w+_)?layers|[a-z]_layers|layers|depth|num_blocks|num_self_attends_per_block)$"
)
EXPERTS = re.compile(r"(^|_)(n|num)_(routed_|local_|moe_)?experts$")
CHOSEN = re.compile(r"(^|_)(top_?k|moe_k|k_experts|num_(selected_)?experts_per_(tok|token))$")
KEPT = re.compile(r"(conv|feat_extract|vocab|position|image|patch|kernel|window|codebook|adapter_attn)")
DEPTHS = ("depths", "block_sizes")


@dataclass(frozen=True, slots=True)
class Units:
    """What a count of heads (h) and the size of a head (s) are multiplied by."""

    heads: float
    size: float


def units(values: Mapping[str, Any], width: int) -> Units:
    """Factors that bring the hidden size to ``width`` and the heads to 4 (2, 8) where all counts stay whole."""
    hidden = next((values[k] for k in ("hidden_size", "d_model", "n_embd", "dim", "embed_dim") if _many(values, k)), 0)
    heads = [v for k, v in values.items() if HEAD_COUNT.search(k) and _many(values, k) and "key_value" not in k]
    fewer = (n for n in (4, 2, 8) if heads and n <= heads[0] and all(v * n % heads[0] == 0 for v in heads))
    by_heads = next(fewer, heads[0]) / heads[0] if heads else 1.0
    return Units(by_heads, min(1.0, width / hidden) / by_heads if hidden else 1.0)


def scaled(values: Mapping[str, Any], by: Units) -> dict[str, Any]:
    """The fields that change: integers by the unit of their name, lists of depths cut to 2."""
    changed: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, list) and name in DEPTHS:
            changed[name] = [min(2, v) for v in value]
        elif isinstance(value, int) and not isinstance(value, bool) and value > 1 and not KEPT.search(name):
            changed |= _one(name, value, by)
    return changed


def _one(name: str, value: int, by: Units) -> dict[str, int]:
    if HEAD_COUNT.search(name):
        return {name: max(1, round(value * by.heads))}
    if HEAD_SIZE.search(name):
        return {name: _even(value * by.size)}
    if WIDTH_NAME.search(name):
        return {name: max(8, 8 * round(value * by.heads * by.size / 8))}
    for pattern, cap in ((LAYERS, 2), (EXPERTS, 4), (CHOSEN, 2)):
        if pattern.search(name):
            return {name: min(value, cap)}
    return {}


def _even(value: float) -> int:
    """Rotary positions turn pairs: sizes stay even."""
    return max(2, 2 * round(value / 2))


def _many(values: Mapping[str, Any], name: str) -> bool:
    value = values.get(name)
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def filled(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that a default configuration leaves open although its class reads them, by their usual meaning."""
    heads, hidden = values.get("num_attention_heads"), values.get("hidden_size")
    usual = {
        "num_key_value_heads": heads,
        "head_dim": hidden // heads if isinstance(heads, int) and isinstance(hidden, int) and heads else None,
        "n_routed_experts": 4,
        "num_experts": 4,
        "num_local_experts": 4,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "routed_scaling_factor": 1.0,
        "clip_qkv": 8.0,
        "vocab_size": 1000,
        "pad_token_id": 1,
        "prediction_length": 24,
        "layer_types": ["full_attention"] * values["num_hidden_layers"] if "num_hidden_layers" in values else None,
    }
    return {k: v for k, v in usual.items() if k in values and values[k] is None and v is not None}
