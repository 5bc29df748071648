"""identify and explain: laws and schemes of freshly drawn tensors, false alarms at their level, and the sentences."""

# pyright: reportOptionalMemberAccess=false, reportCallIssue=false

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

import fanin
from fanin.axes import Fans
from fanin.errors import ArgumentError, ModelError, TargetError
from fanin.recipes.explain import KURTOSIS, normal_or_uniform

torch.set_num_threads(1)


def drawn(recipe: str, seed: int, **options) -> dict[str, torch.Tensor]:
    model = nn.Sequential(nn.Linear(60, 40), nn.Linear(40, 100), nn.Conv2d(10, 24, 3))
    made = fanin.plan(model, recipe=recipe, **options)
    fanin.apply(made, model, seed=seed)
    return {n: p.detach() for n, p in model.named_parameters() if n.endswith("weight")}


CASES = [
    ("he", {}, "He normal, fan_in"),
    ("he", {"mode": "fan_out"}, "He normal, fan_out"),
    ("he", {"distribution": "uniform"}, "He uniform, fan_in"),
    ("he", {"distribution": "truncated_normal"}, "He truncated normal, fan_in"),
    ("glorot", {"distribution": "uniform"}, "Glorot uniform"),
    ("glorot", {}, "Glorot normal"),
    ("lecun", {"distribution": "truncated_normal"}, "LeCun truncated normal"),
    ("torch_default", {}, "torch's default"),
    ("fixed", {"std": 0.02}, "normal of std 0.02"),
    ("orthogonal", {}, "orthogonal"),
]


@pytest.mark.parametrize(("recipe", "options", "scheme"), CASES, ids=[c[2] for c in CASES])
def test_scheme_is_found(recipe, options, scheme):
    """Right on all but one of 30 tensors of 2,160 and more elements at least."""
    right = total = 0
    for seed in range(10):
        for guess in fanin.identify(drawn(recipe, seed, **options)).values():
            total += 1
            right += bool(guess.schemes) and guess.schemes[0].startswith(scheme)
    assert right >= total - 1


def test_false_alarms_are_at_their_level():
    """One model in two hundred may have a tensor called not fresh: binomial(100, .005) exceeds 5 once in 70,000."""
    alarms = 0
    for seed in range(100):
        found = fanin.identify(drawn("he" if seed % 2 else "torch_default", seed))
        alarms += any(g.verdict == "not fresh" for g in found.values())
    assert alarms <= 5


def test_negative_control():
    rng = np.random.default_rng(0)
    found = fanin.identify({"t": rng.standard_t(4, (60, 60)), "m": rng.normal(size=(60, 60)) ** 3})
    assert [g.verdict for g in found.values()] == ["not fresh", "not fresh"]


def test_resnet_of_transformers():
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=16, hidden_sizes=[32, 64], depths=[1, 1], layer_type="basic", num_labels=100)
    found = fanin.identify(ResNetForImageClassification(config))
    for name, guess in found.items():
        if name.endswith("convolution.weight"):
            assert guess.schemes[0].startswith("He normal") and "fan_out" in guess.schemes[0], (name, guess)
    assert found["classifier.1.weight"].schemes[0].startswith("torch's default, U(±1/sqrt(64))")


def test_layers_of_torch():
    torch.manual_seed(0)
    model = nn.Sequential(nn.LSTM(30, 40), nn.MultiheadAttention(32, 4), nn.Embedding(200, 30, padding_idx=0))
    found = fanin.identify(model)
    assert all(g.schemes[0] == "torch's default, U(±1/sqrt(40))" for n, g in found.items() if n.startswith("0."))
    assert found["1.in_proj_weight"].schemes[0] == "Glorot uniform"
    assert found["2.weight"].schemes == ("normal of std 1",) and "padding" in found["2.weight"].note


