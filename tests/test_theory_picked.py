"""Places that the batch decides are read and no others: ends of texts, masks."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from networks import Networks  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import fanin  # noqa: E402

N, T, B, NETWORKS = 64, 24, 4, 16
IDS = torch.randint(10, 50, (B, T), generator=torch.Generator().manual_seed(0))
IDS[torch.arange(B), torch.tensor([5, 2, 9, 5])] = 7
ROWS = torch.arange(B)
READS = {
    "index": lambda x, at: x[ROWS, at],
    "gather": lambda x, at: x.gather(1, at[:, None, None].expand(-1, 1, N))[:, 0],
    "mask": lambda x, at: x[torch.arange(T) == at[:, None]],
}


class Text(nn.Module):
    """One layer of causal attention, of which the end of each text is read."""

    def __init__(self, read):
        super().__init__()
        self.table, self.read = nn.Embedding(50, N), read
        self.q, self.k, self.v, self.out, self.head = (nn.Linear(N, N) for _ in range(5))

    def forward(self, ids):
        x = self.table(ids)
        y = F.layer_norm(x, (N,))
        heads = lambda t: t.unflatten(-1, (2, -1)).transpose(1, 2)  # noqa: E731
        found = F.scaled_dot_product_attention(heads(self.q(y)), heads(self.k(y)), heads(self.v(y)), is_causal=True)
        x = x + self.out(found.transpose(1, 2).flatten(2))
        return self.head(self.read(x, (ids == 7).int().argmax(-1)))


def gradients(read):
    """Predicted mean squares of gradients, and those of networks, over that of the head's weights."""
    predicted, squares = None, {}
    networks = Networks(IDS)
    for seed in range(NETWORKS):
        torch.manual_seed(seed)
        net = Text(read)
        predicted = predicted or fanin.predict(net, IDS)
        found = networks.measure(net, seed=seed)
        for name in "qkv":
            squares.setdefault(name, []).append(found[name].grad_rms ** 2)
            squares.setdefault(f"{name}.weight", []).append(found.parameters[f"{name}.weight"]["grad_rms"] ** 2)
    said = {name: predicted[name].grad_rms ** 2 for name in "qkv"}
    said |= {f"{name}.weight": predicted.parameters[f"{name}.weight"]["grad_rms"] ** 2 for name in "qkv"}
    return said, {name: torch.tensor(values, dtype=torch.float64) for name, values in squares.items()}


def missed(said, squares, slack=0.1):
    error = {name: float(v.std()) / NETWORKS**0.5 for name, v in squares.items()}
    return [n for n, v in squares.items() if abs(said[n] - float(v.mean())) > 4 * error[n] + slack * float(v.mean())]


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_the_end_of_a_text(read):
    assert missed(*gradients(read)) == []


def test_a_mean_over_all_places_is_another_gradient():
    """A control: keys and values of tokens behind the end would hear as much as those before it."""
    said, _ = gradients(lambda x, at: x[:, -1])
    _, squares = gradients(READS["index"])
    assert {"q", "k", "v.weight"} <= set(missed(said, squares))


def test_where_the_first_token_is_read_queries_and_keys_hear_nothing():
    said, squares = gradients(lambda x, at: x[ROWS, 0 * at])
    for name in ("q", "k"):
        assert max(said[name], float(squares[name].max())) < 1e-10 * float(squares["v"].mean())
