"""Recipes: what each draws, that the drawn signal is the predicted one, and what users may get wrong."""

# pyright: reportOptionalMemberAccess=false, reportArgumentType=false, reportOperatorIssue=false
# pyright: reportCallIssue=false, reportOptionalOperand=false, reportOptionalSubscript=false

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import fanin
from fanin.distributions import Constant, Normal, Orthogonal, Uniform, Zeros
from fanin.errors import ArgumentError, FaninError, ModelError
from fanin.frameworks.torch import verbs
from fanin.recipes import RECIPES
from fanin.recipes.transformer import Part, deepnorm_beta
from fanin.theory import interpret

torch.set_num_threads(1)


class Residual(nn.Module):
    """Dense blocks of two layers on a stream."""

    def __init__(self, width: int = 64, blocks: int = 4, norm: bool = False):
        super().__init__()
        self.stem = nn.Linear(20, width)
        tail = [nn.BatchNorm1d(width)] if norm else []
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), *tail) for _ in range(blocks)
        )
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


class Decoder(nn.Module):
    """Pre-norm blocks over a table that is also the head, unless ``tied`` is False."""

    def __init__(self, width: int = 32, layers: int = 2, tied: bool = True):
        super().__init__()
        self.table = nn.Embedding(50, width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 50, bias=False)
        if tied:
            self.head.weight = self.table.weight

    def forward(self, ids):
        x = self.table(ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


def mlp(widths, act=nn.ReLU) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b), act()]
    return nn.Sequential(*layers[:-1])


def conv_net(depth: int = 30, channels: int = 32) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Conv2d(channels if i else 1, channels, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * channels, 10))


CASES = {
    "dense": (lambda: mlp([20, 128, 128, 10]), lambda: torch.randn(64, 20)),
    "conv": (lambda: conv_net(3, 32), lambda: torch.rand(16, 1, 8, 8)),
    "residual": (Residual, lambda: torch.randn(64, 20)),
    "decoder": (lambda: Decoder(tied=False), lambda: torch.randint(0, 50, (4, 12))),
}
ON_CONV = ("auto", "he", "glorot", "lecun", "torch_default", "orthogonal")
ON_DECODER = ("auto", "gpt2", "t_fixup", "deepnorm", "deepscale", "mup")
PAIRS = [("residual", r) for r in RECIPES if r not in ("lsuv", "identity", "lora")]  # lora keeps one network
PAIRS += [("conv", r) for r in ON_CONV] + [("decoder", r) for r in ON_DECODER] + [("dense", "siren")]


@pytest.fixture(scope="module")
def read():
    """A reading of each case, traced once."""
    kept: dict = {}

    def of(case: str):
        if case not in kept:
            torch.manual_seed(0)
            make, batch = CASES[case]
            model, batch = make(), batch()
            kept[case] = model, batch, verbs.read_model(model, batch)
        return kept[case]

    return of


@pytest.mark.parametrize(("case", "recipe"), PAIRS)
def test_predicted_is_measured(read, case, recipe):
    """Every weighted tensor: the mean over seeds of log(measured / predicted) within four standard errors of zero."""
    model, batch, reading = read(case)
    plan = fanin.plan(model, batch, recipe=recipe)
    predicted = interpret(reading.graph, {n: e.distribution for n, e in plan.drawn.items()})
    runs = [verbs.measure_signals(reading, plan=plan, seed=k) for k in range(4)]
    for row in predicted.rows:
        if row.op not in ("linear", "conv2d", "embedding") or row.rms is None:
            continue
        found = np.array([run[row.name].rms for run in runs], float)
        if row.rms < 1e-12:
            assert found.max() < 1e-6
            continue
        logs = np.log(np.maximum(found, 1e-30) / row.rms)
        allowed = 4 * max(logs.std(ddof=1), 0.01) / math.sqrt(len(runs)) + 0.03
        assert abs(logs.mean()) < allowed, (row.name, row.rms, found)


def test_negative_control():
    """A plan off by a fifth is seen."""
    torch.manual_seed(0)
    model, batch = mlp([20, 128, 128, 10]), torch.randn(64, 20)
    plan = fanin.plan(model, batch, recipe="he")
    wrong = fanin.predict(model, batch, plan=fanin.plan(model, batch, recipe="he", slope=0.6))
    found = fanin.measure(model, batch, plan=plan)
    assert abs(math.log(found["2"].rms / wrong["2"].rms)) > 0.2


