"""Whole architectures: the predicted rms of every tensor against three freshly drawn networks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
tf = pytest.importorskip("transformers")

import fanin  # noqa: E402

SEEDS = 3
MEDIAN, P95 = 0.02, 0.10  # what is promised over every floating-point tensor
Built = tuple[Any, Any]  # a model and what it takes


@pytest.fixture(autouse=True)
def _quiet():
    """transformers announces what it thinks of a configuration."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    yield
    logging.disable(before)


def ids(samples: int = 4, length: int = 32, vocabulary: int = 1000) -> Any:
    """Uniform token ids."""
    return torch.randint(0, vocabulary, (samples, length))


# --- the reference architectures, narrower and shallower than published ---------------------------------------------


def gpt2() -> Built:
    config = tf.GPT2Config(n_embd=256, n_head=4, n_layer=2, vocab_size=1000, n_positions=64)
    return tf.GPT2LMHeadModel(config), {"input_ids": ids()}


def bert() -> Built:
    config = tf.BertConfig(
        hidden_size=256, num_attention_heads=4, num_hidden_layers=2, intermediate_size=1024, vocab_size=1000
    )
    return tf.BertForMaskedLM(config), {"input_ids": ids(), "attention_mask": torch.ones(4, 32, dtype=torch.int64)}


def vit() -> Built:
    config = tf.ViTConfig(
        hidden_size=256, num_attention_heads=4, num_hidden_layers=2, intermediate_size=1024, image_size=64,
        patch_size=8, num_labels=1000,
    )  # fmt: skip
    return tf.ViTForImageClassification(config), {"pixel_values": torch.randn(4, 3, 64, 64)}


def resnet() -> Built:
    config = tf.ResNetConfig(embedding_size=64, hidden_sizes=[256, 512], depths=[2, 2], num_labels=1000)
    return tf.ResNetForImageClassification(config), {"pixel_values": torch.randn(12, 3, 32, 32)}


def errors(build: Callable[[], Built], spoil: Callable[[Any], None] | None = None) -> dict[str, float]:
    """|predicted / measured - 1| of every tensor: rms over networks in training mode.

    Args:
        spoil: changes the weights of the networks that are measured, not of the one that is predicted.
    """
    predicted, batch, squares = None, None, {}
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        model, drawn = build()
        model.train()
        if predicted is None:
            batch, predicted = drawn, fanin.predict(model, drawn)
        if spoil is not None:
            spoil(model)
        for row in fanin.measure(model, batch).rows:
            assert row.rms is not None
            squares.setdefault(row.name, []).append(row.rms**2)
    assert predicted is not None
    assert [row.name for row in predicted.rows if row.rms is None] == []
    assert set(squares) == set(predicted)
    return {name: abs(predicted[name].rms / np.sqrt(np.mean(square)) - 1) for name, square in squares.items()}


def holds(error: dict[str, float]) -> bool:
    """Whether the promised percentiles hold."""
    found = np.array(list(error.values()))
    return bool(np.median(found) <= MEDIAN and np.percentile(found, 95) <= P95)


def worst(error: dict[str, float]) -> str:
    """The five largest, for the message."""
    return ", ".join(f"{name} {e:.1%}" for name, e in sorted(error.items(), key=lambda item: -item[1])[:5])


@pytest.mark.parametrize("build", [gpt2, bert, vit, resnet], ids=lambda f: f.__name__)
def test_every_tensor_is_predicted(build):
    error = errors(build)
    assert holds(error), worst(error)


def test_a_layer_drawn_too_wide_is_noticed():
    def wider(model: Any) -> None:
        with torch.no_grad():
            model.transformer.h[0].mlp.c_fc.weight.mul_(1.3)

    assert not holds(errors(gpt2, wider))


# --- further architectures: a rule for everything -------------------------------------------------------------------


def llama() -> Built:
    config = tf.LlamaConfig(
        hidden_size=128, intermediate_size=352, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=2,
        vocab_size=500,
    )  # fmt: skip
    return tf.LlamaForCausalLM(config), {"input_ids": ids(2, 16, 500)}


def t5() -> Built:
    config = tf.T5Config(d_model=128, d_kv=32, d_ff=256, num_layers=2, num_heads=4, vocab_size=500)
    return tf.T5ForConditionalGeneration(config), {
        "input_ids": ids(2, 16, 500),
        "decoder_input_ids": ids(2, 12, 500),
    }


def convnext() -> Built:
    config = tf.ConvNextConfig(hidden_sizes=[32, 64, 96, 128], depths=[1, 1, 2, 1], image_size=64)
    return tf.ConvNextForImageClassification(config), {"pixel_values": torch.randn(2, 3, 64, 64)}


def mixtral() -> Built:
    config = tf.MixtralConfig(
        hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=2,
        num_local_experts=4, vocab_size=500,
    )  # fmt: skip
    return tf.MixtralForCausalLM(config), {"input_ids": ids(2, 16, 500)}


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("build", [llama, t5, convnext, mixtral], ids=lambda f: f.__name__)
def test_no_tensor_is_left_unmodelled(build, mode):
    torch.manual_seed(0)
    model, batch = build()
    model.train(mode == "train")
    rows = fanin.predict(model, batch).rows
    assert [f"{row.name}: {row.note}" for row in rows if row.rms is None] == []
    assert len(rows) > 50
    assert all(row.rms is not None and np.isfinite(row.rms) for row in rows)
