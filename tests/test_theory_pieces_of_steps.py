"""One layer at every step of a loop, whose results are laid end to end: gradients of its weights and biases."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import fanin  # noqa: E402
from fanin.theory.adjoint import shared  # noqa: E402

NETWORKS, STEPS = 80, 6
X = torch.randn(8, STEPS, 48, generator=torch.Generator().manual_seed(4))


class Steps(nn.Module):
    """A layer, a function and a head for every step."""

    def __init__(self, join: str) -> None:
        super().__init__()
        self.join, self.one, self.head = join, nn.Linear(48, 48), nn.Linear(48, 20)

    def forward(self, x):
        made = [self.head(torch.tanh(self.one(x[:, t]))) for t in range(STEPS)]
        return torch.stack(made, 1) if self.join == "stack" else torch.cat(made, 0 if self.join == "rows" else 1)


def errors(join: str) -> dict[str, tuple[float, float]]:
    torch.manual_seed(0)
    told, found = fanin.predict(Steps(join), X).parameters, {}
    for seed in range(NETWORKS):
        torch.manual_seed(seed)
        net = Steps(join)
        out = net(X)
        out.backward(torch.randn_like(out))
        for name, p in net.named_parameters():
            assert p.grad is not None
            found.setdefault(name, []).append(float(p.grad.square().mean()))
    sizes = {n: (float(np.mean(v)), float(np.std(v) / len(v) ** 0.5)) for n, v in found.items()}
    return {n: (told[n]["grad_rms"] ** 2 / square - 1, d / square) for n, (square, d) in sizes.items()}


@pytest.mark.parametrize("join", ["stack", "rows", "features"])
def test_steps_that_are_laid_end_to_end(join):
    for name, (error, deviation) in errors(join).items():
        assert abs(error) < 4 * deviation + 0.05, (name, error, deviation)


def test_a_control_of_pieces_with_one_gradient(monkeypatch):
    """As if every step had the gradient of the first, biases' gradients are as many times as large in the square."""
    monkeypatch.setattr(shared, "of_pieces", lambda a, b: None)
    found = errors("stack")
    assert found["head.bias"][0] > 0.8 * (STEPS - 1) and found["one.bias"][0] > 0.8 * (STEPS - 1)
