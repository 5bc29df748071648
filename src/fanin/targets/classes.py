"""Which class of transformers a configuration is built as, where nobody names one."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

from fanin.errors import TargetError


def chosen(transformers: Any, config: Any, class_name: str | None) -> Any:
    """The class that is named, or the one that the configuration declares, or the usual one of its type."""
    declared = (getattr(config, "architectures", None) or [None])[0]
    for name in (class_name, declared):
        if name and hasattr(transformers, name):
            return getattr(transformers, name)
    if class_name:
        raise TargetError(
            f"transformers has no class {class_name!r}", remedy="write hf:bert:BertForMaskedLM, for example"
        )
    found = _listed(transformers, config) or _of_its_module(config)
    if found is None:
        kind = config.model_type
        raise TargetError(f"hf:{kind} has no bare model", remedy=f"name the class to build, hf:{kind}:<ClassName>")
    return found


def _listed(transformers: Any, config: Any) -> Any | None:
    """The encoder-decoder with its head, the causal language model, or the bare model; None where none is listed."""
    from transformers.models.auto import modeling_auto as auto

    kind = config.model_type
    if getattr(config, "is_encoder_decoder", False):
        if kind in auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
            return transformers.AutoModelForSeq2SeqLM
        if kind in auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES:
            return transformers.AutoModelForSpeechSeq2Seq
    elif kind in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return transformers.AutoModelForCausalLM
    bare = auto.MODEL_MAPPING_NAMES.get(kind)
    if bare is None:
        return None
    return transformers.AutoModel if isinstance(bare, str) else getattr(transformers, bare[0])


def _of_its_module(config: Any) -> Any | None:
    """Parts of larger models and those of one task alone: the class that is made for this configuration.

    Bare models come before those with a head, these before pieces (encoders, backbones), and short names before long.
    """
    from transformers import PreTrainedModel

    name = type(config).__module__.replace("configuration_", "modeling_")
    try:
        own = vars(import_module(name)).values()
    except ImportError:
        return None
    made = [
        c
        for c in own
        if inspect.isclass(c)
        and issubclass(c, PreTrainedModel)
        and c.__module__ == name
        and c.config_class is type(config)
        and not c.__name__.endswith("PreTrainedModel")
    ]
    rank = lambda c: (0 if c.__name__.endswith("Model") else 1 if "For" in c.__name__ else 2, len(c.__name__))  # noqa: E731
    return min(made, key=rank, default=None)
