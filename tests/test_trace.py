"""Tracing: real and meta models give one graph, ties are one parameter, nothing is allocated."""

from __future__ import annotations

import logging
import subprocess
import sys
import textwrap
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import fanin  # noqa: E402
from fanin.frameworks.torch.verbs import read_model  # noqa: E402
from fanin.graph import Kind  # noqa: E402


@pytest.fixture(autouse=True)
def _quiet():
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    yield
    logging.disable(before)


def gpt2() -> tuple[nn.Module, Any]:
    tf = pytest.importorskip("transformers")
    config = tf.GPT2Config(n_embd=32, n_head=2, n_layer=2, vocab_size=50, n_positions=16)
    return tf.GPT2LMHeadModel(config), {"input_ids": torch.randint(0, 50, (2, 8), device="cpu")}


def llama() -> tuple[nn.Module, Any]:
    tf = pytest.importorskip("transformers")
    config = tf.LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=50,
    )  # fmt: skip
    return tf.LlamaForCausalLM(config), {"input_ids": torch.randint(0, 50, (2, 8), device="cpu")}


def convolutional() -> tuple[nn.Module, Any]:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 10)
    )
    return net, torch.randn(4, 3, 8, 8, device="cpu")


MODELS = [gpt2, llama, convolutional]


@pytest.mark.parametrize("build", MODELS, ids=lambda f: f.__name__)
def test_meta_and_real_models_give_the_same_graph(build):
    real, batch = build()
    with torch.device("meta"):
        meta, _ = build()
    one, other = read_model(real.train(), batch).graph, read_model(meta.train(), batch).graph
    assert [(n.id, n.name, n.kind, n.inputs, n.shape) for n in one.nodes] == [
        (n.id, n.name, n.kind, n.inputs, n.shape) for n in other.nodes
    ]
    assert one.outputs == other.outputs and one.aliases == other.aliases
    assert {n: p.shape for n, p in one.parameters.items()} == {n: p.shape for n, p in other.parameters.items()}


@pytest.mark.parametrize("build", MODELS, ids=lambda f: f.__name__)
def test_meta_and_real_models_are_predicted_alike(build):
    """The real one by the std of what was drawn, the meta one by the law it would be drawn from."""
    torch.manual_seed(0)
    real, batch = build()
    with torch.device("meta"):
        meta, _ = build()
    one, other = fanin.predict(real.train(), batch), fanin.predict(meta.train(), batch)
    assert list(one) == list(other)
    for name in one:
        # the std of a drawn matrix is off by 1 / sqrt(2 n) of n elements; the smallest here have a few hundred
        assert one[name].rms == pytest.approx(other[name].rms, rel=0.15, abs=1e-3), name


def test_a_meta_batch_stands_for_a_unit_gaussian():
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU())
    meta = fanin.predict(net, torch.empty(512, 64, device="meta"))
    real = fanin.predict(net, torch.randn(512, 64))
    assert meta["0"].rms == pytest.approx(real["0"].rms, rel=0.02)


def test_ties_appear_once():
    net, batch = gpt2()
    graph = read_model(net, batch).graph
    table, head = graph.parameters["transformer.wte.weight"], graph.parameters["lm_head.weight"]
    assert table is head
    assert table.name == "transformer.wte.weight" and table.tied == ("lm_head.weight",)
    sources = [n for n in graph.nodes if n.kind is Kind.PARAMETER and n.attrs["parameter"] == table.name]
    assert len({n.attrs["parameter"] for n in sources}) >= 1


@pytest.mark.parametrize("build", MODELS, ids=lambda f: f.__name__)
def test_parameters_and_buffers_keep_their_names(build):
    net, batch = build()
    found = read_model(net, batch).graph.parameters
    assert [n for n, p in found.items() if not p.buffer] == [n for n, _ in net.named_parameters(remove_duplicate=False)]
    assert {n for n, p in found.items() if p.buffer} == {n for n, _ in net.named_buffers(remove_duplicate=False)}
    assert all(found[n].shape == tuple(p.shape) for n, p in net.named_parameters())


def test_the_mode_is_that_of_the_model():
    net, batch = convolutional()
    assert read_model(net.train(), batch).graph.training and not read_model(net.eval(), batch).graph.training


# --- nothing is allocated -------------------------------------------------------------------------------------------

LLAMA = """
import logging, resource, sys, time, warnings
warnings.filterwarnings("ignore"); logging.disable(logging.WARNING)
import torch, transformers, fanin
from transformers import LlamaConfig, LlamaForCausalLM
import fanin.theory, fanin.frameworks.torch.verbs
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # GB
config = LlamaConfig({config}, vocab_size=32000)
with torch.device("meta"):
    model = LlamaForCausalLM(config)
before, start = peak(), time.perf_counter()
signals = fanin.predict(model, {{"input_ids": torch.empty(1, {length}, dtype=torch.int64, device="meta")}})
assert all(row.rms is not None for row in signals.rows)
print(sum(p.numel() for p in model.parameters()), peak() - before, time.perf_counter() - start)
"""


def predicted_in_a_process(config: str, length: int) -> tuple[float, float, float]:
    """Parameters, GB above the imports, and seconds of a prediction on the meta device."""
    code = textwrap.dedent(LLAMA).format(config=config, length=length)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr[-2000:]
    parameters, memory, seconds = map(float, run.stdout.split())
    return parameters, memory, seconds


def test_a_billion_parameters_take_no_memory():
    """Four layers of a width at which the weights alone would be 4 GB."""
    pytest.importorskip("transformers")
    shape = "hidden_size=4096, intermediate_size=11008, num_hidden_layers=4, num_attention_heads=32"
    parameters, memory, _ = predicted_in_a_process(shape, 128)
    assert parameters > 1e9
    assert memory < 1.0


@pytest.mark.slow
def test_seven_billion_parameters():
    """32 layers, 512 tokens: 28 GB of weights that are never made."""
    pytest.importorskip("transformers")
    shape = "hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32"
    parameters, memory, seconds = predicted_in_a_process(shape, 512)
    assert parameters > 6.5e9
    assert memory < 2.0
    assert seconds < 30
