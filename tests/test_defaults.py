"""Laws heard on the meta device against what freshly built models hold."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from fanin.frameworks.torch.parameters import parameter_records  # noqa: E402

SIGMAS = 5.0  # over some two hundred tensors


@pytest.fixture(autouse=True)
def _quiet():
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    yield
    logging.disable(before)


def transformers() -> Any:
    return pytest.importorskip("transformers")


def gpt2() -> nn.Module:
    tf = transformers()
    return tf.GPT2LMHeadModel(tf.GPT2Config(n_embd=64, n_head=2, n_layer=3, vocab_size=300, n_positions=32))


def bert() -> nn.Module:
    tf = transformers()
    config = tf.BertConfig(
        hidden_size=64, num_attention_heads=2, num_hidden_layers=2, intermediate_size=128, vocab_size=300
    )
    return tf.BertForMaskedLM(config)


def llama() -> nn.Module:
    tf = transformers()
    config = tf.LlamaConfig(
        hidden_size=64, num_attention_heads=2, num_hidden_layers=2, intermediate_size=128, vocab_size=300,
        initializer_range=0.05,
    )  # fmt: skip
    return tf.LlamaForCausalLM(config)


def vit() -> nn.Module:
    tf = transformers()
    config = tf.ViTConfig(
        hidden_size=64, num_attention_heads=2, num_hidden_layers=2, intermediate_size=128, image_size=32, patch_size=8
    )
    return tf.ViTForImageClassification(config)


def drawn_by_hand() -> nn.Module:
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.weights = nn.ParameterList([nn.Parameter(torch.empty(40, 50)) for _ in range(6)])
            self.reset_parameters()

        def reset_parameters(self):
            normal, uniform, truncated, orthogonal, sparse_, constant = self.weights
            nn.init.kaiming_normal_(normal)
            nn.init.xavier_uniform_(uniform, gain=2.0)
            nn.init.trunc_normal_(truncated, std=0.3, a=-0.3, b=0.3)
            nn.init.orthogonal_(orthogonal, gain=1.5)
            nn.init.normal_(sparse_, mean=0.5, std=0.1)
            nn.init.constant_(constant, 0.25)

    return Own()


BUILDS: dict[str, Callable[[], nn.Module]] = {
    "Linear": lambda: nn.Linear(70, 50),
    "Conv2d": lambda: nn.Conv2d(8, 16, 3),
    "ConvTranspose2d": lambda: nn.ConvTranspose2d(8, 16, 3, groups=2),
    "Embedding": lambda: nn.Embedding(50, 30),
    "Embedding with padding": lambda: nn.Embedding(50, 30, padding_idx=0),
    "LSTM": lambda: nn.LSTM(20, 30, num_layers=2),
    "GRU": lambda: nn.GRU(20, 30),
    "MultiheadAttention": lambda: nn.MultiheadAttention(32, 4),
    "BatchNorm2d": lambda: nn.BatchNorm2d(16),
    "LayerNorm": lambda: nn.LayerNorm(16),
    "TransformerEncoderLayer": lambda: nn.TransformerEncoderLayer(32, 4, 64),
    "Bilinear": lambda: nn.Bilinear(10, 12, 14),
    "PReLU": lambda: nn.PReLU(5),
    "gpt2": gpt2,
    "bert": bert,
    "llama": llama,
    "vit": vit,
    "init functions": drawn_by_hand,
}


def misses(heard: nn.Module, built: nn.Module) -> list[str]:
    """Parameters whose values do not look as the law that was heard says."""
    records, found = parameter_records(heard), []
    for name, tensor in built.named_parameters():
        law, x = records[name].law, tensor.detach().double().numpy().ravel()
        if law is None:
            found.append(f"{name}: nothing was heard")
            continue
        mean, std = law.moments(tuple(tensor.shape))
        n = max(x.size, 2)
        spread = np.sqrt(max(law.kurtosis - 1, 0.1) / 4 / n) if std > 0 else 0.0
        if abs(x.mean() - mean) > SIGMAS * std / np.sqrt(n) + 1e-6:
            found.append(f"{name}: mean {mean:.4g} heard, {x.mean():.4g} found")
        if abs(np.sqrt(np.mean((x - mean) ** 2)) - std) > SIGMAS * spread * std + 1.5 * std / n + 1e-6:
            found.append(f"{name}: std {std:.4g} heard, {np.sqrt(np.mean((x - mean) ** 2)):.4g} found")
    return found


REJECTION = "trunc_normal_ of torch 2.13 draws by rejection, which stops on meta tensors: nothing is heard"
OPEN = {"init functions": REJECTION}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.xfail(strict=True, reason=OPEN[n]) if n in OPEN else ()) for n in BUILDS]
)
def test_what_is_heard_is_what_is_drawn(name):
    torch.manual_seed(0)
    built = BUILDS[name]()
    with torch.device("meta"):
        heard = BUILDS[name]()
    assert misses(heard, built) == []


@pytest.mark.parametrize(("name", "kind"), [("Linear", "uniform"), ("Embedding", "normal"), ("LayerNorm", "constant")])
def test_the_kind_of_law(name, kind):
    with torch.device("meta"):
        law = parameter_records(BUILDS[name]())["weight"].law
    assert law is not None and law.kind == kind


def test_a_scaled_weight_is_missed():
    """A control: the same model with one weight a tenth wider."""
    torch.manual_seed(0)
    built: Any = gpt2()
    with torch.no_grad():
        built.transformer.h[1].mlp.c_proj.weight.mul_(1.1)
    with torch.device("meta"):
        heard = gpt2()
    assert [m.split(":")[0] for m in misses(heard, built)] == ["transformer.h.1.mlp.c_proj.weight"]


def test_gpt2_scales_its_residual_projections():
    with torch.device("meta"):
        records = parameter_records(gpt2())
    stds = {n: records[f"transformer.h.0.{n}.weight"].law.moments(())[1] for n in ("attn.c_attn", "attn.c_proj")}  # type: ignore[union-attr]
    assert stds["attn.c_proj"] == pytest.approx(stds["attn.c_attn"] / 6**0.5)  # 0.02 / sqrt(2 n_layer)


def test_listening_leaves_the_meta_model_as_it_was():
    with torch.device("meta"):
        model = gpt2()
    before = {n: (id(p), p.device.type, p.requires_grad) for n, p in model.named_parameters()}
    state = torch.get_rng_state()
    parameter_records(model)
    assert {n: (id(p), p.device.type, p.requires_grad) for n, p in model.named_parameters()} == before
    assert torch.equal(state, torch.get_rng_state())