# --- auto ---------------------------------------------------------------------------------------------------------


def test_auto_holds_a_deep_conv_net():
    torch.manual_seed(0)
    model, batch = conv_net(30), torch.rand(16, 1, 8, 8)
    plan = fanin.plan(model, batch)
    rows = [r for r in fanin.predict(model, batch, plan=plan).rows if r.op == "conv2d"]
    assert all(r.rms == pytest.approx(1, abs=0.01) for r in rows)
    measured = fanin.measure(model, batch, plan=plan, seeds=2)
    assert 0.3 < measured[rows[-1].name].rms < 3


def test_auto_holds_a_deep_tanh_net_forward_and_backward():
    torch.manual_seed(0)
    model, batch = mlp([64, *[128] * 50, 10], nn.Tanh), torch.randn(64, 64)
    measured = fanin.measure(model, batch, plan=fanin.plan(model, batch))
    rows = [r for r in measured.rows if r.op == "linear"][:-1]
    assert all(0.4 < r.rms < 1.1 for r in rows)
    gradients = [r.grad_rms for r in rows]
    assert max(gradients) / min(gradients) < 10


@pytest.mark.parametrize("act", [nn.ReLU, nn.Tanh, nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU, nn.Softsign])
def test_auto_follows_the_activation(act):
    torch.manual_seed(0)
    model, batch = mlp([64, 256, 256, 10], act), torch.randn(128, 64)
    plan = fanin.plan(model, batch)
    gain = fanin.gain(act())
    assert all("pre-activation rms 1 for the" in plan[n].reason for n in ("0.weight", "2.weight"))
    assert plan["2.weight"].std == pytest.approx(gain / 16, rel=0.02)


def test_auto_is_idempotent_and_ignores_present_values():
    batch = torch.randn(16, 20)
    model = Residual()
    first = fanin.init_(model, batch, seed=0)
    second = fanin.init_(model, batch, seed=1)
    assert first == second


def test_auto_on_the_meta_device_equals_auto_on_a_real_model():
    ids = torch.randint(0, 50, (4, 12))
    with torch.device("meta"):
        meta = Decoder()
    made, real = fanin.plan(meta, ids), fanin.plan(Decoder(), ids)
    assert {n: e.distribution for n, e in made.drawn.items()} == {n: e.distribution for n, e in real.drawn.items()}


def test_auto_scales_residual_branches():
    torch.manual_seed(0)
    model, batch = Residual(blocks=9), torch.randn(64, 20)
    plan = fanin.plan(model, batch)
    assert "one of 9 residual branches" in plan["blocks.0.2.weight"].reason
    predicted = fanin.predict(model, batch, plan=plan)
    assert predicted["blocks.0"].rms == pytest.approx(1 / 3, rel=0.02)
    stream = [r.rms for r in predicted.rows if r.op == "add"]
    assert stream[-1] == pytest.approx(math.sqrt(2), rel=0.03)


def test_auto_says_when_a_norm_makes_the_scale_free():
    plan = fanin.plan(Residual(norm=True), torch.randn(32, 20))
    assert "a norm follows" in plan["blocks.0.2.weight"].reason
    assert plan["blocks.0.3.weight"].distribution == Constant(1.0)


def test_auto_starts_a_classifier_at_ignorance():
    torch.manual_seed(0)
    model, batch = conv_net(4), torch.rand(64, 1, 8, 8)
    fanin.init_(model, batch, seed=0)
    loss = nn.functional.cross_entropy(model(batch), torch.randint(0, 10, (64,)))
    assert loss.item() == pytest.approx(math.log(10), abs=0.15)
    rms = math.sqrt(2 * 0.05 * math.log(10))
    assert fanin.plan(model, batch, head=1.0)["9.weight"].std == pytest.approx(
        fanin.plan(model, batch)["9.weight"].std / rms, rel=1e-6
    )


