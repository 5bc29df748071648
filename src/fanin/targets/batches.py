"""A default batch for a transformers model: token ids uniform over the vocabulary, everything else i.i.d. N(0, 1)."""

from __future__ import annotations

import inspect
from typing import Any

from fanin.errors import TargetError
from fanin.targets import packed, series

SEQUENCES, TOKENS, IMAGES, REGIONS = 2, 64, 4, 16


def default_batch(
    model: Any, config: Any, *, meta: bool, seed: int = 0
) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """A mapping of keyword arguments and a note that describes it; (None, ()) where nobody knows what to make."""
    import torch

    names = _input_names(model, config)
    unknown = ("inputs" in names and not hasattr(config, "d_model")) or (
        "hidden_states" in names and "grid_thw" not in names  # of whatever stands before
    )
    if unknown or not all(name in _MAKERS for name in names):
        return None, ()
    generator = torch.Generator().manual_seed(seed)
    batch = {}
    for name in names:
        shape, allowed = _MAKERS[name](model, config)
        if "input_ids" in names and name.startswith("pixel_values"):  # as many images as texts
            shape = (SEQUENCES, *shape[1:])
        batch[name] = _tensor(shape, allowed, generator, meta)
    described = ", ".join(f"{n}: {_dtype(t)}{list(t.shape)}" for n, t in batch.items())
    kinds = {"ids uniform over the vocabulary" if "ids" in name else "i.i.d. N(0, 1)" for name in batch}
    return batch, (f"input made up: {described}; {', '.join(sorted(kinds))}",)


def _input_names(model: Any, config: Any) -> list[str]:
    takes = inspect.signature(model.forward).parameters
    main = getattr(model, "main_input_name", "input_ids")
    names = [main if main in takes else next((n for n in _MAKERS if n in takes), main)]
    if "input_ids" in takes and (other := _second_tower(config, takes)):
        names = ["input_ids", other]
    if getattr(config, "is_encoder_decoder", False) and "decoder_input_ids" in takes:
        names.append("decoder_input_ids")
    names += [n for n in _BESIDE if n in takes and n not in names]
    names += [n for n in _asked_for(names, config, takes) if n not in names]
    if hasattr(model, "set_default_language") and getattr(config, "languages", None):
        model.set_default_language(config.languages[0])
    return names


def _asked_for(names: list[str], config: Any, takes: Any) -> list[str]:
    """What the model cannot do without beside its main input, although it may have a default."""
    found = [n for n, p in takes.items() if n in _MAKERS and p.default is p.empty]
    found += ["bbox"] if "bbox" in takes and hasattr(config, "dim_bbox") else []
    if "past_time_features" in found:
        found += [n for n in ("future_values", "future_time_features") if n in takes]
    if "pixel_values" in names and "spatial_shapes" in takes:
        found += ["pixel_attention_mask", "spatial_shapes"]
    return list(dict.fromkeys(found))


def _second_tower(config: Any, takes: Any) -> str | None:
    """What the tower beside the text takes in models with two, such as CLIP; None where text alone is enough."""
    if any("image_token" in name or "audio_token" in name for name in vars(config)):
        return None  # images are laid among the tokens: without such tokens there are none
    if "pixel_values" in takes and all(
        hasattr(config, n) for n in ("vocab_size", "image_size", "modality_type_vocab_size")
    ):
        return "pixel_values"  # one tower reads both
    for part, name in (("vision_config", "pixel_values"), ("audio_config", "input_features")):
        two = hasattr(config, "projection_dim") or (hasattr(config, "text_config") and hasattr(config, part))
        if name in takes and two:
            return name
    return None


def _ids(model: Any, config: Any) -> tuple[tuple[int, ...], Any]:
    import torch

    text = _part(config, "text_config")
    vocabulary = getattr(text, "vocab_size", None) or getattr(text, "num_hash_buckets", None)  # or hashed code points
    if not isinstance(vocabulary, int):
        raise TargetError(
            f"{config.model_type} names no vocab_size", remedy='say what it takes: --input "input_ids:int64[2,64]"'
        )
    special = {
        v
        for part in (config, text)
        for k, v in vars(part).items()
        if k.endswith(("_token_id", "_token_index")) and isinstance(v, int)
    }
    keep = torch.ones(vocabulary, dtype=torch.bool, device="cpu")
    keep[[i for i in special if 0 <= i < vocabulary]] = False
    ids = keep.nonzero().flatten() if bool(keep.any()) else torch.arange(vocabulary, device="cpu")
    longest = getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None) or TOKENS
    books = (config.num_codebooks,) if hasattr(config, "num_codebooks") and hasattr(config, "audio_channels") else ()
    return (SEQUENCES, *books, min(TOKENS, max(2, longest - 4))), ids


