"""Intervals of a single network: figures of the literature, coverage over networks, and controls that must fail."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from test_theory_statistics import drawn  # noqa: E402
from torch import nn  # noqa: E402

from fanin.distributions import Constant, Distribution, Normal, Orthogonal, TruncatedNormal, Uniform  # noqa: E402
from fanin.frameworks.torch.execute import execute  # noqa: E402
from fanin.frameworks.torch.verbs import read_model  # noqa: E402
from fanin.theory import grid, interpret  # noqa: E402
from fanin.theory.engine import Interpreter  # noqa: E402
from fanin.theory.width import Widths, interval  # noqa: E402

LAWS = {"normal": Normal, "uniform": Uniform, "truncated": TruncatedNormal}
# relative variance of |x|^2 / n behind 50 ReLU layers, one sample (Hanin & Rolnick 2018 for Gaussian weights)
TABLE = {
    (64, "normal"): 42.0,
    (64, "uniform"): 36.2,
    (64, "truncated"): 38.8,
    (256, "normal"): 1.6304,
    (256, "uniform"): 1.6035,
    (256, "truncated"): 1.6161,
    (1000, "normal"): 0.28323,
    (1000, "uniform"): 0.28233,
    (1000, "truncated"): 0.28275,
}


def perceptron(width: int, depth: int, act=nn.ReLU, inputs: int | None = None, outputs: int | None = None):
    """Linear and activation, repeated."""
    steps, size = [], inputs or width
    for _ in range(depth):
        steps += [nn.Linear(size, width, bias=False), act()]
        size = width
    if outputs:
        steps.append(nn.Linear(size, outputs, bias=False))
    return nn.Sequential(*steps)


def laws_of(model: nn.Module, kind: str = "normal", gain: float = 2.0) -> dict[str, Distribution]:
    """Matrices of variance gain / fan_in."""
    found: dict[str, Distribution] = {}
    for name, p in model.named_parameters():
        if p.dim() < 2:
            found[name] = Constant(float(p.detach()[0]))
        elif kind == "orthogonal":
            found[name] = Orthogonal(math.sqrt(gain * max(len(p), p[0].numel()) / p[0].numel()))
        else:
            found[name] = LAWS[kind](math.sqrt(gain / p[0].numel()))
    return found


def width_of(graph, laws) -> Widths:
    """Widths of a graph, forward only."""
    interpreter = Interpreter(graph, laws)
    interpreter.forward()
    widths = Widths(graph, interpreter.values, laws)
    widths.forward()
    return widths


@pytest.mark.parametrize("width", [64, 256, 1000])
def test_finite_width_table(width: int):
    model = perceptron(width, 50)
    graph = read_model(model, torch.ones(1, width)).graph
    for kind in LAWS:
        delta = width_of(graph, laws_of(model, kind)).of(graph.outputs[0])
        assert delta is not None
        assert interval.relative_variance(delta) == pytest.approx(TABLE[width, kind], rel=5e-3)


def sample(layers: int, networks: int, width: int, rng) -> np.ndarray:
    """Mean squares of the last layer of He-normal ReLU nets, one sample: |x_l|^2 is all that matters."""
    q = np.ones(networks)
    for _ in range(layers):
        z = rng.standard_normal((networks, width))
        q = q * 2 * np.mean(np.maximum(z, 0) ** 2, 1)
    return q


def test_ends_are_the_quantiles_of_deep_narrow_nets():
    model = perceptron(32, 20)
    rows = interpret(read_model(model, torch.ones(1, 32)).graph, laws_of(model))
    row = rows[list(rows)[-1]]
    rms = np.sqrt(sample(20, 4000, 32, np.random.default_rng(0)))
    below, above = float(np.mean(rms < row.rms_low)), float(np.mean(rms > row.rms_high))
    error = math.sqrt(0.025 * 0.975 / 4000)
    assert abs(below - 0.025) < 4 * error + 0.005
    assert abs(above - 0.025) < 4 * error + 0.005


def test_one_unit_and_one_sample_is_chi_square():
    model = nn.Sequential(nn.Linear(50, 1, bias=False))
    rows = interpret(read_model(model, torch.ones(1, 50)).graph, laws_of(model, gain=1.0))
    row = rows[list(rows)[-1]]
    low, high = np.sqrt(grid.ndtri(np.array([0.5125, 0.9875])) ** 2)
    assert row.rms_low == pytest.approx(low, rel=0.02)
    assert row.rms_high == pytest.approx(high, rel=0.02)


def test_orthogonal_weights_keep_the_norm_of_every_network():
    model = perceptron(64, 1)
    rows = interpret(read_model(model, torch.randn(8, 64)).graph, laws_of(model, "orthogonal"))
    first = rows.rows[0]
    assert first.rms_high / first.rms_low - 1 < 1e-5
    normal = interpret(read_model(model, torch.randn(8, 64)).graph, laws_of(model)).rows[0]
    assert normal.rms_high / normal.rms_low - 1 > 0.05


def test_orthogonal_kernels_keep_the_norm_of_known_patches():
    """As many laws as pixels are merged into fewer; their mean square is that of the patches, to single precision."""
    torch.manual_seed(0)
    model, images = nn.Conv2d(3, 32, 3, padding=1, bias=False), torch.randn(4, 3, 12, 12)
    law = Orthogonal(1.5)
    row = interpret(read_model(model, images).graph, {"weight": law}).rows[0]
    q, r = np.linalg.qr(np.random.default_rng(0).standard_normal((32, 27)))
    with torch.no_grad():
        model.weight.copy_(torch.tensor(law.gain * q * np.sign(np.diag(r))).reshape(32, 3, 3, 3))
        seen = float(model(images).double().square().mean().sqrt())
    assert row.rms_low <= seen <= row.rms_high
    assert not row.rms_low <= seen * (1 + 2e-5) <= row.rms_high  # a control: half of what means of squares were off by


def test_sparse_inputs_show_the_law_of_the_weights():
    """One input in twenty: a unit's square has the relative variance kurtosis - 1 of a single weight."""
    from fanin.recipes.spread import compared

    model = nn.Sequential(nn.Linear(20, 16, bias=False), nn.ReLU(), nn.Linear(16, 4, bias=False))
    graph = read_model(model, torch.eye(8, 20)).graph
    comparison = compared(graph, laws_of(model))
    layer = comparison.layer(graph.signals[0])
    assert layer is not None
    assert layer["normal"] == pytest.approx(math.sqrt(2 / (16 * 8)) / 2, rel=0.01)
    assert layer["uniform"] == pytest.approx(math.sqrt(0.8 / (16 * 8)) / 2, rel=0.01)


