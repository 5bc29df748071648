"""The loss that a transformers model is trained with, by the class that was built: made from its logits.

Labels stay out of the batch: the model then returns its logits first, and how far they are off is seen by the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Made = tuple[Callable | None, Any, tuple[str, ...]]

NEXT = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
CLASSES = ("ForImageClassification", "ForSequenceClassification", "ForTokenClassification", "ForVideoClassification")
MASKED = ("ForMaskedLM",)


def default_loss(model: Any, config: Any, batch: Mapping[str, Any] | None, *, seed: int = 0) -> Made:
    """The loss, its target and a note; (None, None, ()) for a bare model or one whose loss nobody knows.

    Args:
        batch: keyword arguments of forward; a language model's labels are its ids.
    """
    import torch

    name = type(model).__name__
    if not batch:
        return None, None, ()
    ids = batch.get("decoder_input_ids", batch.get("input_ids"))
    if name.endswith(NEXT) and ids is not None:
        return next_token, ids, ("loss: cross-entropy of the next token, labels are the input ids",)
    if name.endswith(MASKED) and ids is not None:  # what is masked is not in the input: another sample's tokens
        return every_token, ids.roll(1, 0), ("loss: cross-entropy of every token, labels are another sample's ids",)
    if name.endswith(CLASSES) and isinstance(getattr(config, "num_labels", None), int) and config.num_labels > 1:
        first = next(iter(batch.values()))
        shape = tuple(first.shape[:2]) if name.endswith("ForTokenClassification") else (first.shape[0],)
        target = torch.empty(shape, dtype=torch.int64, device="meta")
        if first.device.type != "meta":
            generator = torch.Generator().manual_seed(seed)
            target = torch.randint(0, config.num_labels, shape, generator=generator, device="cpu")
        return every_token, target, (f"loss: cross-entropy, labels uniform over {config.num_labels} classes",)
    return None, None, ()


def next_token(logits: Any, ids: Any) -> Any:
    """Cross-entropy of each token given those before: logits (samples, tokens, vocabulary), ids (samples, tokens)."""
    return every_token(logits[:, :-1], ids[:, 1:])


def every_token(logits: Any, ids: Any) -> Any:
    """Cross-entropy over the last axis, labels of the shape of the others."""
    from torch.nn.functional import cross_entropy

    return cross_entropy(logits.flatten(0, -2).float(), ids.flatten())