@pytest.mark.parametrize(("outputs", "rms"), [(1, 0.3), (2, 0.3), (10, 0.48), (96, 0.676), (50257, 0.707)])
def test_outputs_start_within_a_share_of_ignorance(outputs, rms):
    plan = fanin.plan(nn.Linear(64, outputs), torch.randn(256, 64))
    assert plan["weight"].std == pytest.approx(rms / 8, rel=0.05)  # the batch has rms one to its 1 %
    with pytest.raises(fanin.FaninError, match="give 'auto' or a number above 0"):
        fanin.plan(nn.Linear(64, outputs), torch.randn(256, 64), head="big")


def test_auto_handles_tables_ties_and_norms():
    plan = fanin.plan(Decoder(), torch.randint(0, 50, (4, 12)))
    assert plan["table.weight"].std <= 0.02 and plan["head.weight"].tied_to == "table.weight"
    assert plan["layers.0.norm1.weight"].distribution == Constant(1.0)
    assert plan["layers.0.linear1.bias"].distribution == Zeros()
    assert "residual branches" in plan["layers.1.linear2.weight"].reason
    assert "logits" in plan["layers.0.self_attn.in_proj_weight"].reason
    lone = nn.Sequential(nn.Embedding(10, 8), nn.Linear(8, 4))
    assert fanin.plan(lone, torch.randint(0, 10, (2, 3)))["0.weight"].std == 1.0


@pytest.mark.parametrize(("activation", "pairs"), [(nn.ReLU, 2), (nn.ReLU, 3), (nn.GELU, 2)])
def test_auto_balances_alternating_widths(activation, pairs):
    """Mean squares of cotangents and of weights' gradients, spread over the hidden layers; the signal within bounds."""
    widths = [*[32, 512] * pairs, 32, 10]
    layers = [m for a, b in itertools.pairwise(widths) for m in (nn.Linear(a, b), activation())]
    model, batch = nn.Sequential(*layers[:-1]), torch.randn(256, 32, generator=torch.Generator().manual_seed(0))
    hidden = [n for n, m in model.named_modules() if isinstance(m, nn.Linear)][:-1]
    worst = {}
    for balance in ("forward", "both"):
        rows = fanin.measure(model, batch, seeds=12, plan=fanin.plan(model, batch, balance=balance))
        cotangents = [rows[n].grad_rms ** 2 for n in hidden]
        weights = [rows.parameters[f"{n}.weight"]["grad_rms"] ** 2 for n in hidden]
        worst[balance] = max(max(x) / min(x) for x in (cotangents, weights))
        assert balance == "forward" or all(0.5 <= rows[n].rms <= 2.05 for n in hidden)
    assert worst["both"] < 3 < 10 < worst["forward"]  # 2.52 for ReLU, 2.9 for GELU, without noise


def test_balanced_scales_of_relu_leave_the_cube_root_of_the_widths_spread():
    from fanin.recipes.balance import Layer, balanced, worst_spread
    from fanin.recipes.response import Response

    relu = Response("relu", lambda x: np.maximum(x, 0))
    chain = [Layer(str(i), n, 1.0, relu) for i, n in enumerate([512, 32, 512, 32])]
    rms = np.array(list(balanced(chain).values()))
    assert abs(worst_spread(chain, rms) - 16 ** (1 / 3)) < 0.1
    assert worst_spread(chain, np.ones(4)) > 15


@pytest.mark.parametrize("kind", ["normal", "uniform", "truncated_normal", "orthogonal"])
def test_auto_keeps_the_scale_in_any_distribution(kind):
    torch.manual_seed(0)
    model, batch = conv_net(3), torch.rand(16, 1, 8, 8)
    plan, base = fanin.plan(model, batch, distribution=kind), fanin.plan(model, batch)
    assert plan["2.weight"].distribution.kind == kind
    assert plan["2.weight"].std == pytest.approx(base["2.weight"].std, rel=0.02)


def test_auto_without_signal_says_so():
    plan = fanin.plan(mlp([8, 8, 3]), torch.zeros(4, 8))
    assert plan["0.weight"].std == pytest.approx(1 / math.sqrt(8), rel=1e-6)
    assert any("no signal" in note for note in plan.notes)