def test_marks():
    torch.manual_seed(0)
    w = torch.randn(100, 300) * (2 / 300)
    found = fanin.identify(
        {"w": w, "v": w.clone(), "o": nn.init.orthogonal_(torch.empty(64, 32), 2.0), "n": torch.full((30,), math.nan)}
        | {"one": torch.ones(50), "few": torch.randn(5), "ids": torch.arange(5)}
    )
    assert "variance" in found["w"].note and "the same values as w" in found["v"].note
    assert found["o"].distribution.gain == pytest.approx(2, rel=1e-5)
    assert "100 %" in found["n"].note
    assert (found["one"].verdict, found["few"].verdict) == ("constant", "too few")
    assert "ids" not in found
    assert {g.name for g in found.unlikely} == {"w", "v", "n"}
    assert "as by" in str(found) and found.to_dict()["tensors"][0]["name"] == "w"


def test_half_precision_and_files(tmp_path):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    weights = {n: w.bfloat16() for n, w in drawn("he", 0, distribution="uniform").items()}
    save_file(weights, tmp_path / "w.safetensors")
    assert all(g.schemes[0].startswith("He uniform") for g in fanin.identify(tmp_path / "w.safetensors").values())


def test_mistakes(tmp_path):
    with pytest.raises(ModelError, match="meta"):
        fanin.identify(nn.Linear(3, 3, device="meta"))
    with pytest.raises(ModelError):
        fanin.identify({})
    with pytest.raises(ArgumentError):
        fanin.identify(3)
    with pytest.raises(TargetError):
        fanin.identify(tmp_path / "none.safetensors")


# --- explain ------------------------------------------------------------------------------------------------------


def test_explain_one_layer():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 8, 3, padding=1))
    text = fanin.explain(model, torch.randn(4, 3, 8, 8), "0")
    for words in (
        "fan_in 27",
        "fan_out 144",
        "22.69 of them",
        "relu follows",
        "E f² = 0.5",
        "1.414",
        "torch's default",
    ):
        assert words in text, words
    assert "Normal or uniform" in text


def test_explain_a_model_and_mistakes():
    model = nn.Sequential(nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 3))
    text = fanin.explain(model, torch.randn(8, 20))
    assert "Outputs are made by 2" in text and "plan: recipe auto" in text
    with pytest.raises(ArgumentError, match="did you mean"):
        fanin.explain(model, torch.randn(8, 20), "0.weigth")
    with pytest.raises(ArgumentError, match="without a batch"):
        fanin.explain(model, None)


@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_spread_of_a_layer_by_kurtosis(kind):
    """The formula behind the sentence, against draws."""
    rng, n = np.random.default_rng(0), 50
    w = rng.normal(size=(20000, n)) if kind == "normal" else rng.uniform(-math.sqrt(3), math.sqrt(3), (20000, n))
    spread = (w**2).mean(1).std()
    assert spread == pytest.approx(math.sqrt((KURTOSIS[kind] - 1) / n), rel=0.03)
    assert f"{100 * math.sqrt(2 / n):.2g} %" in normal_or_uniform(Fans(n, 10))


def _flax_and_keras() -> tuple[dict, dict[str, str]]:
    """Defaults of Flax and Keras 3 by their own formulas, inputs before outputs."""
    rng = np.random.default_rng(0)

    def lecun(shape, fan_in):
        draws = scipy.stats.truncnorm.rvs(-2, 2, size=shape, random_state=rng)
        return (draws / 0.87962566103423978 / math.sqrt(fan_in)).astype(np.float32)

    def glorot(shape, total):
        return (rng.uniform(-1, 1, shape) * math.sqrt(6 / total)).astype(np.float32)

    tensors = {
        "params": {
            "Dense_0": {"kernel": lecun((784, 256), 784), "bias": np.zeros(256, np.float32)},
            "Conv_0": {"kernel": lecun((3, 3, 16, 64), 9 * 16)},
            "attention": {"query": {"kernel": lecun((96, 4, 32), 96)}},
            "Embed_0": {"embedding": (rng.standard_normal((1000, 64)) / 8).astype(np.float32)},
        },
        "dense/kernel:0": glorot((784, 256), 784 + 256),
        "conv/kernel:0": glorot((3, 3, 16, 64), 9 * 16 + 9 * 64),
        "embed/embeddings:0": rng.uniform(-0.05, 0.05, (1000, 64)).astype(np.float32),
    }
    return tensors, {
        "params/Dense_0/kernel": "LeCun truncated normal",
        "params/Conv_0/kernel": "LeCun truncated normal",
        "params/attention/query/kernel": "LeCun truncated normal",
        "params/Embed_0/embedding": "Flax's tables, normal of std 1/sqrt(64)",
        "dense/kernel:0": "Glorot uniform",
        "conv/kernel:0": "Glorot uniform",
        "embed/embeddings:0": "Keras' tables, U(±0.05)",
    }


