"""Sums of tensors that have a summand in common: skips, tables looked up twice. Predicted against drawn networks."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from test_theory_statistics import compared  # noqa: E402
from torch import nn  # noqa: E402

from fanin.distributions import Normal  # noqa: E402

N = 64
F = torch.nn.functional


class Skip(nn.Module):
    """A residual block whose result is added to its input again, normalized and as it is."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(N, N) for _ in range(4))

    def forward(self, x):
        x = self.a(x)
        y = x + self.b(x.relu())
        return self.c(F.layer_norm(y, (N,)) + x + y)


class Less(Skip):
    """What a block adds, as its result less its input."""

    def forward(self, x):
        x = self.a(x)
        y = x + self.b(x.relu())
        return self.c((y - x) * 2 + F.gelu(y))


class Causal(Skip):
    """Tokens that have seen others, beside what they were."""

    def forward(self, x):
        x = self.a(x)
        y = x + F.scaled_dot_product_attention(self.b(x), self.c(x), self.d(x), is_causal=True)
        return (y + x).relu()


class Boxes(nn.Module):
    """Rows of one table for either side, with others between."""

    def __init__(self):
        super().__init__()
        self.word, self.side, self.out = nn.Embedding(30, N), nn.Embedding(30, N), nn.Linear(N, N)

    def forward(self, ids):
        return self.out(self.side(ids) + self.word(ids) + self.side(ids))


def tokens():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 12, N, generator=generator) + torch.randn(4, 1, N, generator=generator)


@pytest.mark.parametrize("net", [Skip, Less, Causal])
def test_a_summand_in_common(net):
    assert compared(net(), tokens(), networks=96).misses(0.02) == []


def test_a_table_looked_up_twice():
    ids = torch.randint(30, (4, 12), generator=torch.Generator().manual_seed(0))
    assert (
        compared(Boxes(), ids, {"side.weight": Normal(1.0), "word.weight": Normal(0.5)}, networks=48).misses(0.02) == []
    )


def test_two_of_one_law_have_nothing_in_common():
    """A control: a block that is added to another tensor of the same law."""

    class Other(Skip):
        def forward(self, x):
            x, z = self.a(x), self.c(x)
            return self.c(x + self.b(x.relu()) + z)

    found = compared(Other(), tokens(), networks=48)
    assert found.misses(0.02) == []
    skip = compared(Skip(), tokens(), networks=2).predicted
    assert skip.rows[-1].rms > 1.5 * found.predicted.rows[-1].rms