def test_auto_plans_around_what_has_no_rule():
    class Cells(nn.Module):
        def __init__(self):
            super().__init__()
            self.cells, self.head = nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 3)

        def forward(self, x):
            return self.head(self.cells(x)[0][:, -1])

    plan = fanin.plan(Cells(), torch.randn(4, 6, 8))
    assert plan["cells.weight_hh_l0"].std == pytest.approx(0.25)
    assert plan["cells.bias_hh_l0"].distribution == Zeros()


def test_a_shared_layer_is_decided_once():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head = nn.Linear(16, 16), nn.Linear(16, 2)

        def forward(self, x):
            for _ in range(3):
                x = torch.relu(self.layer(x))
            return self.head(x)

    plan = fanin.plan(Shared(), torch.randn(32, 16))
    assert "used 3 times" in plan["layer.weight"].reason


@pytest.mark.parametrize(("ratio", "due"), [(5, True), (2, False)])
def test_gradients_that_differ_along_depth_are_said(ratio, due):
    """Each layer keeps the signal and divides the gradient's rms by the root of its fan_in over its fan_out."""
    sizes = [*(8 * ratio**k for k in (4, 3, 2, 1, 0)), 4]
    model, batch = mlp(sizes), torch.randn(8, sizes[0])
    said = [note for note in fanin.plan(model, batch).notes if note.startswith("gradients of pre-activations")]
    assert bool(said) == due
    if due:
        factor = float(said[0].split("factor of ")[1].split(",")[0])
        run = fanin.measure(model, batch, plan=fanin.plan(model, batch), seeds=4)
        seen = [run[str(layer)].grad_rms for layer in (0, 2, 4, 6)]
        assert factor == pytest.approx(max(seen) / min(seen), rel=0.25)
    assert not [n for n in fanin.plan(model, batch, balance="backward").notes if 'balance="both"' in n]


def test_written_out_activations_are_recognised():
    class Written(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(32, 64), nn.Linear(32, 64), nn.Linear(64, 8)

        def forward(self, x):
            gate = self.a(x)
            return self.c(gate * torch.sigmoid(gate) * self.b(x))

    plan = fanin.plan(Written(), torch.randn(64, 32))
    assert "silu" in plan["a.weight"].reason


def test_auto_says_what_no_scale_can_hold():
    notes = fanin.plan(mlp([32] * 40, nn.Sigmoid), torch.randn(16, 32)).notes
    assert any("sigmoid" in note and "a norm or residual sums" in note for note in notes)
    notes = fanin.plan(mlp([32] * 40, nn.ReLU), torch.randn(16, 32)).notes
    assert not any("a norm or residual sums" in note for note in notes)


def test_auto_scales_queries_by_what_the_model_divides_by():
    class Attend(nn.Module):
        def __init__(self, scale: float):
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(32, 32) for _ in range(3))
            self.scale = scale

        def forward(self, x):
            weights = torch.softmax(self.q(x) @ self.k(x).transpose(1, 2) * self.scale, -1)
            return weights @ self.v(x)

    torch.manual_seed(0)
    x = torch.randn(8, 10, 32)
    plain, divided = (fanin.plan(Attend(s), x) for s in (1.0, 32**-0.5))
    assert divided["q.weight"].std == pytest.approx(32**-0.5, rel=0.05)
    assert plain["q.weight"].std == pytest.approx(divided["q.weight"].std * 32**-0.25, rel=1e-6)


# --- named recipes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "options", "wanted"),
    [
        ("he", {}, Normal(math.sqrt(2 / 20))),
        ("he", {"mode": "fan_out", "distribution": "uniform"}, Uniform(math.sqrt(2 / 80))),
        ("he", {"slope": 0.5}, Normal(math.sqrt(1.6 / 20))),
        ("glorot", {}, Normal(math.sqrt(2 / 100))),
        ("glorot", {"distribution": "uniform", "gain": 2.0}, Uniform(2 * math.sqrt(2 / 100))),
        ("lecun", {}, Normal(math.sqrt(1 / 20))),
        ("selu", {}, Normal(math.sqrt(1 / 20))),
        ("keras_default", {}, Uniform(math.sqrt(2 / 100))),
        ("torch_default", {}, Uniform(1 / math.sqrt(60))),
        ("orthogonal", {"gain": 1.5}, Orthogonal(1.5)),
        ("fixed", {"std": 0.01}, Normal(0.01)),
        ("dcgan", {}, Normal(0.02)),
        ("zero", {}, Zeros()),
    ],
)
@pytest.mark.parametrize("with_batch", [True, False])
def test_dense_weight(recipe, options, wanted, with_batch):
    model = nn.Sequential(nn.Linear(20, 80), nn.ReLU(), nn.Linear(80, 5))
    made = fanin.plan(model, torch.randn(4, 20) if with_batch else None, recipe=recipe, **options)
    found = made["0.weight"].distribution
    assert type(found) is type(wanted)
    assert found.moments((80, 20)) == pytest.approx(wanted.moments((80, 20)), rel=1e-12)


