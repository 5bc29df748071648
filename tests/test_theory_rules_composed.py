"""Operations made of several, draws that a model makes itself, and complex rotations."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from test_theory_rules_contraction import Made  # noqa: E402
from test_theory_statistics import compared, normal  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from fanin.distributions import Normal  # noqa: E402

N, T, B = 128, 8, 4
X = normal(B, T, N)
LAWS = {name: Normal(N**-0.5) for name in "uvw"}
ANGLES = torch.polar(torch.ones(T, N // 2), torch.outer(torch.arange(T), 0.5 ** torch.arange(N // 2)).float())


def net(fn) -> nn.Module:
    return Made(lambda m, x: fn(torch.relu(x @ m.w), x @ m.v) @ m.u, w=(N, N), v=(N, N), u=(N, N))


def turned(y, z):
    pairs = torch.view_as_complex(z.reshape(B, T, N // 2, 2))
    return torch.view_as_real(pairs * ANGLES).flatten(2)


def folded(y, z):
    columns = F.unfold(y.reshape(B, T, 8, 16), 4, stride=4)
    return F.fold(columns, (8, 16), 4, stride=4).reshape(y.shape)


CASES = {
    "normalized": (lambda y, z: F.normalize(y, dim=-1), 0.0),
    "sum of absolute values": (lambda y, z: z / torch.linalg.vector_norm(z, 1, -1, keepdim=True), 0.01),
    "largest absolute value": (lambda y, z: y + torch.linalg.vector_norm(z, float("inf"), -1, keepdim=True), 0.03),
    "linalg_norm": (lambda y, z: y * torch.linalg.norm(z, dim=-1, keepdim=True), 0.02),
    "cosine similarity": (lambda y, z: y * F.cosine_similarity(y, torch.tanh(y), dim=-1)[..., None], 0.02),
    "hstack": (lambda y, z: torch.hstack([y, z]), 0.0),
    "var_mean": (lambda y, z: (lambda v, m: (y - m) / v.sqrt())(*torch.var_mean(y, -1, keepdim=True)), 0.01),
    "complex rotation": (turned, 0.0),
    "fold": (folded, 0.0),
    "channel shuffle": (lambda y, z: torch.channel_shuffle(y[..., None], 4)[..., 0], 0.0),
    "fourier": (lambda y, z: torch.fft.fftn(z, dim=(1, 2)).real, 0.02),
    "noise": (lambda y, z: y + 0.3 * torch.randn_like(y), 0.0),
    "noise from rand": (lambda y, z: y * torch.rand(B, T, 1), 0.0),
    "stochastic depth": (lambda y, z: y + z * torch.floor(0.7 + torch.rand(B, 1, 1)) / 0.7, 0.0),
    "bernoulli in place": (lambda y, z: y * y.new_empty(B, 1, 1).bernoulli_(0.6).div_(0.6), 0.0),
    "bernoulli of chances": (lambda y, z: y * torch.bernoulli(torch.full((B, T, N), 0.3)), 0.0),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_composed(name):
    fn, slack = CASES[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        # few samples share a draw: its mean varies from network to network, which the standard error sees
        assert compared(net(fn), X, LAWS, networks=64 if "depth" in name or "place" in name else 32).misses(slack) == []


def test_weight_norm():
    """The weight is its direction times a length of its own."""
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(N, N, bias=False))
    old = nn.utils.weight_norm(nn.Linear(N, N, bias=False))
    for one in (layer, old):
        predicted = compared_as_made(nn.Sequential(one, nn.ReLU(), nn.Linear(N, N)))
        assert predicted == []


def compared_as_made(module: nn.Module) -> list[str]:
    """Rows of one network as it was made that are off by more than 4 %: one network's own fluctuation."""
    import fanin

    said, found = fanin.predict(module, X), fanin.measure(module, X)
    return [r.name for r in said.rows if r.rms is None or abs(r.rms / found[r.name].rms - 1) > 0.04]


def test_a_drawn_mask_is_not_one_draw():
    """Two predictions agree: the law of a mask is read, not its values."""
    import fanin

    module = net(CASES["stochastic depth"][0])
    one, other = fanin.predict(module, X), fanin.predict(module, X)
    assert [r.rms for r in one.rows] == [r.rms for r in other.rows]
