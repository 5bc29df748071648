"""Layers that are copies of one another, or one that is run again: what they add to a stream adds up."""

from __future__ import annotations

import pytest
import torch
from test_theory_adjoint import errors, hold
from torch import nn

import fanin
from fanin.frameworks import front_end
from fanin.theory import engine
from fanin.theory.twins import Twins


class Copied(nn.Module):
    """A post-norm encoder as torch has it: all layers start as copies of one."""

    def __init__(self, width: int = 128):
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.1, batch_first=True)
        self.stem = nn.Linear(width, width)
        self.layers = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.out = nn.Linear(width, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, tokens, width) to (samples, tokens, 64)."""
        return self.out(self.layers(self.stem(x)))


class Again(nn.Module):
    """One residual block, run four times."""

    def __init__(self, width: int = 128):
        super().__init__()
        self.stem, self.out = nn.Linear(width, width), nn.Linear(width, 64)
        self.one, self.two = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        nn.init.normal_(self.one.weight, 0, width**-0.5)
        nn.init.normal_(self.two.weight, 0, width**-0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, width) to (samples, 64)."""
        x = self.stem(x)
        for _ in range(4):
            x = torch.layer_norm(x + self.two(torch.relu(self.one(x))), x.shape[-1:])
        return self.out(x)


def rows_alone(found: dict) -> dict:
    """Tensors: sums over samples of parameters of few networks stray, and some gradients are zero."""
    return {name: error for name, error in found.items() if not name.endswith(("weight", "bias"))}


@pytest.mark.parametrize(("make", "shape"), [(Copied, (3, 16, 128)), (Again, (32, 128))])
def test_what_twins_add_to_a_stream(make, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1234)
    batch = torch.randn(shape)
    hold(rows_alone(errors(make, batch, 12)), slack=0.03)
    monkeypatch.setattr(engine.Twins, "of", classmethod(lambda cls, graph, drawn: None))
    with pytest.raises(AssertionError):
        hold(rows_alone(errors(make, batch, 12)), slack=0.03)


def test_the_stream_grows_as_twins_agree() -> None:
    torch.manual_seed(1234)
    batch = torch.randn(3, 16, 128)
    torch.manual_seed(0)
    model = Copied().eval()
    rms = lambda signals, name: float(signals[name].rms or 0.0)  # noqa: E731
    said, measured = fanin.predict(model, batch), fanin.measure(model, batch)
    last = rms(said, "layers.layers.2/add_1")
    assert last == pytest.approx(rms(measured, "layers.layers.2/add_1"), rel=0.02)
    assert last > 1.05 * rms(said, "layers.layers.0/add_1")


def test_what_a_plan_draws_anew_is_no_copy() -> None:
    model = Copied()
    graph = front_end(model).read_model(model, torch.randn(3, 16, 128)).graph
    name = "layers.layers.1.linear1.weight"
    assert graph.parameters[name].copy_of == "layers.layers.0.linear1.weight"
    assert not graph.parameters["stem.weight"].copy_of
    twins, drawn = Twins.of(graph, {}), Twins.of(graph, {name: None})
    assert twins is not None and name in twins.copies
    assert drawn is not None and name not in drawn.copies
    for layer in model.layers.layers:
        for weight in layer.parameters():
            nn.init.normal_(weight)
    assert Twins.of(front_end(model).read_model(model, torch.randn(3, 16, 128)).graph, {}) is None
