"""Reports to show in tests: a transformer, a deep stack, and a broken model; fixed numbers, no framework."""

from __future__ import annotations

import math
import random

from fanin.checks.finding import Finding
from fanin.report import Report
from fanin.signals import Signal, Signals

Row = tuple[str, str, tuple[int, ...], float | None, float]


def transformer(blocks: int = 12) -> Report:
    """Like GPT-2: two embeddings, equal blocks, a head; one op without a rule, one rule that is an approximation."""
    width, tokens = (2, 64, 768), (2, 64, 50257)
    rows: list[Row] = [
        ("wte", "embedding", width, 0.02, 3.0),
        ("wpe", "embedding", width, 0.02, 3.0),
        ("/add", "add", width, 0.028, 3.0),
    ]
    stream = 0.028
    for i in range(blocks):
        gradient = 0.01 * math.exp(-0.4 * i)
        parts: list[tuple[str, str, tuple[int, ...], float]] = [
            ("ln_1", "layer_norm", width, 1.0),
            ("attn.c_attn", "linear", (2, 64, 2304), 0.55),
            ("attn/split", "split", width, 0.55),
            ("attn/sdpa", "scaled_dot_product_attention", (2, 12, 64, 64), 0.12),
            ("attn.c_proj", "linear", width, 0.07),
            ("/add", "add", width, stream := math.hypot(stream, 0.07)),
            ("ln_2", "layer_norm", width, 1.0),
            ("mlp.c_fc", "linear", (2, 64, 3072), 0.55),
            ("mlp.act", "gelu", (2, 64, 3072), 0.3),
            ("mlp.act/tanh", "tanh", (2, 64, 3072), 0.4),
            ("mlp.c_proj", "linear", width, 0.33),
            ("/add_1", "add", width, stream := math.hypot(stream, 0.33)),
        ]
        for name, op, shape, rms in parts:
            full = f"h.{i}{name}" if name.startswith("/") else f"h.{i}.{name}"
            rows.append((full, op, shape, None if full == "h.3.mlp.act" else rms, gradient))
    rows += [("ln_f", "layer_norm", width, 1.0, 1e-4), ("lm_head", "linear", tokens, 0.55, 1e-5)]
    facts = {"parameters": 124_439_808, "loss": 12.31, "expected_loss": 10.82, "seconds": 3.21, "notes": ["random"]}
    return Report(_findings(), *_both(rows), "hf:gpt2", facts)


def _findings() -> tuple[Finding, ...]:
    loss = Finding(
        "FAN203",
        "warning",
        "lm_head",
        "loss 12.31 is above ln C = 10.82",
        measured=12.31,
        expected=(10.5, 11.3),
        cause="the logits start with rms 0.55",
        fix="draw the last layer with std 0.002",
    )
    vanishing = [
        Finding(
            "FAN101",
            "error",
            f"h.{i}.mlp.c_fc",
            f"gradient rms {10**-i:.0e} is far below that of the last layer",
            measured=10.0**-i,
            expected=(1e-3, 10.0),
            cause="each block multiplies it by 0.67",
            fix="draw from He normal, std sqrt(2 / fan_in)",
        )
        for i in range(6, 11)
    ]
    return (loss, *vanishing)


def stack(depth: int = 30, per_layer: float = 0.46, *, measured: bool = True) -> Report:
    """Convolution and ReLU, over and over: the signal shrinks by ``per_layer`` a layer."""
    rows: list[Row] = []
    for i in range(depth):
        rms = per_layer ** (i + 1)
        rows.append((str(2 * i), "conv2d", (64, 32, 8, 8), rms, per_layer ** (depth - i)))
        rows.append((str(2 * i + 1), "relu", (64, 32, 8, 8), rms * 0.71, per_layer ** (depth - i)))
    rows.append((str(2 * depth), "linear", (64, 10), 0.1, 1.0))
    predicted, seen = _both(rows)
    return Report((), predicted, seen if measured else None, "net.py:build", {"parameters": 300_042, "loss": 2.303})


def broken() -> Report:
    """NaN, infinity and zero where numbers should be, and a name that is markup."""
    values = [1.0, 0.0, float("inf"), float("nan"), 2.0]
    rows = [Signal(f"l{i}", "linear", (2, 3), rms=v, grad_rms=v, source="measured") for i, v in enumerate(values)]
    rows.append(Signal("</script><b>x", "linear", (2, 3), rms=1.0, source="measured"))
    finding = Finding(
        "FAN301", "error", "l3", "rms is nan <b>", float("nan"), (0.1, 10.0), "a weight is nan", "draw it"
    )
    return Report((finding,), None, Signals(rows), "<i>net</i>")


def _both(rows: list[Row]) -> tuple[Signals, Signals]:
    draw = random.Random(0)
    predicted, measured = [], []
    for name, op, shape, rms, gradient in rows:
        low, high = (None, None) if rms is None else (rms / 1.5, rms * 1.5)
        rough = op == "scaled_dot_product_attention"
        note = "second order" if rough else ""
        predicted.append(Signal(name, op, shape, rms, low, high, grad_rms=gradient, exact=not rough, note=note))
        seen, gradient = (rms or 0.3) * draw.uniform(0.98, 1.02), gradient * draw.uniform(0.95, 1.05)
        extra = {"zeros": 0.5}
        measured.append(Signal(name, op, shape, seen, mean=0.0, grad_rms=gradient, source="measured", extra=extra))
    return Signals(predicted), Signals(measured)
