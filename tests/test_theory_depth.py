"""Depth: repeating blocks are found, their trends and phases named, fixed points and Jacobians as closed forms say."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import fanin  # noqa: E402
from fanin.activations import phase  # noqa: E402
from fanin.distributions import Constant, Normal  # noqa: E402
from fanin.frameworks.torch.verbs import read_model  # noqa: E402
from fanin.theory import Interpreter  # noqa: E402
from fanin.theory.depth import Layer, chain, settle, spectrum, stacks, trend  # noqa: E402

N = 64
X = torch.randn(8, N, generator=torch.Generator().manual_seed(0))


def dense(depth: int, activation: type[nn.Module] = nn.Tanh, *, bias: bool = False, width: int = N) -> nn.Module:
    return nn.Sequential(*[m for _ in range(depth) for m in (nn.Linear(width, width, bias=bias), activation())])


def interpreted(net: nn.Module, sigma_w: float, sigma_b: float = 0.0, batch=X) -> tuple[Interpreter, fanin.Signals]:
    """An interpreter that has run, and its rows; weights of std sigma_w / sqrt(fan_in)."""
    reading = read_model(net, batch)
    laws = {}
    for name, p in net.named_parameters():
        bias = Constant(1.0) if "norm.weight" in name else Normal(sigma_b) if sigma_b else Constant(0.0)
        laws[name] = Normal(sigma_w * p[0].numel() ** -0.5) if p.dim() > 1 else bias
    interpreter = Interpreter(reading.graph, laws)
    return interpreter, interpreter.run()


# --- blocks ---------------------------------------------------------------------------------------------------------


class Block(nn.Module):
    """A residual branch behind a norm."""

    def __init__(self):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(N), nn.Linear(N, 2 * N), nn.Linear(2 * N, N)

    def forward(self, x):
        return x + self.down(torch.relu(self.up(self.norm(x))))


class Stream(nn.Module):
    def __init__(self, depth: int):
        super().__init__()
        self.stem = nn.Linear(N, N)
        self.layers = nn.ModuleList([Block() for _ in range(depth)])
        self.head = nn.Linear(N, 10)

    def forward(self, x):
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


class Parallel(nn.Module):
    """Experts that all read the same."""

    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList([nn.Linear(N, N) for _ in range(4)])

    def forward(self, x):
        return sum(expert(x) for expert in self.experts)


class Named(nn.Module):
    """Layers numbered in their names, activations between them."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.fc3, self.fc4 = (nn.Linear(N, N) for _ in range(4))

    def forward(self, x):
        for layer in (self.fc1, self.fc2, self.fc3):
            x = torch.tanh(layer(x))
        return self.fc4(x)


def found(net: nn.Module) -> list[tuple[str, ...]]:
    return [stack.blocks for stack in stacks(read_model(net, X).graph)]


def test_blocks_are_found_by_their_paths():
    assert found(Stream(3)) == [("layers.0", "layers.1", "layers.2")]
    assert found(dense(4)) == [("1", "3", "5", "7")]
    assert found(Named()) == [("fc1", "fc2", "fc3", "fc4")]
    assert found(nn.Sequential(nn.Linear(N, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, N))) == []
    assert found(nn.Sequential(dense(3), nn.Linear(N, 16), dense(3, width=16))) == [
        ("0.1", "0.3", "0.5"),
        ("2.1", "2.3", "2.5"),
    ]


def test_parallel_modules_are_no_stack():
    assert found(Parallel()) == []


# --- trends ---------------------------------------------------------------------------------------------------------


def test_trends():
    steady, grown = trend([1.0, 1.0001, 1.0, 1.0002]), trend([5.0, 3.0, 2.0, *(2 * 1.1**k for k in range(1, 10))])
    assert steady and steady.form == "steady" and math.isinf(steady.half_life)
    assert grown and grown.form == "exponential" and grown.start in (1, 2)
    assert grown.growth == pytest.approx(1.1, rel=1e-3) and grown.half_life == pytest.approx(7.27, rel=0.01)
    stream = [(3.0 + k) ** 0.5 for k in range(12)]
    power, back = trend(stream), trend([1 / y for y in stream], backward=True)
    assert power and power.form == "power" and power.exponent == pytest.approx(0.5, abs=0.02)
    assert back and back.form == "power" and back.exponent == pytest.approx(-0.5, abs=0.02)
    uneven = trend([1.0, 5.0, 0.2, 7.0, 0.1, 3.0])
    assert uneven and uneven.form == "irregular"
    assert trend([1.0, None, 2.0]) is None and trend([1.0, math.inf, 2.0]) is None and trend([1.0, 0.0, 2.0]) is None


def test_trend_of_drawn_weights_is_read_through_their_scatter():
    rng = np.random.default_rng(0)
    seen = trend([1.1**k * math.exp(0.01 * rng.standard_normal()) for k in range(20)])
    assert seen and seen.form == "exponential" and seen.growth == pytest.approx(1.1, rel=0.01)