def _pixels(model: Any, config: Any) -> tuple[tuple[int, ...], Any]:
    vision = _part(config, "vision_config")
    takes = inspect.signature(model.forward).parameters
    if "spatial_shapes" in takes or "grid_thw" in takes:
        return (packed.patches_by_image if "spatial_shapes" in takes else packed.patches)(model, vision)
    size = getattr(vision, "image_size", None) or getattr(vision, "crop_size", None) or 224
    sides = tuple(size) if isinstance(size, list | tuple) else (size, size)
    channels = getattr(vision, "num_channels", None) or getattr(vision, "in_channels", None) or 3
    frames = getattr(vision, "num_frames", None)
    if hasattr(vision, "frames_per_clip"):  # up to 64, of which two steps are enough
        frames = 2 * vision.tubelet_size
    return ((2, frames, channels, *sides) if frames else (IMAGES, channels, *sides)), None


def _waveform(model: Any, config: Any) -> tuple[tuple[int, ...], Any]:
    bins = getattr(config, "num_mel_bins", None)
    if hasattr(config, "codebook_size") and not bins:  # codecs take channels, too
        return (SEQUENCES, getattr(config, "audio_channels", 1), 8000), None
    return ((SEQUENCES, config.max_length, bins) if bins and hasattr(config, "max_length") else (SEQUENCES, 8000)), None


def _features(model: Any, config: Any) -> tuple[tuple[int, ...], Any]:
    bins = getattr(config, "num_mel_bins", None) or getattr(config, "input_feat_per_channel", None) or 80
    bins = getattr(config, "feature_projection_input_dim", None) or bins
    if hasattr(config, "spec_size"):  # a spectrogram that is folded into a square
        return (SEQUENCES, 1, config.spec_size**2 // bins, bins), None
    if config.model_type == "whisper":
        return (SEQUENCES, bins, 2 * config.max_source_positions), None  # as many as the decoder's
    return (SEQUENCES, 128, bins), None


def _latent_inputs(model: Any, config: Any) -> tuple[tuple[int, ...], Any]:
    return (SEQUENCES, TOKENS, config.d_model), None


def _regions(model: Any, config: Any) -> tuple[tuple[int, ...], Any]:
    return (SEQUENCES, REGIONS, config.visual_feat_dim), None


def _boxes(model: Any, config: Any) -> tuple[tuple[int, ...], Any]:
    return (SEQUENCES, REGIONS, config.visual_pos_dim), None


def _outlines(model: Any, config: Any) -> tuple[tuple[int, ...], Any]:
    return (*_ids(model, config)[0], config.dim_bbox), None


_MAKERS: dict[str, Any] = {
    "input_ids": _ids,
    "decoder_input_ids": _ids,
    "pixel_values": _pixels,
    "pixel_values_videos": _pixels,
    "input_values": _waveform,
    "input_features": _features,
    "inputs": _latent_inputs,
    "visual_feats": _regions,
    "visual_pos": _boxes,
    "bbox": _outlines,
    "hidden_states": packed.patches,
    "grid_thw": packed.grids,
    "spatial_shapes": packed.spatial_shapes,
    "pixel_attention_mask": packed.seen,
    "past_values": series.past_values,
    "past_observed_mask": series.past_observed_mask,
    "past_time_features": series.past_time_features,
    "future_values": series.future_values,
    "future_time_features": series.future_time_features,
}


_BESIDE = ("visual_feats", "visual_pos")  # asked for beside the text


def _part(config: Any, name: str) -> Any:
    return getattr(config, name, None) or config


def _tensor(shape: tuple[int, ...], allowed: Any, generator: Any, meta: bool) -> Any:
    import torch

    if meta:
        return torch.empty(shape, dtype=torch.float32 if allowed is None else allowed.dtype, device="meta")
    if allowed is not None and allowed.ndim > 1:  # the very numbers
        return allowed
    if allowed is None:
        return torch.randn(shape, generator=generator, device="cpu")
    return allowed[torch.randint(0, len(allowed), shape, generator=generator, device="cpu")]


def _dtype(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")
