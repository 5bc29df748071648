"""Gains and shifts that are drawn make channels of several kinds: some are hardly ever open behind a ReLU."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from networks import Networks  # noqa: E402
from torch import nn  # noqa: E402

import fanin  # noqa: E402
from fanin.distributions import Constant, Normal, Uniform  # noqa: E402
from fanin.frameworks import front_end  # noqa: E402
from fanin.graph import Parameter  # noqa: E402
from fanin.theory import gains  # noqa: E402
from fanin.theory.engine import Interpreter  # noqa: E402

NETWORKS, CHANNELS = 24, 64


class Block(nn.Module):
    """Kernels of three and of one tap beside the map itself, each behind a norm, then a ReLU."""

    def __init__(self, width: int):
        super().__init__()
        self.three = nn.Conv2d(width, CHANNELS, 3, padding=1, bias=False)
        self.one = nn.Conv2d(width, CHANNELS, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(CHANNELS) for _ in range(2 + (width == CHANNELS)))

    def forward(self, x):
        read = (self.three(x), self.one(x), x)
        return torch.relu(sum(norm(y) for norm, y in zip(self.norms, read, strict=False)))


def network(seed: int, blocks: int = 4) -> nn.Sequential:
    """Gains of mean and deviation .1 and shifts of deviation .1: their quantiles, in another order in each network."""
    torch.manual_seed(seed)
    body = [Block(3), *(Block(CHANNELS) for _ in range(blocks))]
    model = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, 20))
    at = torch.special.ndtri((torch.arange(CHANNELS) + 0.5) / CHANNELS)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data = 0.1 + 0.1 * at[torch.randperm(CHANNELS)]
            module.bias.data = 0.1 * at[torch.randperm(CHANNELS)]
    return model


@pytest.fixture(scope="module")
def batch() -> torch.Tensor:
    return torch.randn(8, 3, 12, 12, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def measured(batch) -> dict[str, tuple[float, float]]:
    """Root mean square of the gradient of every first kernel, and its standard error over it."""
    networks = Networks(batch)
    rows = [networks.measure(network(k), seed=k).parameters for k in range(NETWORKS)]
    found = {}
    for name in rows[0]:
        squares = np.array([row[name]["grad_rms"] ** 2 for row in rows])
        found[name] = squares.mean() ** 0.5, squares.std(ddof=1) / NETWORKS**0.5 / squares.mean() / 2
    return found


def growth(said, measured) -> float:
    """Of the gradients of four blocks, predicted over measured; a channel that is all but shut is met now and then."""
    ratios = [said[name]["grad_rms"] / measured[name][0] for name in measured if name.endswith("three.weight")]
    return ratios[0] / ratios[-1]


def test_gradients_behind_drawn_gains_do_not_grow(batch, measured):
    said = fanin.predict(network(0), batch).parameters
    assert abs(np.log(growth(said, measured))) < 2 * measured["0.three.weight"][1] + 0.1


def test_channels_of_one_kind_would_have_gradients_that_grow(batch, measured, monkeypatch):
    monkeypatch.setattr(gains, "SLIGHT", np.inf)
    said = fanin.predict(network(0), batch).parameters
    assert growth(said, measured) > 1.8


def test_means_over_places_are_those_of_every_kind(batch):
    model = nn.Sequential(nn.Conv2d(3, CHANNELS, 3), nn.BatchNorm2d(CHANNELS), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    at = torch.special.ndtri((torch.arange(CHANNELS) + 0.5) / CHANNELS)
    predicted, squares = fanin.predict(first(model, at, 0), batch)["3"].rms, []
    for seed in range(60):
        with torch.no_grad():
            squares.append(float(first(model, at, seed)(batch).square().mean()))
    assert predicted == pytest.approx(np.mean(squares) ** 0.5, rel=0.02)


def first(model: nn.Sequential, shifts: torch.Tensor, seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    model[0].reset_parameters()
    model[1].bias.data = shifts[torch.randperm(len(shifts))]
    return model


def read(model: nn.Module, batch) -> tuple:
    graph = front_end(model).read_model(model, batch).graph
    return graph, {p.name: p for p in graph.parameters.values()}


@pytest.mark.parametrize(
    ("gain", "shift", "told"),
    [
        (Constant(1.0), Constant(0.0), False),
        (Normal(0.02, mean=1.0), Constant(0.0), False),
        (Normal(0.5, mean=1.0), Constant(0.0), True),
        (Constant(1.0), Normal(0.5), True),
        (Constant(1.0), Normal(0.1), False),
    ],
)
def test_which_gains_tell_channels_apart(batch, gain, shift, told):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    graph, _ = read(model, batch)
    found = gains.gains(graph, {"1.weight": gain, "1.bias": shift})
    assert len(found) == (2 if told else 0)


def test_norms_over_features_have_none(batch):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Flatten(), nn.LayerNorm(800))
    graph, parameters = read(model, batch)
    assert not gains.gains(graph, {name: Normal(1.0) for name in parameters})


class Dense(nn.Module):
    """The map and a convolution of it, side by side."""

    def __init__(self, width: int, more: int):
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(width), nn.Conv2d(width, more, 3, padding=1)
        nn.init.normal_(self.norm.weight, 1.0, 0.5)

    def forward(self, x):
        return torch.cat([x, self.conv(torch.relu(self.norm(x)))], 1)


def read_by(norm: str, model: nn.Module, batch) -> tuple:
    graph, _ = read(model, batch)
    interpreter = Interpreter(graph)
    interpreter.forward()
    node = next(n for n in graph.nodes if n.name == norm)
    return node, tuple(interpreter.values[i] for i in node.inputs)


@pytest.mark.parametrize(("widths", "told"), [((64,), True), ((40, 24, 24, 24, 24), False)])
def test_too_many_kinds_count_as_one(batch, widths, told):
    whole = np.cumsum(widths)
    blocks = [Dense(int(n), more) for n, more in zip(whole, widths[1:], strict=False)]
    model = nn.Sequential(nn.Conv2d(3, widths[0], 3), *blocks, nn.BatchNorm2d(int(whole[-1])))
    nn.init.normal_(model[-1].weight, 1.0, 0.5)
    node, inputs = read_by(str(len(widths)), model, batch)
    gain = gains.told(node, inputs)[node.attrs["weight"]]
    assert gains.of_kinds(inputs[node.attrs["weight"]])
    assert gains.of_kinds(gain) is told
    assert gain.second == pytest.approx(inputs[node.attrs["weight"]].second, rel=0.01)


@pytest.mark.parametrize("law", [Normal(0.1, mean=0.1), Uniform(2.0)])
@pytest.mark.parametrize("count", [5, 64])
def test_numbers_have_the_moments_of_their_law(law, count):
    numbers = gains.quantiles(Parameter("gain", (count,), "float32", law=law), law, count)
    assert np.all(np.diff(numbers) > 0)
    assert numbers.mean() == pytest.approx(law.mean, abs=1e-9)
    assert np.mean(numbers**2) == pytest.approx(law.mean**2 + law.std**2)


def test_vectors_near_each_other_go_together_less_than_what_is_drawn(batch):
    graph, _ = read(network(0), batch)
    laid = list(gains.gains(graph, {}).values())
    rows = np.array([one.profile(one.means) for one in laid])
    near = np.array([np.corrcoef(rows[i], rows[j])[0, 1] for i in range(len(rows)) for j in range(max(i - 6, 0), i)])
    assert len(near) > 50
    assert np.sqrt(np.mean(near**2)) < 0.7 / CHANNELS**0.5
