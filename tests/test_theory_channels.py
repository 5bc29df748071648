"""Norms behind a concatenation: every channel is divided by its own deviation, forward and backward."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from networks import Networks  # noqa: E402
from torch import nn  # noqa: E402

import fanin  # noqa: E402
from fanin.theory import channels  # noqa: E402

NETWORKS = 16


class Beside(nn.Module):
    """Two convolutions side by side, one scaled, or of inputs with a mean; normalized together."""

    def __init__(self, scale: float, mean: float, nested: bool = False):
        super().__init__()
        self.one, self.other = (nn.Conv2d(48, 48, 3, padding=1) for _ in range(2))
        self.norm = nn.BatchNorm2d(144 if nested else 96)
        self.scale, self.mean, self.nested = scale, mean, nested

    def forward(self, x):
        one, other = self.one(x), self.scale * self.other(x + self.mean)
        both = torch.cat([one, other], 1)
        return torch.relu(self.norm(torch.cat([both, x], 1) if self.nested else both))


def errors(model: nn.Module, side: str) -> dict[str, tuple[float, float]]:
    """(log of predicted over measured, its standard error) by tensor, over networks drawn one by one."""
    torch.manual_seed(0)
    batch = torch.randn(16, 48, 8, 8)
    plan = fanin.plan(model, batch, recipe="he")
    said = fanin.predict(model, batch, plan=plan)
    found: dict[str, list[float]] = {}
    networks = Networks(batch)
    for k in range(NETWORKS):
        drawn = fanin.apply(plan, model, seed=k)
        for row in networks.measure(drawn or model).rows:
            if getattr(row, side):
                found.setdefault(row.name, []).append(getattr(row, side) ** 2)
    told = {row.name: getattr(row, side) for row in said.rows if getattr(row, side)}
    return {
        name: (
            float(np.log(told[name] ** 2 / np.mean(seen)) / 2),
            float(np.std(seen, ddof=1) / np.mean(seen) / 2 / NETWORKS**0.5),
        )
        for name, seen in found.items()
        if name in told and len(seen) == NETWORKS
    }


@pytest.mark.parametrize("side", ["rms", "grad_rms"])
@pytest.mark.parametrize(("scale", "mean", "nested"), [(1.0, 0.0, False), (0.3, 0.0, False), (1.0, 0.5, True)])
def test_a_norm_over_a_concatenation(scale, mean, nested, side):
    """Within four standard errors, and a percent for 1/s of few places."""
    for name, (error, deviation) in errors(Beside(scale, mean, nested), side).items():
        assert abs(error) < 4 * deviation + 0.01, (name, error, deviation)


def test_one_deviation_for_all_channels_is_missed(monkeypatch):
    """A control: by the mean variance the smaller piece's gradient would be 60 % too small."""
    monkeypatch.setattr(channels, "kinds", lambda x, axes: None)
    assert errors(Beside(0.3, 0.0), "grad_rms")["other"][0] < -0.5


def test_kinds_by_levels_join_to_the_law_they_came_from():
    """Cut by levels and put together again without a norm in between, a law is what it was."""
    from fanin.frameworks.torch.verbs import read_model
    from fanin.theory import Interpreter

    graph = read_model(Beside(0.3, 0.5), torch.randn(4, 48, 5, 5)).graph
    interpreter = Interpreter(graph, {f"{n}.weight": fanin.distributions.Normal(0.1) for n in ("one", "other")})
    interpreter.run()
    law = next(v for n in graph.nodes if n.name == "/cat" and (v := interpreter.values[n.id]) is not None)
    for pieces in (law.latent.pieces, None):
        cut = dataclasses.replace(law, latent=dataclasses.replace(law.latent, pieces=pieces))
        told = channels.kinds(cut, (0, 2, 3))
        assert told is not None and told.shares == pytest.approx([0.5, 0.5])
        again = channels.joined(cut, told, told.laws)
        assert again.second == pytest.approx(law.second) and again.mean == pytest.approx(law.mean, abs=1e-12)
        assert again.seconds[np.broadcast_to(again.level, law.shape)] == pytest.approx(
            law.seconds[np.broadcast_to(law.level, law.shape)]
        )
