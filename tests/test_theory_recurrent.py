"""Recurrent layers: every tensor and parameter, forward and backward, against freshly drawn networks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from fanin.frameworks.torch.verbs import measure_signals, read_model  # noqa: E402
from fanin.theory import engine, interpret  # noqa: E402
from fanin.theory.recurrent.population import Kernel, Layer, back, run  # noqa: E402

NETWORKS = 5
SE, FLOOR = 4.0, 0.02
Build = Callable[[], tuple[Any, Any]]


class Head(nn.Module):
    """A recurrent layer and a linear one on what ``pick`` takes of its result."""

    def __init__(self, rnn: Any, pick: Callable, width: int):
        super().__init__()
        self.rnn, self.pick, self.head = rnn, pick, nn.Linear(width, 40)

    def forward(self, *batch: Any) -> Any:
        return self.head(self.pick(self.rnn(*batch)))


def every(result: Any) -> Any:
    return result[0]


def last(result: Any) -> Any:
    return result[1][-1]


def last_cell(result: Any) -> Any:
    return result[1][1][-1]


def layer(kind: str, *, pick: Callable = every, width: int = 128, steps: int = 12, **options: Any) -> Build:
    def build() -> tuple[Any, Any]:
        rnn = getattr(nn, kind)(48, 128, batch_first=options.pop("batch_first", True), **options)
        return Head(rnn, pick, width), torch.randn(8, steps, 48)

    return build


def forget_gates_of_one() -> tuple[Any, Any]:
    rnn = nn.LSTM(48, 128, batch_first=True)
    for name, p in rnn.named_parameters():
        if "bias" in name:
            nn.init.zeros_(p)
            p.data[128:256] = 0.5
        else:
            nn.init.normal_(p, std=1.5 / math.sqrt(p.shape[1]))
    return Head(rnn, every, 128), torch.randn(8, 12, 48)


def from_a_given_state() -> tuple[Any, Any]:
    return Head(nn.GRU(48, 128, batch_first=True), every, 128), (torch.randn(8, 6, 48), torch.randn(1, 8, 128))


def pairs(build: Build, networks: int = NETWORKS, spoil: Callable = lambda model: None) -> dict[str, np.ndarray]:
    """Mean squares, (networks, 2): predicted and measured, of tensors (f), their gradients (b), parameters (p)."""
    found: dict[str, list[tuple[float, float]]] = {}
    for seed in range(networks):
        torch.manual_seed(seed)
        model, batch = build()
        reading = read_model(model, batch)
        said = interpret(reading.graph)
        spoil(model)
        seen = measure_signals(reading, seed=100 + seed)
        for row in seen.rows:
            mine = said[row.name]
            assert mine.rms is not None, mine.note
            found.setdefault(f"f {row.name}", []).append((mine.rms**2, row.rms**2))
            held = (
                row.op == "lstm_cell" and mine.grad_rms is None
            )  # a cell state: what its step sends back is not split
            if row.grad_rms is not None and not held:
                assert mine.grad_rms is not None, row.name
                found.setdefault(f"b {row.name}", []).append((mine.grad_rms**2, row.grad_rms**2))
        for name, row in seen.parameters.items():
            found.setdefault(f"p {name}", []).append((said.parameters[name]["grad_rms"] ** 2, row["grad_rms"] ** 2))
    return {name: np.array(values) for name, values in found.items()}


def wrong(found: dict[str, np.ndarray], floor: float = FLOOR) -> dict[str, float]:
    """Relative errors beyond chance and what a layer of 128 units leaves."""
    out = {}
    for name, values in found.items():
        said, seen = values.mean(0)
        error = math.sqrt(said / seen) - 1
        spread = (values[:, 0] - values[:, 1]).std(ddof=1) / math.sqrt(len(values)) / seen / 2
        if abs(error) > SE * spread + floor:
            out[name] = error
    return out


CASES: dict[str, Build] = {
    "lstm": layer("LSTM"),
    "gru": layer("GRU"),
    "tanh": layer("RNN"),
    "relu": layer("RNN", nonlinearity="relu"),
    "two layers, both directions, dropout": layer("LSTM", num_layers=2, bidirectional=True, dropout=0.2, width=256),
    "projected": layer("LSTM", proj_size=64, width=64),
    "the last output": layer("GRU", pick=last, num_layers=2),
    "the last cell": layer("LSTM", pick=last_cell),
    "large weights, open forget gates": forget_gates_of_one,
    "from a given state": from_a_given_state,
    "no biases": layer("GRU", bias=False),
}


@pytest.mark.parametrize("build", CASES.values(), ids=CASES)
def test_recurrent_layers(build):
    assert wrong(pairs(build)) == {}


def test_steps_first():
    def build() -> tuple[Any, Any]:
        return Head(nn.LSTM(48, 128), every, 128), torch.randn(12, 8, 48)

    assert wrong(pairs(build)) == {}


@pytest.mark.slow
def test_a_long_sequence():
    assert wrong(pairs(layer("LSTM", steps=300), 3)) == {}


def test_recurrent_weights_drawn_too_wide_are_noticed():
    """Negative control: weights change between prediction and measurement."""

    def wider(model: Any) -> None:
        with torch.no_grad():
            model.rnn.weight_hh_l0 *= 1.5

    assert "p rnn.weight_ih_l0" in wrong(pairs(layer("RNN"), 3, wider))


def test_the_law_settles_over_time():
    kernel = Kernel(np.eye(200) * 48.0, np.zeros((200, 200)))
    zero = np.zeros((4, 512))
    population = run(Layer("lstm", kernel, 0.02, 0.008, 128, None, 1.0, (zero, zero), ((0.0, 0.0, 0.0),) * 2))
    second = np.diag(population.h.within)[1:]
    assert second[0] < 0.8 * second[50:].mean()
    assert second[50:125].mean() == pytest.approx(second[125:].mean(), rel=0.03)


def test_a_linear_cell_is_a_geometric_sum():
    """rnn_relu on positive numbers only would be linear; tanh of small ones is: q_t = sum of (v H)^k."""
    steps, v, n = 30, 0.5 / 128, 128
    kernel = Kernel(np.eye(steps), np.zeros((steps, steps)))
    zero = np.zeros((1, 512))
    population = run(Layer("rnn_tanh", kernel, 1e-6, v, n, None, 1.0, (zero, zero), ((0.0, 0.0, 0.0),)))
    wanted = n * 1e-6 * (1 - 0.5 ** np.arange(1, steps + 1)) / 0.5
    assert np.allclose(np.diag(population.h.within)[1:], wanted, rtol=4 * math.sqrt(2 / 8192) + 1e-4)
    given = Kernel(np.eye(steps), np.zeros((steps, steps)))
    got = np.diag(back(population, given).x.within)
    assert np.allclose(got, wanted[::-1] / (n * 1e-6), rtol=4 * math.sqrt(2 / 8192) + 1e-3)


class Step(nn.Module):
    """One call of a cell from a given state, or several, and a head on the last output."""

    def __init__(self, cell: Any, steps: int = 1):
        super().__init__()
        self.cell, self.steps, self.head = cell, steps, nn.Linear(128, 40)

    def forward(self, x: Any, *state: Any) -> Any:
        for _ in range(self.steps):
            made = self.cell(x, state if len(state) == 2 else state[0])
            state = made if isinstance(made, tuple) else (made,)
        return self.head(state[0])


CELLS = {
    "lstm": lambda: nn.LSTMCell(48, 128),
    "gru": lambda: nn.GRUCell(48, 128),
    "tanh": lambda: nn.RNNCell(48, 128),
    "relu without biases": lambda: nn.RNNCell(48, 128, nonlinearity="relu", bias=False),
}


def stepped(cell: Callable, steps: int = 1) -> Build:
    def build() -> tuple[Any, Any]:
        made = cell()
        states = 2 if isinstance(made, nn.LSTMCell) else 1
        return Step(made, steps), (torch.randn(64, 48), *(torch.randn(64, 128) for _ in range(states)))

    return build


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_one_step_of_a_cell(cell):
    found = pairs(stepped(cell))
    assert wrong(found) == {}
    assert any(name.startswith("p cell.weight_hh") for name in found)


class Loop(nn.Module):
    """A cell that is called along a sequence, from states of zeros, and a layer on all of its outputs."""

    def __init__(self, cell: Any):
        super().__init__()
        self.cell, self.head = cell, nn.Linear(128, 40)

    def forward(self, x: Any) -> Any:
        """(samples, steps, 48) to (samples, steps, 40)."""
        zero, found = x.new_zeros(len(x), 128), []
        state = (zero, zero) if isinstance(self.cell, nn.LSTMCell) else (zero,)
        for t in range(x.shape[1]):
            made = self.cell(x[:, t], state if len(state) == 2 else state[0])
            state = made if isinstance(made, tuple) else (made,)
            found.append(state[0])
        return self.head(torch.stack(found, 1))


@pytest.mark.parametrize("name", ["lstm", "gru", "tanh"])
def test_a_loop_of_cells(name: str, monkeypatch: pytest.MonkeyPatch):
    build = lambda: (Loop(CELLS[name]()), torch.randn(32, 4, 48))  # noqa: E731
    assert wrong(pairs(build), floor=0.05) == {}
    if name != "tanh":  # without gates hardly anything is carried on
        monkeypatch.setattr(engine.Twins, "of", classmethod(lambda cls, graph, drawn: None))  # as of fresh weights
        assert any(key.startswith("p cell.") for key in wrong(pairs(build, 3), floor=0.05))
