"""Time series: values of the past, what is known of their times, and the values to be told beforehand."""

from __future__ import annotations

from typing import Any

SERIES = 4


def past_values(model: Any, config: Any) -> tuple[tuple[int, ...], Any]:
    """As long as the model looks back; of several channels where it reads several."""
    channels = getattr(config, "num_input_channels", None) or getattr(config, "input_size", 1)
    return (SERIES, _looks_back(config), *(() if channels == 1 and _has_lags(config) else (channels,))), None


def past_observed_mask(model: Any, config: Any) -> tuple[tuple[int, ...], Any]:
    """Nothing is missing."""
    import torch

    return past_values(model, config)[0], torch.tensor([1.0], device="cpu")


def future_values(model: Any, config: Any) -> tuple[tuple[int, ...], Any]:
    """What a decoder is shown in training."""
    shape = past_values(model, config)[0]
    return (shape[0], config.prediction_length, *shape[2:]), None


def past_time_features(model: Any, config: Any) -> tuple[tuple[int, ...], Any]:
    """Such as the hour and the day, scaled."""
    return (SERIES, _looks_back(config), config.num_time_features), None


def future_time_features(model: Any, config: Any) -> tuple[tuple[int, ...], Any]:
    """The same of the times that are asked for."""
    return (SERIES, config.prediction_length, config.num_time_features), None


def _has_lags(config: Any) -> bool:
    return hasattr(config, "lags_sequence")


def _looks_back(config: Any) -> int:
    length = getattr(config, "context_length", None) or config.prediction_length
    return length + (max(config.lags_sequence) if _has_lags(config) else 0)
