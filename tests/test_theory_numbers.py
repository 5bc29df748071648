"""Figures of the literature that come out of the graph engine: each test is one line of docs/theory.md."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from test_theory_rules_contraction import Made  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import fanin  # noqa: E402
from fanin.distributions import Normal, Uniform  # noqa: E402
from fanin.frameworks.torch.verbs import read_model  # noqa: E402
from fanin.theory import Interpreter, interpret  # noqa: E402


def meta(build) -> nn.Module:
    """A model without weights: the laws below are then all that is known of them."""
    with torch.device("meta"):
        return build()


def seconds(net: nn.Module, batch, law, names: Iterable[str]) -> list[float]:
    """Predicted mean squares of the named rows; weights by a law of their shape, biases zero."""
    reading = read_model(net, batch)
    laws = {n: law(p.shape) if p.dim() > 1 else fanin.distributions.Constant(0.0) for n, p in net.named_parameters()}
    rows = interpret(reading.graph, laws)
    return [rows[name].rms ** 2 for name in names]  # type: ignore[operator]


def he(shape) -> Normal:
    return Normal((2 / shape[1:].numel()) ** 0.5)


# --- zero padding ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [8, 16, 32])
def test_zero_padding_decay(numbers, size):
    """3x3 convolutions with padding 1 and He weights: the mean square after the ReLU of layer l, twice."""
    depths = (1, 2, 5, 10, 20, 50)
    net = meta(
        lambda: nn.Sequential(*[m for _ in range(50) for m in (nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.ReLU())])
    )
    x = np.random.default_rng(0).standard_normal((8, 64, size, size)).astype(np.float32)
    x /= np.sqrt((x**2).mean((0, 1)))  # every pixel has a mean square of one, as the figures take it
    found = seconds(net, torch.from_numpy(x), he, [str(2 * d - 2) for d in depths])
    wanted = numbers["zero_padding"]["mean_second_moment_after_1_2_5_10_20_50_he_relu_layers"][str(size)]
    assert np.array(found) / 2 == pytest.approx(wanted, rel=0.01)


def test_zero_padding_is_what_decays():
    """A control: circular padding keeps everything."""
    net = meta(
        lambda: nn.Sequential(*[nn.Conv2d(64, 64, 3, padding=1, bias=False, padding_mode="circular"), nn.ReLU()])
    )
    x = torch.randn(8, 64, 8, 8, generator=torch.Generator().manual_seed(0))
    assert seconds(net, x, he, ["1"])[0] == pytest.approx(float(x.square().mean()), rel=1e-3)


# --- correlation map ------------------------------------------------------------------------------------------------


def correlations(depth: int, activation: type[nn.Module] = nn.ReLU) -> list[float]:
    """Correlation of two orthogonal samples after each hidden layer of He weights."""
    net = meta(lambda: nn.Sequential(*[m for _ in range(depth) for m in (nn.Linear(64, 64, bias=False), activation())]))
    x = torch.zeros(2, 64)
    x[0, :32] = x[1, 32:] = 2.0**0.5
    reading = read_model(net, x)
    interpreter = Interpreter(reading.graph, {n: Normal((2 / 64) ** 0.5) for n, _ in net.named_parameters()})
    interpreter.run()
    op = "relu" if activation is nn.ReLU else "linear"
    laws = [interpreter.values[node.id] for node in reading.graph.signals if node.op == op]
    return [law.pair({"sample"}) / law.second for law in laws]  # type: ignore[union-attr]


def test_relu_correlation_map(numbers):
    figures, found = numbers["relu_correlation_map"], correlations(10)
    assert found[0] == pytest.approx(figures["from_0_after_1"], abs=1e-4)
    assert found[9] == pytest.approx(figures["from_0_after_10"], abs=1e-3)


def test_linear_layers_keep_correlations():
    assert correlations(5, nn.Identity)[-1] == pytest.approx(0.0, abs=1e-9)


# --- Glorot 2010, He 2015 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["standard", "normalized"])
def test_glorot_figure_6(numbers, scheme):
    """Five tanh layers of 1000 units on inputs of variance 1/3: std of the activations."""
    net = meta(lambda: nn.Sequential(*[m for _ in range(5) for m in (nn.Linear(1000, 1000), nn.Tanh())]))
    x = torch.rand(64, 1000, generator=torch.Generator().manual_seed(0)) * 2 - 1
    x *= (1 / 3 / x.square().mean()).sqrt()
    std = {"standard": (3 * 1000) ** -0.5, "normalized": 1000**-0.5}[scheme]
    found = np.sqrt(seconds(net, x, lambda shape: Uniform(std), [str(2 * i + 1) for i in range(5)]))
    wanted = numbers["glorot_2010"]["figure6_activation_std_tanh_width1000_input_variance_one_third"][scheme]
    assert found == pytest.approx(wanted, rel=0.01)  # the figures are of one Monte Carlo run, to three digits


@pytest.mark.parametrize("depth", ["22", "30"])
def test_xavier_against_he_after_many_relu_layers(numbers, depth):
    """Xavier halves the variance a layer: what is left of the std against He's after L - 1 hidden layers of weights."""
    layers = int(depth)
    net = meta(lambda: nn.Sequential(*[m for _ in range(layers) for m in (nn.Linear(64, 64, bias=False), nn.ReLU())]))
    x = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    last = [str(2 * layers - 1)]
    xavier, he_ = (seconds(net, x, lambda s, g=g: Normal((g / 64) ** 0.5), last)[0] for g in (1.0, 2.0))
    wanted = numbers["he_2015"]["xavier_vs_he_std_after_L_relu_layers"][depth]
    assert (xavier / he_) ** 0.5 == pytest.approx(wanted, rel=2e-3)