# --- phases ---------------------------------------------------------------------------------------------------------


def depth(net: nn.Module, sigma_w: float, sigma_b: float = 0.0) -> dict:
    return interpreted(net, sigma_w, sigma_b)[1].facts["depth"][0]


def test_chaotic_tanh(numbers):
    said = depth(dense(20), 5 / 3)
    assert said["phase"] == "chaotic" and said["signal"]["form"] == "steady"
    assert said["chi"] == pytest.approx(numbers["mean_field_tanh_critical_line"]["gain_5_3"]["chi"], rel=0.01)
    assert said["gradient"]["half_life"] == pytest.approx(7.28, rel=0.05)
    assert "chaotic" in said["text"] and "grow 1.1× a block" in said["text"]


@pytest.mark.parametrize(
    ("net", "sigma_w", "sigma_b", "wanted"),
    [
        (dense(20, bias=True), 1.0, 0.5, "ordered"),
        (dense(20), 0.8, 0.0, "ordered"),
        (dense(20, bias=True), 1.193401, 0.1, "critical"),
        (dense(20, nn.ReLU), 2**0.5, 0.0, "critical"),
        (dense(20, nn.ReLU), 2.0, 0.0, "chaotic"),
    ],
)
def test_phases(net, sigma_w, sigma_b, wanted):
    said = depth(net, sigma_w, sigma_b)
    assert said["phase"] == wanted
    assert (said["sensitivity"] or 0) < 1.2


def test_samples_meet_in_order_and_part_in_chaos():
    ordered, chaotic = depth(dense(20, bias=True), 1.0, 0.5), depth(dense(20), 5 / 3)
    assert ordered["samples"][-1] == pytest.approx(1, abs=1e-3) and abs(chaotic["samples"][-1]) < 0.02
    assert ordered["samples"][0] < 0.8


def test_residual_stream_is_critical_with_powers_of_the_depth():
    """Branches of equal size behind norms: the rms grows as the root of the depth, the gradient falls so."""
    said = depth(Stream(16), 1.0)
    assert said["phase"] == "critical"
    for side, sign in (("signal", 1), ("gradient", -1)):
        assert said[side]["form"] == "power" and said[side]["exponent"] == pytest.approx(0.5 * sign, abs=0.12)
        assert math.isinf(said[side]["half_life"])


# --- fixed points ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sigma_w", "sigma_b"), [(5 / 3, 0.0), (1.5, 0.3), (1.0, 0.5)])
def test_fixed_points_of_the_rules_are_those_of_the_closed_form(sigma_w, sigma_b):
    """The block's own rules iterated, against the maps of variance and correlation (of pre-activations)."""
    interpreter, _ = interpreted(dense(4, bias=bool(sigma_b)), sigma_w, sigma_b)
    said, wanted = settle(interpreter, stacks(interpreter.graph)[0]), phase("tanh", sigma_w, sigma_b)
    assert said is not None and said.q is not None and said.c is not None and wanted.c is not None
    assert sigma_w**2 * said.q + sigma_b**2 == pytest.approx(wanted.q, rel=1e-3)
    assert (sigma_w**2 * said.q * said.c + sigma_b**2) / wanted.q == pytest.approx(wanted.c, abs=3e-3)
    assert said.xi_q == pytest.approx(wanted.xi_q, rel=0.05)
    if wanted.c < 0.97:
        assert said.xi_c == pytest.approx(wanted.xi_c, rel=0.05)


def test_blocks_without_a_fixed_point():
    kept, dying = (
        settle(i, stacks(i.graph)[0])
        for i in (interpreted(dense(4, nn.ReLU), 2**0.5)[0], interpreted(dense(4, nn.ReLU), 1.0)[0])
    )
    assert kept and kept.q is None and kept.growth == pytest.approx(1) and "keeps" in kept.text()
    assert dying and dying.q is None and dying.growth == pytest.approx(0.5, rel=1e-3)


def test_phase_of_a_dead_net_and_on_the_critical_line(numbers):
    assert (phase("tanh", 0.8).q, phase("tanh", 0.8).c, phase("tanh", 0.8).name) == (0.0, None, "ordered")
    for b, w in numbers["mean_field_tanh_critical_line"]["sigma_b_to_sigma_w"].items():
        found = phase("tanh", w, float(b))
        assert found.chi == pytest.approx(1, abs=1e-5) and found.xi_gradient > 1e4


# --- singular values ------------------------------------------------------------------------------------------------


def drawn(layer: Layer, generator) -> torch.Tensor:
    if not layer.orthogonal:
        return layer.variance**0.5 * torch.randn(layer.n_out, layer.n_in, generator=generator, dtype=torch.float64)
    q = torch.linalg.qr(
        torch.randn(max(layer.n_in, layer.n_out), min(layer.n_in, layer.n_out), generator=generator).double()
    )[0]
    q = q if layer.n_out >= layer.n_in else q.T
    return (layer.variance * max(layer.n_in, layer.n_out)) ** 0.5 * q