def test_torch_default_is_what_torch_draws():
    torch.manual_seed(0)
    modules = [nn.Linear(300, 200), nn.Conv2d(16, 32, 3, groups=4), nn.ConvTranspose2d(16, 32, 3), nn.GRU(64, 64)]
    for module in modules:
        made = fanin.plan(module, recipe="torch_default")
        for name, value in module.named_parameters():
            bound = made[name].distribution.bounds[1]
            assert value.abs().max().item() <= bound * (1 + 1e-6)
            assert value.abs().max().item() > bound * 0.8


def test_keras_default_bounds():
    plan = fanin.plan(nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 2)), recipe="keras_default")
    assert plan["0.weight"].distribution.bounds == pytest.approx((-0.05, 0.05))


def test_gpt2_scales_projections_by_graph():
    plan = fanin.plan(Decoder(layers=3), torch.randint(0, 50, (2, 8)), recipe="gpt2")
    for name in ("layers.2.linear2.weight", "layers.0.self_attn.out_proj.weight"):
        assert plan[name].std == pytest.approx(0.02 / math.sqrt(6))
    for name in ("table.weight", "layers.0.linear1.weight", "layers.0.self_attn.in_proj_weight"):
        assert plan[name].std == 0.02


def test_gpt2_of_transformers():
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_layer=2, n_embd=32, n_head=2, vocab_size=60, n_positions=16, bos_token_id=0, eos_token_id=0)
    plan = fanin.plan(GPT2LMHeadModel(config), {"input_ids": torch.randint(0, 60, (2, 8))}, recipe="gpt2")
    scaled = {n for n, e in plan.drawn.items() if e.std == pytest.approx(0.01)}
    assert scaled == {f"transformer.h.{i}.{m}.c_proj.weight" for i in range(2) for m in ("attn", "mlp")}


def test_fixup():
    plan = fanin.plan(Residual(blocks=16), torch.randn(8, 20), recipe="fixup")
    assert plan["blocks.3.2.weight"].distribution == Zeros() == plan["head.weight"].distribution
    assert plan["blocks.3.0.weight"].std == pytest.approx(math.sqrt(2 / 64) * 16**-0.5)
    assert plan["stem.weight"].std == pytest.approx(math.sqrt(2 / 20))


def test_skipinit_closes_each_branch_once():
    plain = fanin.plan(Residual(), torch.randn(8, 20), recipe="skipinit")
    normed = fanin.plan(Residual(norm=True), torch.randn(8, 20), recipe="skipinit")
    assert plain["blocks.0.2.weight"].distribution == Zeros()
    assert normed["blocks.0.3.weight"].distribution == Zeros()
    assert normed["blocks.0.2.weight"].distribution != Zeros()
    model, batch = Residual(), torch.randn(8, 20)
    fanin.init_(model, batch, recipe="skipinit")
    assert torch.equal(model(batch), model.head(model.stem(batch)))