# --- activations through the graph ----------------------------------------------------------------------------------

MODULES = {
    "linear": nn.Identity, "relu": nn.ReLU, "leaky_relu(0.01)": nn.LeakyReLU,
    "leaky_relu(0.1)": lambda: nn.LeakyReLU(0.1), "leaky_relu(0.2)": lambda: nn.LeakyReLU(0.2),
    "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "softsign": nn.Softsign,
    "elu(1)": nn.ELU, "selu": nn.SELU, "gelu(erf)": nn.GELU, "gelu(tanh)": lambda: nn.GELU("tanh"), "silu": nn.SiLU,
    "mish": nn.Mish, "softplus": nn.Softplus, "hardswish": nn.Hardswish, "hardsigmoid": nn.Hardsigmoid,
    "hardtanh": nn.Hardtanh, "logsigmoid": nn.LogSigmoid, "tanhshrink": nn.Tanhshrink,
}  # fmt: skip
FUNCTIONS = {"erf": torch.erf, "sin": torch.sin, "arctan": torch.atan}


def on_unit_gaussian(fn):
    """The row of fn(z), z the N(0, 1) pre-activation of a layer whose inputs all have a mean square of one."""
    net = Made(lambda m, x: fn(x @ m.w), w=(64, 64))
    reading = read_model(net, torch.ones(2, 64))
    return interpret(reading.graph, {"w": Normal(64**-0.5)}).rows[-1]


@pytest.mark.parametrize("name", [*MODULES, *FUNCTIONS])
def test_activation(numbers, name):
    wanted = numbers["activations_at_unit_gaussian"]["table"][name]
    row = on_unit_gaussian(MODULES[name]() if name in MODULES else FUNCTIONS[name])
    assert row.rms is not None
    assert row.rms**2 == pytest.approx(wanted["second_moment"], abs=1e-3)
    assert row.mean == pytest.approx(wanted["mean"], abs=1e-3)


def test_every_activation_of_the_table_is_tested(numbers):
    """All but PReLU, which has a parameter of its own."""
    table = set(numbers["activations_at_unit_gaussian"]["table"])
    assert table - set(MODULES) - set(FUNCTIONS) == {"prelu(0.25)"}


def spelled_gelu(x):
    return 0.5 * x * (1.0 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * torch.pow(x, 3.0))))


def test_gelu_spelled_out_is_the_fused_one():
    spelled, fused = on_unit_gaussian(spelled_gelu), on_unit_gaussian(lambda x: F.gelu(x, approximate="tanh"))
    assert spelled.exact
    assert spelled.rms == pytest.approx(fused.rms, rel=1e-9)
    assert spelled.mean == pytest.approx(fused.mean, rel=1e-9)
    assert spelled.rms != pytest.approx(on_unit_gaussian(F.gelu).rms, rel=1e-6)  # the erf form is another function


def test_rms_norm_spelled_out_is_one():
    def spelled(x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True))

    row = on_unit_gaussian(lambda x: spelled(torch.relu(3 * x) + 0.5))
    assert row.exact
    assert row.rms == pytest.approx(1.0, abs=1e-6)


def test_selu_keeps_mean_and_second_moment():
    row = on_unit_gaussian(F.selu)
    assert (row.mean, row.rms) == (pytest.approx(0, abs=1e-4), pytest.approx(1, abs=1e-4))


# --- deep tanh nets -------------------------------------------------------------------------------------------------


def test_tanh_gain_five_thirds(numbers):
    """PyTorch's gain of tanh: where the signal of a deep net settles."""
    net = meta(lambda: nn.Sequential(*[m for _ in range(40) for m in (nn.Linear(64, 64, bias=False), nn.Tanh())]))
    x = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    found = seconds(net, x, lambda shape: Normal(5 / 3 / 8), ["79"])[0] ** 0.5
    assert found == pytest.approx(numbers["mean_field_tanh_critical_line"]["gain_5_3"]["output_std"], rel=1e-3)


@pytest.mark.parametrize("b", ["0.05", "0.1", "0.2236068", "1.0"])
def test_tanh_on_the_critical_line_keeps_nearby_samples(numbers, b):
    """At the critical sigma_w two close samples neither part nor meet: their distance hardly changes in a layer."""
    w, depth = numbers["mean_field_tanh_critical_line"]["sigma_b_to_sigma_w"][b], 30
    net = meta(lambda: nn.Sequential(*[m for _ in range(depth) for m in (nn.Linear(64, 64), nn.Tanh())]))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 64, generator=generator) + 0.02 * torch.randn(2, 64, generator=generator)

    def apart(sigma_w: float) -> float:
        reading = read_model(net, x)
        laws = {n: Normal(sigma_w / 8 if p.dim() > 1 else float(b)) for n, p in net.named_parameters()}
        interpreter = Interpreter(reading.graph, laws)
        interpreter.run()
        at = [interpreter.values[node.id] for node in reading.graph.signals if node.op == "tanh"]
        gap = [1 - law.pair({"sample"}) / law.second for law in at]  # type: ignore[union-attr]
        return (gap[-1] / gap[-11]) ** (1 / 10)

    assert apart(w) == pytest.approx(1.0, abs=0.03)
    assert apart(1.2 * w) > 1.05 > 0.95 > apart(0.8 * w)  # a control on either side
