"""Operations made of several, draws that a model makes itself, and complex rotations."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from networks import Networks  # noqa: E402
from test_theory_rules_contraction import Made  # noqa: E402
from test_theory_statistics import compared, normal  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import fanin  # noqa: E402
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
    "distances": (lambda y, z: torch.cdist(y, z[:, :3]) @ z[:, :3] / 3, 0.03),
    "smooth loss of each": (lambda y, z: F.smooth_l1_loss(y, z, reduction="none"), 0.0),
    "Huber's loss of each": (lambda y, z: F.huber_loss(z, y, reduction="none", delta=0.5), 0.0),
    "mean loss": (lambda y, z: y * F.mse_loss(z, torch.zeros_like(z)), 0.01),
    "fold": (folded, 0.0),
    "channel shuffle": (lambda y, z: torch.channel_shuffle(y[..., None], 4)[..., 0], 0.0),
    "fourier": (lambda y, z: torch.fft.fftn(z, dim=(1, 2)).real, 0.02),
    "noise": (lambda y, z: y + 0.3 * torch.randn_like(y), 0.0),
    "noise from rand": (lambda y, z: y * torch.rand(B, T, 1), 0.0),
    "stochastic depth": (lambda y, z: y + z * torch.floor(0.7 + torch.rand(B, 1, 1)) / 0.7, 0.0),
    "bernoulli in place": (lambda y, z: y * y.new_empty(B, 1, 1).bernoulli_(0.6).div_(0.6), 0.0),
    "masked_fill with a tensor": (lambda y, z: z.masked_fill(z < 0, torch.tensor(0.5)), 0.0),
    "bernoulli of chances": (lambda y, z: y * torch.bernoulli(torch.full((B, T, N), 0.3)), 0.0),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_composed(name):
    fn, slack = CASES[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        # few samples share a draw: its mean varies from network to network, which the standard error sees
        assert compared(net(fn), X, LAWS, networks=64 if "depth" in name or "place" in name else 32).misses(slack) == []


@pytest.mark.parametrize("wrap", [nn.utils.parametrizations.weight_norm, nn.utils.weight_norm])
def test_weight_norm(wrap):
    """The weight is its direction times a length of its own: networks as they are made, averaged."""
    import fanin

    said, found = {}, {}
    for seed in range(12):
        torch.manual_seed(seed)
        module = nn.Sequential(wrap(nn.Linear(N, N, bias=False)), nn.ReLU(), nn.Linear(N, N))
        predicted, measured = fanin.predict(module, X), fanin.measure(module, X)
        for row in predicted.rows:
            assert row.rms is not None
            said.setdefault(row.name, []).append(row.rms**2)
            found.setdefault(row.name, []).append(measured[row.name].rms ** 2)
    for name, squares in found.items():
        ratio = torch.tensor(squares) / torch.tensor(said[name])
        assert abs(float(ratio.mean()) - 1) < 4 * float(ratio.std()) / 12**0.5 + 2e-3, name


def test_a_drawn_mask_is_not_one_draw():
    """Two predictions agree: the law of a mask is read, not its values."""
    import fanin

    module = net(CASES["stochastic depth"][0])
    one, other = fanin.predict(module, X), fanin.predict(module, X)
    assert [r.rms for r in one.rows] == [r.rms for r in other.rows]


def test_rows_of_a_codebook_that_weights_choose():
    """Quantized as codecs do: ids are hidden, the book is known; one of zeros leaves the tensor as it is."""

    class Quantized(nn.Module):
        def __init__(self, book):
            super().__init__()
            self.layer, self.after = nn.Linear(N, N), nn.Linear(N, N)
            self.register_buffer("book", book)

        def forward(self, x):
            y = self.layer(x)
            ids = (y @ self.book.t()).argmax(-1)
            return self.after(y - F.embedding(ids, self.book).permute(0, 2, 1).permute(0, 2, 1))

    torch.manual_seed(0)
    for scale in (0.0, 0.2):
        model = Quantized(scale * torch.randn(100, N))
        said, seen = fanin.predict(model, X), fanin.measure(model, X)
        error = said.rows[-1].rms / seen.rows[-1].rms - 1
        assert abs(error) < 4 / (2 * N) ** 0.5 and bool(said.rows[-1].note) == (scale > 0)


class Resized(nn.Module):
    """A class token and those of an image of another size, whose kernel has a bias, and attention over all of them."""

    def __init__(self, mode: str):
        super().__init__()
        self.mode, self.tokens = mode, nn.Conv2d(3, 192, 8, 8)
        nn.init.uniform_(self.tokens.bias, -0.3, 0.3)
        self.first = nn.Parameter(torch.zeros(1, 1, 192))
        self.norm, self.last = nn.LayerNorm(192), nn.Linear(192, 192)

    def forward(self, x):
        if self.mode == "pool":
            x = nn.functional.avg_pool2d(x, 2)
        elif self.mode != "none":
            x = nn.functional.interpolate(x, size=(48, 48), mode=self.mode)
        x = self.tokens(x).flatten(2).transpose(1, 2)
        x = self.last(self.norm(torch.cat([self.first.expand(len(x), -1, -1), x], 1)))
        return F.scaled_dot_product_attention(*x.unflatten(2, (2, 96)).transpose(1, 2).split(32, -1))


@pytest.mark.parametrize("mode", ["none", "pool", "bicubic", "bilinear", "nearest"])
def test_places_of_an_image_that_was_resized_are_still_places(mode):
    torch.manual_seed(1234)
    batch = torch.randn(4, 3, 64, 64)
    networks = Networks(batch)
    measured = [networks.measure(Resized(mode))["/scaled_dot_product_attention"].rms for _ in range(8)]
    said = fanin.predict(Resized(mode), batch)["/scaled_dot_product_attention"].rms
    assert abs(said / np.mean(measured) - 1) < 3 * np.std(measured) / np.mean(measured) / 7**0.5 + 0.02