def test_t_fixup_and_deepnorm():
    model = nn.Transformer(32, 4, 1, 2, 64, batch_first=True)
    batch = (torch.randn(2, 5, 32), torch.randn(2, 6, 32))
    deep, fixed = (fanin.plan(model, batch, recipe=r) for r in ("deepnorm", "t_fixup"))
    xavier = math.sqrt(2 / 96)
    beta = 0.87 * (1**4 * 2) ** (-1 / 16)
    assert deep["encoder.layers.0.linear1.weight"].std == pytest.approx(beta * xavier)
    assert deep["decoder.layers.1.linear2.weight"].std == pytest.approx((12 * 2) ** -0.25 * xavier)
    crossed = deep["decoder.layers.1.multihead_attn.out_proj.weight"]
    assert crossed.std == pytest.approx((12 * 2) ** -0.25 / math.sqrt(32))
    assert fixed["encoder.layers.0.linear1.weight"].std == pytest.approx(0.67 * xavier)
    assert fixed["decoder.layers.0.linear1.weight"].std == pytest.approx((9 * 2) ** -0.25 * xavier)
    assert any("alpha" in note for note in deep.notes)
    assert deepnorm_beta(Part("ffn", False, 12, 0)) == pytest.approx((8 * 12) ** -0.25)


def test_siren():
    class Sine(nn.Module):
        def forward(self, x):
            return torch.sin(30 * x)

    model = nn.Sequential(nn.Linear(2, 256), Sine(), nn.Linear(256, 256), Sine(), nn.Linear(256, 3))
    plan = fanin.plan(model, torch.rand(64, 2) * 2 - 1, recipe="siren")
    assert plan["0.weight"].distribution.bounds[1] == pytest.approx(0.5)
    assert plan["2.weight"].distribution.bounds[1] == pytest.approx(math.sqrt(6 / 256) / 30)


def test_mup():
    plan = fanin.plan(mlp([20, 64, 64, 10]), torch.randn(8, 20), recipe="mup")
    stds = [plan[n].std for n in ("0.weight", "2.weight", "4.weight")]
    assert stds == pytest.approx([1 / math.sqrt(20), 1 / 8, 1 / 64])
    assert [plan[n].rate for n in ("0.weight", "2.weight", "4.weight")] == [1.0, 1 / 64, 1 / 64]
    deep = fanin.plan(Residual(), torch.randn(8, 20), recipe="mup", depth=True)
    assert deep["blocks.0.2.weight"].std == pytest.approx(1 / 8 / 2)


def test_fans_follow_the_use_not_the_shape():
    class Uses(nn.Module):
        def __init__(self):
            super().__init__()
            self.raw = nn.Parameter(torch.randn(20, 80))
            self.up = nn.ConvTranspose2d(1, 8, 4, stride=2)

        def forward(self, x):
            return self.up((x @ self.raw).reshape(-1, 1, 8, 10))

    plan = fanin.plan(Uses(), torch.randn(4, 20), recipe="he")
    assert (plan["raw"].fans.fan_in, plan["raw"].fans.fan_out) == (20, 80)
    assert plan["up.weight"].fans.fan_in == 4


# --- LSUV ---------------------------------------------------------------------------------------------------------


def test_lsuv_in_one_pass():
    torch.manual_seed(0)
    model, batch = conv_net(20), torch.rand(32, 1, 8, 8)
    plan = fanin.init_(model, batch, recipe="lsuv", seed=1)
    stds: list[float] = []
    hooks = [
        m.register_forward_hook(lambda m, i, o: stds.append(o.std(correction=0).item()))
        for m in model
        if hasattr(m, "weight")
    ]
    model(batch)
    for hook in hooks:
        hook.remove()
    assert stds == pytest.approx([1.0] * 21, rel=1e-3)
    again = conv_net(20)
    fanin.apply(plan, again, seed=1)
    assert all(torch.allclose(a, b, rtol=1e-5) for a, b in zip(model.parameters(), again.parameters()))


def test_lsuv_with_shared_layers_residuals_and_batch_norm():
    torch.manual_seed(0)
    model, batch = Residual(norm=True), torch.randn(32, 20)
    state = {n: b.clone() for n, b in model.named_buffers()}
    fanin.init_(model, batch, recipe="lsuv")
    assert model.training and all(torch.equal(state[n], b) for n, b in model.named_buffers())
    assert model.stem(batch).std(correction=0).item() == pytest.approx(1, rel=1e-3)