def singular_values(layers: list[Layer], relu: bool, networks: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Mean and relative variance of s^2 over the input's directions, a network each."""
    generator, means, spreads = torch.Generator().manual_seed(0), [], []
    for _ in range(networks):
        x = torch.randn(layers[0].n_in, generator=generator, dtype=torch.float64)
        jacobian = torch.eye(layers[0].n_in, dtype=torch.float64)
        for layer in layers:
            w = drawn(layer, generator)
            x, jacobian = w @ x, w @ jacobian
            if relu:
                jacobian, x = (x > 0).double()[:, None] * jacobian, x.clamp(min=0)
        gram = jacobian.T @ jacobian
        n, mean = len(gram), float(gram.trace()) / len(gram)
        means.append(mean)
        spreads.append(float((gram @ gram).trace()) / n / mean**2 - 1)
    return np.array(means), np.array(spreads)


def layers_of(widths: list[int], *, orthogonal: bool, relu: bool) -> list[Layer]:
    slope = 0.5 if relu else 1.0
    fans = [max(a, b) if orthogonal else a for a, b in itertools.pairwise(widths)]
    made = zip(widths, widths[1:], fans)
    return [Layer(a, b, (2 if relu else 1) / fan, orthogonal, slope, slope) for a, b, fan in made]


@pytest.mark.parametrize("relu", [True, False], ids=["relu", "linear"])
@pytest.mark.parametrize("orthogonal", [True, False], ids=["orthogonal", "gaussian"])
@pytest.mark.parametrize("widths", [[160] * 5, [80, 160, 120, 160], [160, 80, 80]], ids=["square", "wide", "narrow"])
def test_singular_values_of_real_jacobians(widths, orthogonal, relu):
    layers = layers_of(widths, orthogonal=orthogonal, relu=relu)
    said, (means, spreads) = spectrum(layers), singular_values(layers, relu)
    for wanted, seen in ((said.mean, means), (said.relative_variance, spreads)):
        error = seen.std(ddof=1) / len(seen) ** 0.5
        assert seen.mean() == pytest.approx(wanted, abs=4 * error + 0.03 * wanted + 1e-9)  # 3 %: the order of L / n
    wrong = spectrum(layers_of(widths, orthogonal=not orthogonal, relu=relu)).relative_variance
    assert spreads.mean() != pytest.approx(wrong, rel=0.1)  # a control: the other weights


def test_mean_singular_value_of_glorots_layers(numbers):
    """8 / (3 pi) of the rms one: what Glorot & Bengio measured as .8 and .5."""
    from fanin.theory.depth.jacobian import QUARTER_CIRCLE

    wanted = numbers["glorot_2010"]["jacobian_mean_singular_value"]
    n = 300
    for word, variance in (("normalized_linear", 1 / n), ("standard_linear", 1 / (3 * n))):
        rms = spectrum([Layer(n, n, variance)]).mean ** 0.5
        assert QUARTER_CIRCLE * rms == pytest.approx(wanted[word], rel=1e-5)
        w = variance**0.5 * torch.randn(n, n, generator=torch.Generator().manual_seed(0))
        assert float(torch.linalg.svdvals(w).mean()) == pytest.approx(wanted[word], rel=0.01)


def test_chain_of_a_graph():
    interpreter, signals = interpreted(nn.Sequential(dense(3, nn.ReLU), nn.Linear(N, N, bias=False)), 2**0.5)
    layers = chain(interpreter.graph, interpreter.values)
    assert layers is not None and [layer.slope2 for layer in layers] == pytest.approx([0.5, 0.5, 0.5, 1.0], abs=1e-6)
    assert spectrum(layers).relative_variance == pytest.approx(3 * 2 + 1, rel=1e-6)
    first = signals["0.0"].grad_rms  # what the first layer makes; its weights are one factor more
    assert first and spectrum(layers).mean == pytest.approx(first**2 * 2, rel=1e-3)
    other, _ = interpreted(Stream(3), 1.0)
    assert chain(other.graph, other.values) is None


# --- the way in -----------------------------------------------------------------------------------------------------


def test_explain_and_report_say_it():
    net = dense(12)
    for p in net.parameters():
        nn.init.normal_(p, 0, 5 / 3 / 8, generator=torch.Generator().manual_seed(1))
    told = fanin.explain(net, X)
    assert "12 blocks 1 … 23 (chaotic)" in told and "mean square settles at" in told and "Jacobian" in told
    report = fanin.check(net, X, predict_only=True)
    assert "(chaotic)" in report.to_text()
    assert json.loads(report.to_json())["predicted"]["facts"]["depth"][0]["phase"] == "chaotic"


def test_a_net_without_repeated_blocks_says_nothing():
    net = nn.Sequential(nn.Linear(N, 32), nn.ReLU(), nn.Linear(32, 10))
    assert fanin.predict(net, X).facts["depth"] == []
    assert "blocks" not in fanin.check(net, X, predict_only=True).to_text()
