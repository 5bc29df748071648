"""Measured figures against the same figures taken by hand with hooks and autograd."""

from __future__ import annotations

import math
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import fanin  # noqa: E402


def rms(tensor: Any) -> float:
    return float(tensor.detach().double().square().mean().sqrt())


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 20), nn.Tanh(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 5))


X = torch.randn(7, 12, generator=torch.Generator().manual_seed(1))


def test_forward_figures_are_those_of_hooks():
    model, seen = net(), {}
    measured = fanin.measure(model, X)
    for name, module in model.named_children():
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.__setitem__(name, out))
    model(X)
    assert list(measured) == list(seen)
    for name, out in seen.items():
        assert measured[name].rms == pytest.approx(rms(out), rel=1e-6)
        assert measured[name].mean == pytest.approx(float(out.detach().mean()), abs=1e-6)
        assert measured[name].source == "measured"


def test_gradients_of_a_loss_are_those_of_autograd():
    model, target = net(), torch.arange(7) % 5
    report = fanin.check(model, X, loss=F.cross_entropy, target=target)
    assert report.measured is not None
    loss = F.cross_entropy(model(X), target)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    for (name, _), gradient in zip(model.named_parameters(), gradients, strict=True):
        assert report.measured.parameters[name]["grad_rms"] == pytest.approx(rms(gradient), rel=1e-5)
    assert report.measured.facts["loss"] == pytest.approx(float(loss), rel=1e-6)
    assert report.measured.facts["cotangent"] == "loss"


def test_the_output_has_a_unit_cotangent():
    big = nn.Sequential(nn.Linear(12, 400))
    assert fanin.measure(big, torch.randn(200, 12))["0"].grad_rms == pytest.approx(1.0, abs=0.01)


def test_a_tied_weight_has_one_gradient_over_all_its_uses():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Embedding(11, 8), nn.Linear(8, 11, bias=False)
            self.head.weight = self.table.weight

        def forward(self, ids):
            return self.head(self.table(ids))

    torch.manual_seed(0)
    model, ids = Tied(), torch.tensor([[0, 3, 3, 7]])
    target = torch.tensor([1, 2, 3, 4])
    loss = lambda out, t: F.cross_entropy(out[0], t)  # noqa: E731
    measured = fanin.check(model, (ids,), loss=loss, target=target).measured
    assert measured is not None
    (gradient,) = torch.autograd.grad(loss(model(ids), target), [model.table.weight])
    assert list(measured.parameters) == ["table.weight"]
    assert measured.parameters["table.weight"]["grad_rms"] == pytest.approx(rms(gradient), rel=1e-5)


def test_runs_under_a_plan_differ_in_weights():
    model = net()
    plan = fanin.plan(model, X, recipe="he")
    measured = fanin.measure(model, X, plan=plan, seeds=3)
    row = measured["0"]
    assert measured.facts["seeds"] == 3
    assert row.rms_low is not None and row.rms is not None and row.rms_high is not None
    assert row.rms_low < row.rms < row.rms_high


def test_runs_without_a_plan_differ_in_dropout_alone():
    model = nn.Sequential(nn.Linear(12, 40), nn.Dropout(0.5))
    measured = fanin.measure(model, X, seeds=3)
    assert measured["0"].rms_low == measured["0"].rms_high
    low, high = measured["1"].rms_low, measured["1"].rms_high
    assert low is not None and high is not None and low < high


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_figures_neither_overflow_nor_underflow(scale):
    model: Any = nn.Sequential(nn.Linear(12, 12, bias=False))
    with torch.no_grad():
        model[0].weight.mul_(scale)
    assert fanin.measure(model, X)["0"].rms == pytest.approx(rms(model[0](X)), rel=1e-4)


def test_meta_models_are_refused():
    with torch.device("meta"):
        model = nn.Linear(12, 3)
    with pytest.raises(fanin.FaninError, match="meta device"):
        fanin.measure(model, X)


def test_meta_batches_are_refused():
    with pytest.raises(fanin.FaninError, match="meta device"):
        fanin.measure(net(), torch.empty(3, 12, device="meta"))


def test_a_batch_of_the_same_seed_is_not_the_cotangent() -> None:
    """Without its own stream the gradient of seed 0 is the batch itself where the shapes agree."""
    torch.manual_seed(0)
    batch = torch.randn(64, 32)
    net = torch.nn.Linear(32, 32, bias=False)
    measured = fanin.measure(net, batch).parameters["weight"]["grad_rms"]
    # a sum of 64 products of independent normals, root mean square 8; sum of squares on the diagonal otherwise (13.9)
    assert abs(measured / 8 - 1) < 4 / math.sqrt(2 * 32 * 32)


def test_a_piece_that_nothing_uses_hears_no_gradient() -> None:
    class First(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            one, _two = torch.split(x, 6, dim=-1)
            return one.tanh()

    rows = fanin.measure(nn.Sequential(nn.Linear(12, 12), First()), X)
    assert rows["0"].grad_rms > 0