class Twice(nn.Module):
    """One matrix, transposed once and applied three times; then another."""

    def __init__(self):
        super().__init__()
        self.first = nn.Parameter(torch.randn(24, 24))
        self.last = nn.Linear(24, 8)

    def forward(self, x):
        turned = self.first.t()
        seen = [x @ turned]
        for _ in range(2):
            seen.append(torch.tanh(seen[-1]) @ turned)
        return self.last(torch.relu(seen[-1])), seen[0]


@pytest.mark.parametrize("offset", [0.0, 3.0, 3000.0])
def test_lsuv_scales_a_matrix_before_it_is_met_again(offset):
    torch.manual_seed(0)
    model, batch = Twice(), torch.randn(64, 24) * 0.1 + offset
    fanin.init_(model, batch, recipe="lsuv")
    out, first = model(batch)
    assert [first.std(correction=0).item(), out.std(correction=0).item()] == pytest.approx([1, 1], rel=1e-3)


def test_lsuv_on_bad_data_leaves_the_model_alone():
    model, batch = mlp([8, 8, 3]), torch.randn(4, 8)
    before = [p.detach().clone() for p in model.parameters()]
    batch[0, 0] = float("nan")
    with pytest.raises(ModelError, match="not finite"):
        fanin.init_(model, batch, recipe="lsuv")
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))


# --- mistakes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"recipe": "kaimng"}, "is no recipe"),
        ({"recipe": "gloro"}, "did you mean 'glorot'"),
        ({"recipe": None}, "is no recipe"),
        ({"recipe": "he", "mod": "fan_in"}, "did you mean 'mode'"),
        ({"recipe": "he", "mode": "fanin"}, "did you mean 'fan_in'"),
        ({"recipe": "he", "slope": "x"}, "slope"),
        ({"recipe": "glorot", "gain": -1}, "above 0"),
        ({"recipe": "glorot", "gain": float("nan")}, "gain"),
        ({"recipe": "auto", "balance": "sideways"}, "balance"),
        ({"recipe": "auto", "distribution": "gauss"}, "distribution"),
        ({"recipe": "mup", "depth": 1}, "True or False"),
        ({"recipe": "zero", "mode": "fan_in"}, "none"),
        ({"recipe": {"heads": "zero"}}, "matches no parameter"),
        ({"recipe": {"0": "zero"}, "mode": "fan_in"}, "none of the recipes"),
        ({"recipe": {"0": "zer"}}, "did you mean 'zero'"),
    ],
)
def test_mistakes_are_named(options, words):
    with pytest.raises(ArgumentError, match=words):
        fanin.plan(mlp([8, 8, 3]), torch.randn(4, 8), **options)


@pytest.mark.parametrize("recipe", [name for name, row in RECIPES.items() if row.needs_batch])
def test_recipes_that_need_a_batch_say_so(recipe):
    with pytest.raises(ArgumentError, match="without a batch"):
        fanin.plan(mlp([8, 8, 3]), recipe=recipe)


def test_a_failed_plan_leaves_the_model_alone():
    model = mlp([8, 8, 3])
    before = [p.detach().clone() for p in model.parameters()]
    for bad in ({"recipe": "nope"}, {"recipe": {"nope.*": "he"}}):
        with pytest.raises(FaninError):
            fanin.init_(model, torch.randn(4, 8), **bad)
    with pytest.raises(FaninError):
        fanin.init_(model, torch.randn(4, 9))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))


def test_patterns_compose():
    model, batch = Residual(), torch.randn(8, 20)
    plan = fanin.plan(model, batch, recipe={"*.head": "zero", "blocks.*": "he"}, mode="fan_out")
    assert plan["head.weight"].distribution == Zeros()
    assert plan["blocks.0.0.weight"].reason.endswith("fan_out 64")
    assert plan["stem.weight"].distribution is None
    assert fanin.Plan.from_json(plan.to_json()) == plan
    full = fanin.plan(model, batch, recipe={"head": "zero", "*": "auto"})
    assert full["stem.weight"].distribution == fanin.plan(model, batch)["stem.weight"].distribution


def test_every_recipe_has_a_source():
    assert all(row.source for row in RECIPES.values())


def test_the_documentation_runs():
    text = (Path(__file__).parent.parent / "docs" / "recipes.md").read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.S))
    exec(compile(code, "recipes.md", "exec"), {})
    assert all(f"`{name}`" in text for name in RECIPES)
