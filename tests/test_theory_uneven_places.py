"""Places of unlike gradient (a class token that starts small): what pairs of them have in common."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from test_theory_adjoint import errors, hold  # noqa: E402
from torch import nn  # noqa: E402

import fanin  # noqa: E402
from fanin.theory.adjoint import norm  # noqa: E402

WIDTH, TOKENS = 64, 24
IDS = torch.randperm(900, generator=torch.Generator().manual_seed(0))[: 3 * TOKENS].reshape(3, TOKENS)


class Tokens(nn.Module):
    """Patches behind a small class token, mixed by attention whose values are normalized over samples.

    Args:
        size: deviation of the class token.
    """

    def __init__(self, size: float):
        super().__init__()
        self.table, self.patch = nn.Embedding(900, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.first = nn.Parameter(size * torch.randn(1, 1, WIDTH))
        self.norm, self.batch = nn.LayerNorm(WIDTH), nn.BatchNorm1d(WIDTH)
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))

    def forward(self, ids):
        patches = self.patch(self.table(ids))
        x = torch.cat([self.first.expand(len(ids), -1, -1), patches], 1)
        y = self.norm(x)
        v = self.batch(self.v(y).transpose(1, 2)).transpose(1, 2)
        mixed = nn.functional.scaled_dot_product_attention(self.q(y), self.k(y), v)
        return (x + mixed)[:, 1:]


@pytest.mark.parametrize("size", [1.0, 0.02])
def test_patches_beside_a_class_token(size: float) -> None:
    found = errors(lambda: Tokens(size), IDS, 24)
    hold({n: found[n] for n in ("patch", "patch.weight", "v.weight")}, 0.04)
    hold({"patch.bias": found["patch.bias"]}, 0.1)  # one number for pairs of samples, for all places


def test_a_small_token_does_not_silence_a_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    """A control: pairs of patches counted as large as the class token's gradient cancel the sum over places."""
    said = fanin.predict(Tokens(0.02).train(), IDS).parameters["patch.bias"]["grad_rms"]
    monkeypatch.setattr(norm, "thinned", lambda part, second, law: part.ratio)
    silent = fanin.predict(Tokens(0.02).train(), IDS).parameters["patch.bias"]["grad_rms"]
    assert said is not None
    assert silent is not None
    assert silent < 0.1 * said
