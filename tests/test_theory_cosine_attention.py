"""Attention whose queries and keys have one length, beside a bias that is drawn: predicted against drawn networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_theory_adjoint import errors
from torch import nn

from fanin.theory.concentration import across, concentrations, leaning, turned_away

KEYS, HEAD, WIDTH, NUMBERS, SCALE = 32, 16, 96, 64, 7.0


class Cosines(nn.Module):
    """Tokens of a few numbers laid out in many features, and attention by the cosine of queries and keys."""

    def __init__(self, divided: bool = True):
        super().__init__()
        self.stem = nn.Linear(NUMBERS, WIDTH, bias=False)
        self.q, self.k, self.v = (nn.Linear(WIDTH, HEAD, bias=False) for _ in range(3))
        self.bias = nn.Parameter(0.3 * torch.randn(KEYS, KEYS))
        self.divided = divided
        for layer in (self.stem, self.q, self.k, self.v):
            nn.init.normal_(layer.weight, 0, layer.in_features**-0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, tokens, NUMBERS) to (samples, tokens, HEAD)."""
        x = self.stem(x)
        q, k, v = self.q(x), self.k(x), self.v(x)
        if self.divided:
            q, k = nn.functional.normalize(q, dim=-1), nn.functional.normalize(k, dim=-1)
        else:
            q, k = q / HEAD**0.5, k / HEAD**0.5
        return (SCALE * (q @ k.mT) + self.bias).softmax(-1) @ v


def tokens() -> torch.Tensor:
    return torch.randn(6, KEYS, NUMBERS, generator=torch.Generator().manual_seed(1))


def test_output_and_gradients() -> None:
    torch.manual_seed(0)
    found = errors(Cosines, tokens(), 24)
    near = ("stem", "q", "k", "/mul", "/softmax", "/linalg_vector_norm_1", "q.weight", "k.weight", "v.weight")
    wrong = {n: found[n] for n in near if abs(found[n][0]) > 4 * found[n][1] + 0.03}
    assert not wrong, wrong


def test_weights_and_what_they_lean_to() -> None:
    said, seen = forward(True, True)
    for name in ("softmax", "matmul_1"):
        mean, error = seen[name]
        assert abs(said[name] - mean) < 4 * error + 0.03 * mean, name


def test_cosines_are_told_from_products() -> None:
    """A control: a prediction for products of queries and keys that differ in length, networks with cosines."""
    said, seen = forward(False, True)
    mean, error = seen["matmul_1"]
    assert abs(said["matmul_1"] - mean) > 4 * error + 0.03 * mean


def forward(predicted: bool, drawn: bool) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Mean squares of the weights and of what comes out: predicted, and measured with standard errors."""
    import fanin

    torch.manual_seed(0)
    rows = {r.name.rpartition("/")[2]: r.rms**2 for r in fanin.predict(Cosines(predicted), tokens()).rows if r.rms}
    squares: dict[str, list[float]] = {"softmax": [], "matmul_1": []}
    for _ in range(96):
        net, batch = Cosines(drawn), tokens()
        x = net.stem(batch)
        q, k, v = net.q(x), net.k(x), net.v(x)
        length = (lambda t: t.norm(dim=-1, keepdim=True)) if drawn else (lambda t: HEAD**0.5)
        a = (SCALE * (q / length(q)) @ (k / length(k)).mT + net.bias).softmax(-1)
        for name, tensor in (("softmax", a), ("matmul_1", a @ v)):
            squares[name].append(float(tensor.detach().square().mean()))
    found = {n: (float(np.mean(s)), float(np.std(s, ddof=1) / len(s) ** 0.5)) for n, s in squares.items()}
    return rows, found


def test_sums_over_a_row_of_cosines() -> None:
    """Rows of keys on a sphere, drawn: E[sum a^2], the sum over pairs, and what is left across the query."""
    d, n, s2 = 12, 20, 2.0
    rng = np.random.default_rng(0)
    k = rng.standard_normal((40000, n, d))
    z = np.sqrt(d) * k[..., 0] / np.linalg.norm(k, axis=-1)
    a = np.exp(np.sqrt(s2) * z)
    a /= a.sum(1, keepdims=True)
    counts = np.array([float(n)])
    cases = {
        "sum of squares": ((a**2).sum(1), concentrations(s2, counts, d)),
        "pairs": (((a * z).sum(1) ** 2 - (a**2 * z**2).sum(1)) / s2, leaning(s2, counts, d)),
    }
    for name, (drawn, said) in cases.items():
        assert abs(said[0] - drawn.mean()) < 4 * drawn.std() / len(drawn) ** 0.5 + 1e-4, name
    m = (a * z).sum(1, keepdims=True)
    passed = a**2 * (1 - 2 * a + (a**2).sum(1, keepdims=True))
    less = 1 + ((a**2 * (z - m) ** 2).sum(1).mean() - (passed * z**2).sum(1).mean()) / passed.sum(1).mean() / 30
    assert turned_away(s2, counts, d, 30.0)[0] == pytest.approx(less, abs=3e-3)
    assert across(s2, counts, d)[0] == pytest.approx((1 - (a * z**2).sum(1).mean() / d) ** 2, abs=5e-3)
    assert abs(concentrations(s2, counts)[0] - (a**2).sum(1).mean()) > 0.01  # a control: Gaussian logits