def networks_of(model, batch, laws, seeds: int) -> tuple[dict, dict]:
    """rms of every tensor and cotangent in every network."""
    reading = read_model(model, batch)
    names = {node.id: node.name for node in reading.graph.signals}
    tables: tuple[dict, dict] = ({}, {})

    def into(table):
        return lambda i, t: (
            table.setdefault(names[i], []).append(float(t.detach().double().square().mean().sqrt()))
            if i in names
            else None
        )

    rng = np.random.default_rng(3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        for _ in range(seeds):
            weights = {n: weight(laws[n], tuple(p.shape), rng) for n, p in model.named_parameters()}
            execute(
                reading.program,
                weights | dict(model.named_buffers()),
                watch=into(tables[0]),
                watch_grad=into(tables[1]),
                cotangent=lambda out: (out[0] * torch.randn_like(out[0])).sum(),
            )
    return tables


def weight(law: Distribution, shape: tuple[int, ...], rng):
    """One weight, orthogonal ones by QR."""
    if not isinstance(law, Orthogonal):
        return drawn(law, shape, rng)
    rows, columns = shape
    q, r = np.linalg.qr(rng.standard_normal((max(shape), min(shape))))
    q = q * np.sign(np.diag(r))
    return torch.tensor(law.gain * (q if rows >= columns else q.T), dtype=torch.float32)


def coverage(rows, tables, scale: float = 1.0) -> np.ndarray:
    """Shares inside, forward and backward, with intervals scaled in the logarithm."""
    inside: tuple[list, list] = ([], [])
    for row in rows.rows:
        for side, low, high in ((0, row.rms_low, row.rms_high), (1, row.grad_rms_low, row.grad_rms_high)):
            values = np.array(tables[side].get(row.name, []))
            assert low is not None, f"{row.name} has no interval"
            middle, half = math.sqrt(low * high), scale * math.log(high / low) / 2
            inside[side].append(np.mean(np.abs(np.log(values / middle)) <= half))
    return np.array([np.mean(side) for side in inside])


class Residual(nn.Module):
    """x + f(x)."""

    def __init__(self, branch: nn.Module):
        super().__init__()
        self.branch = branch

    def forward(self, x):
        return x + self.branch(x)


def residual() -> nn.Module:
    """Branches behind layer norms, which the gradient crosses too."""

    def branch():
        return nn.Sequential(nn.LayerNorm(48), nn.Linear(48, 48, bias=False), nn.ReLU(), nn.Linear(48, 48, bias=False))

    return nn.Sequential(nn.Linear(24, 48, bias=False), *(Residual(branch()) for _ in range(4)))


def convolutional() -> nn.Module:
    """Padded convolutions with batch norm."""
    steps: list[nn.Module] = []
    for size in (24, 16, 16):
        steps += [nn.Conv1d(size, 16, 3, padding=1, bias=False), nn.BatchNorm1d(16), nn.ReLU()]
    return nn.Sequential(*steps, nn.Flatten(), nn.Linear(160, 10, bias=False))


CASES = {
    "relu uniform": (lambda: perceptron(32, 8, inputs=24, outputs=10), "uniform", 2.0),
    "tanh truncated": (lambda: perceptron(48, 6, nn.Tanh, 24, 10), "truncated", 1.0),
    "gelu orthogonal": (lambda: perceptron(48, 6, nn.GELU, 24, 10), "orthogonal", 2.0),
    "residual": (residual, "normal", 1.0),
    "convolutions": (convolutional, "normal", 2.0),
}
SEEDS = 50


@pytest.fixture(scope="module")
def measured():
    """Predicted rows and networks of every case."""
    found = {}
    torch.manual_seed(0)
    for name, (build, kind, gain) in CASES.items():
        model = build()
        batch = torch.randn(12, 24, 10) if name == "convolutions" else torch.randn(12, 24)
        laws = laws_of(model, kind, gain)
        rows = interpret(read_model(model, batch).graph, laws)
        found[name] = (rows, networks_of(model, batch, laws, SEEDS))
    return found


@pytest.mark.parametrize("name", CASES)
def test_coverage_of_each_case(name: str, measured):
    # all tensors of a net may move as one: the share of networks inside has the error of SEEDS draws
    error = math.sqrt(0.95 * 0.05 / SEEDS)
    assert np.all(np.abs(coverage(*measured[name]) - 0.95) < 3 * error)


def test_coverage_over_all_cases(measured):
    shares = np.array([coverage(*found) for found in measured.values()])
    assert np.all((shares.mean(0) > 0.92) & (shares.mean(0) < 0.98))


def test_half_as_wide_intervals_do_not_cover(measured):
    shares = np.array([coverage(*found, scale=0.5) for found in measured.values()])
    assert np.all(shares.mean(0) < 0.85)


def test_a_rule_that_fails_is_said_on_the_row(monkeypatch):
    from fanin.graph import Kind
    from fanin.theory.width import forward

    model = perceptron(16, 2)
    graph = read_model(model, torch.randn(4, 16)).graph
    assert all(row.exact for row in interpret(graph, laws_of(model)).rows)

    def unwritten(*_):
        raise NotImplementedError

    monkeypatch.setitem(forward.RULES, Kind.DENSE, unwritten)
    rows = interpret(graph, laws_of(model)).rows
    assert all(("general rule" in row.note) == (row.op == "linear") == (not row.exact) for row in rows)
    assert all(row.rms_low < row.rms < row.rms_high for row in rows)


def test_cost_of_widths_is_linear_in_the_number_of_nodes():
    import time

    def seconds(depth: int) -> float:
        model = perceptron(16, depth)
        found = width_of(read_model(model, torch.ones(1, 16)).graph, laws_of(model))
        start = time.process_time()
        Widths(found.graph, found.values, {}).forward()
        return time.process_time() - start

    seconds(10)
    assert seconds(60) < 12 * seconds(20)