def test_defaults_of_flax_and_keras_are_named_in_their_own_layout():
    tensors, expected = _flax_and_keras()
    found = fanin.identify(tensors)
    assert {name: found[name].schemes[:1] for name in expected} == {n: (s,) for n, s in expected.items()}
    assert found["params/Dense_0/bias"].verdict == "constant"


@pytest.mark.parametrize(
    ("package", "tables", "recurrent", "weights"),
    [
        ("flax", "Flax's tables", r"Cell_0/h\w/kernel", r"LeCun truncated normal"),
        ("keras", "Keras' tables", r"recurrent_kernel", r"(Glorot|Glorot or LeCun) uniform"),
    ],
)
def test_layers_as_flax_and_keras_built_them(package, tables, recurrent, weights):
    """Files that ``reference/make_defaults.py`` made with these packages: 21 and 16 weights and their biases."""
    found = fanin.identify(Path(__file__).parent / "reference" / f"defaults_{package}.safetensors")
    assert not [name for name, guess in found.items() if guess.note]
    for guess in found.values():
        told = " or ".join(guess.schemes)
        if "embedding" in guess.name:
            assert told.startswith(tables), guess
        elif re.search(recurrent, guess.name):
            assert told == "orthogonal", guess
        elif guess.name.endswith("kernel"):
            assert guess.verdict == "fresh" and re.search(weights, told), guess
        elif guess.name == "lstm/lstm_cell/bias":
            assert told == "a forget gate's bias of 1, zeros elsewhere"
        else:
            assert guess.verdict == "constant", guess


