"""What was detached passes no gradient back: targets, codebooks, straight-through estimates."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import fanin  # noqa: E402
from fanin.theory.adjoint import engine  # noqa: E402

NETWORKS, GENERATOR = 60, torch.Generator().manual_seed(5)
X, Y = torch.randn(64, 16, generator=GENERATOR), torch.randn(64, 16, generator=GENERATOR)


class Cut(nn.Module):
    """Two branches, of which one is not told."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form, self.one, self.two, self.end = form, nn.Linear(16, 48), nn.Linear(16, 48), nn.Linear(48, 24)

    def forward(self, x, y):
        a, b = self.one(x), self.two(y)
        if self.form == "beside":
            return self.end(torch.relu(a + b.detach()))
        if self.form == "without gradients":
            with torch.no_grad():
                b = torch.tanh(self.two(y))
            return self.end(torch.relu(a) + b)
        if self.form == "through":  # the value of b, the gradient of a
            return self.end(a + (b - a).detach())
        return self.end(a + (torch.round(4 * a) / 4 - a).detach() + b)


def measured(form: str) -> dict[str, tuple[float, float]]:
    found: dict[str, list[float]] = {}
    for seed in range(NETWORKS):
        torch.manual_seed(seed)
        net = Cut(form)
        out = net(X, Y)
        out.backward(torch.randn_like(out))
        for name in ("one", "two"):
            grad = getattr(net, name).weight.grad
            found.setdefault(name, []).append(0.0 if grad is None else float(grad.square().mean()))
    return {k: (float(np.mean(v)), float(np.std(v) / len(v) ** 0.5)) for k, v in found.items()}


def predicted(form: str) -> dict[str, float]:
    torch.manual_seed(0)
    told = fanin.predict(Cut(form), (X, Y)).parameters
    return {n: (told.get(f"{n}.weight", {}).get("grad_rms") or 0.0) ** 2 for n in ("one", "two")}


@pytest.mark.parametrize("form", ["beside", "through", "rounded", "without gradients"])
def test_gradients_of_both_branches(form):
    told = predicted(form)
    for name, (square, deviation) in measured(form).items():
        assert abs(told[name] - square) <= 4 * deviation + 0.04 * square, (name, told[name], square)


def test_a_control_that_lets_it_through(monkeypatch):
    plain = engine._send

    def through(node, *rest):
        return plain(node.__class__(**{**_fields(node), "attrs": {**node.attrs, "detached": False}}), *rest)

    monkeypatch.setattr(engine, "_send", through)
    assert predicted("through")["one"] == 0.0 and measured("through")["one"][0] > 0


def test_what_is_measured_stops_there_as_well():
    torch.manual_seed(0)
    found = fanin.measure(Cut("without gradients"), (X, Y))
    assert "two.weight" not in found.parameters and found.parameters["one.weight"]["grad_rms"] > 0
    assert found["two"].grad_rms is None


def test_a_model_that_wants_no_gradients_at_all_is_predicted_as_if_it_did():
    class Frozen(Cut):
        def forward(self, x, y):
            with torch.no_grad():
                return super().forward(x, y)

    torch.manual_seed(0)
    told = fanin.predict(Frozen("beside"), (X, Y))
    assert told["one"].grad_rms is not None and told.parameters["one.weight"]["grad_rms"] > 0


def _fields(node) -> dict:
    return {name: getattr(node, name) for name in node.__dataclass_fields__}