def test_a_thousand_tensors_are_named_and_false_alarms_are_at_their_level():
    """Of 1,000 tensors 990 at least by their scheme; binomial(1000, .005) exceeds 13 once in a thousand."""
    shapes = [(64, 48), (100, 30), (32, 96), (24, 8, 3, 3), (200, 50), (40, 16, 5)]
    schemes = [("He", 2.0, "fan_in"), ("Glorot", 1.0, "fan_avg"), ("LeCun", 1.0, "fan_in"), ("He", 2.0, "fan_out")]
    right = missed = 0
    for k in range(1000):
        shape, (who, scale, mode) = shapes[k % 6], schemes[k // 3 % 4]
        kind = ("normal", "uniform", "truncated_normal")[k % 3]
        fans = Fans(math.prod(shape[1:]), shape[0] * math.prod(shape[2:]))
        law = fanin.schemes.variance_scaling(fans, scale=scale, mode=mode, distribution=kind)
        guess = fanin.identify({"weight": fanin.draw(shape, law, seed=k, name="weight")})["weight"]
        words = f"{who} {kind.replace('_', ' ')}" + (f", {mode}" if who == "He" else "")
        right += any(scheme.startswith(words) for scheme in guess.schemes)
        missed += not guess.schemes
    assert right >= 990 and missed <= 13, (right, missed)


def test_matrices_outliers_and_shifted_scales():
    torch.manual_seed(0)
    gru, dirac, wild, norm = nn.GRU(64, 64), nn.Conv2d(16, 16, 3), nn.Linear(300, 100), nn.BatchNorm2d(64)
    for block in gru.weight_hh_l0.detach().chunk(3):
        nn.init.orthogonal_(block)
    nn.init.dirac_(dirac.weight)
    nn.init.kaiming_normal_(wild.weight)
    nn.init.normal_(norm.weight, 1.0, 0.02)
    clean = fanin.identify(wild)["weight"]
    with torch.no_grad():
        wild.weight[3, 7] = 1.0
    assert fanin.identify(gru)["weight_hh_l0"].schemes == ("orthogonal, each gate for itself",)
    assert fanin.identify(dirac)["weight"].schemes[0].startswith("the identity")
    assert not clean.note and "1 of its elements" in fanin.identify(wild)["weight"].note
    found = fanin.identify(norm)["weight"]
    assert found.verdict == "fresh" and found.distribution.mean == pytest.approx(1, abs=0.02)


# --- whole tensors, gains, and blocks -----------------------------------------------------------------------------


def test_forget_biases_sparse_columns_and_gains():
    torch.manual_seed(0)
    bias = torch.zeros(160)
    bias[40:80] = 1.0
    tanh = nn.init.calculate_gain("tanh")
    tensors = {
        "lstm.bias_ih_l0": bias,
        "gru.bias_ih_l0": torch.cat([torch.zeros(30), torch.ones(30), torch.full((30,), -1.0)]),
        "sparse.weight": nn.init.sparse_(torch.empty(100, 60), 0.9, std=0.01),
        "dropped.weight": torch.randn(200, 60) * (torch.rand(200, 60) < 0.5),
        "glorot.weight": nn.init.xavier_uniform_(torch.empty(120, 200), gain=tanh),
        "he.weight": nn.init.kaiming_normal_(torch.empty(300, 200), nonlinearity="tanh"),
        "plain.weight": nn.init.xavier_uniform_(torch.empty(120, 200)),
    }
    found = fanin.identify(tensors)
    assert found["lstm.bias_ih_l0"].schemes == ("a forget gate's bias of 1, zeros elsewhere",)
    assert found["gru.bias_ih_l0"].schemes == ("0, 1, -1 by gate",)
    assert found["sparse.weight"].schemes[0].startswith("sparse, the same number")
    assert found["sparse.weight"].distribution.nonzero_std == pytest.approx(0.01, rel=0.15)  # 600 values
    assert found["dropped.weight"].schemes[0] == "zeros anywhere" and "% of it is zero" in found["dropped.weight"].note
    assert found["glorot.weight"].schemes[0] == "Glorot uniform, gain 1.67 (tanh)"
    assert found["he.weight"].schemes[0] == "He normal, fan_in, gain 1.67 (tanh)"
    assert found["plain.weight"].schemes[0] == "Glorot uniform"


@pytest.mark.parametrize(("scaled", "marked"), [(True, 0), (False, 12)], ids=["GPT-2", "never scaled"])
def test_residual_projections_that_were_never_scaled(scaled, marked):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_layer=6, n_embd=64, n_head=2, vocab_size=300, n_positions=32))
    ends = [p for n, p in model.named_parameters() if n.endswith("c_proj.weight")]
    for p in ends:
        nn.init.normal_(p, std=0.02 / math.sqrt(12) if scaled else 0.02)
    found = fanin.identify(model)
    assert sum("never scaled" in g.note for g in found.values()) == marked
    told = [found[n].schemes for n in found if n.endswith("c_proj.weight")]
    assert all(s[0].startswith("GPT-2's residual" if scaled else "normal of std 0.02") for s in told)


def test_a_norm_last_model_needs_no_scaling():
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    model = BertModel(BertConfig(num_hidden_layers=6, hidden_size=64, num_attention_heads=2, intermediate_size=128))
    assert not any("never scaled" in g.note for g in fanin.identify(model).values())


def test_t5_of_transformers():
    from transformers import T5Config, T5Model

    torch.manual_seed(0)
    found = fanin.identify(T5Model(T5Config(d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4, vocab_size=300)))
    queries = [g for n, g in found.items() if n.endswith(".q.weight")]
    assert all(g.schemes == ("T5's queries, normal of std 1/sqrt(64·16)",) for g in queries) and len(queries) == 6
