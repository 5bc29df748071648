"""Linear attention whose values get a column of ones: numerator and denominator are told apart."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from networks import Networks  # noqa: E402
from torch import nn  # noqa: E402

import fanin  # noqa: E402
from fanin.frameworks.torch.verbs import read_model  # noqa: E402
from fanin.graph import Kind  # noqa: E402

WIDTH, TOKENS, NETWORKS = 64, 48, 8


class Linear(nn.Module):
    """``phi(q) K^T v / (phi(q) K^T 1)``; ``how`` says where ones stand."""

    def __init__(self, how: str, heads: int = 4, width: int = WIDTH):
        super().__init__()
        self.how, self.heads = how, heads
        self.q, self.k, self.v = (nn.Linear(WIDTH, width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t = x.shape[:2]
        heads = lambda y: y.reshape(b, t, self.heads, -1).transpose(1, 2)  # noqa: E731
        q, k, v = heads(self.q(x)).relu(), heads(self.k(x)).relu(), heads(self.v(x))
        return self.out(self.read(q, k, v).transpose(1, 2).reshape(b, t, -1))

    def read(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        if self.how == "apart":
            keys = k.transpose(-1, -2)
            return (q @ (keys @ v)) / (q @ keys.sum(-1, keepdim=True) + 1e-5)
        if self.how == "rows":
            v = F.pad(v.transpose(-1, -2), (0, 0, 0, 1), value=1.0)
            y = (v @ k) @ q.transpose(-1, -2)
            return (y[..., :-1, :] / (y[..., -1:, :] + 1e-5)).transpose(-1, -2)
        front = self.how == "in front"
        v = F.pad(v, (1, 0) if front else (0, 1), value=1.0).double().to(v.dtype)
        y = q @ (k.transpose(-1, -2) @ v)
        if self.how == "selected":
            return y[..., :-1] / (y[..., -1] + 1e-5)[..., None]
        return y[..., 1:] / (y[..., :1] + 1e-5) if front else y[..., :-1] / (y[..., -1:] + 1e-5)


HOWS = ("behind", "in front", "rows", "selected")


def batch() -> torch.Tensor:
    return torch.randn(4, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))


def made(how: str, **more) -> Linear:
    torch.manual_seed(0)
    return Linear(how, **more)


def evaluated(model: nn.Module, x: torch.Tensor) -> np.ndarray:
    """The graph's output, worked out node by node with what each says that it is."""
    graph, weights = read_model(model, x).graph, dict(model.named_parameters())
    found: dict[str, np.ndarray] = {}
    for node in graph.nodes:
        if node.kind is Kind.INPUT:
            found[node.id] = x.numpy()
        elif node.kind is Kind.PARAMETER:
            found[node.id] = weights[node.attrs["parameter"]].detach().numpy()
        else:
            found[node.id] = np.asarray(node.evaluate(*(found[i] for i in node.inputs)))
            assert found[node.id].shape == node.shape, node.id
    return found[graph.outputs[0]]


@pytest.mark.parametrize("how", HOWS)
def test_the_graph_is_the_model(how: str) -> None:
    model = made(how)
    with torch.no_grad():
        assert np.allclose(evaluated(model, batch()), model(batch()).numpy(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("how", [h for h in HOWS if h != "selected"])
def test_ones_are_a_sum(how: str) -> None:
    """However it is written, what is said is the same."""
    said, apart = (fanin.predict(made(h), batch()) for h in (how, "apart"))
    for name in ("q", "k", "v", "out"):
        assert said[name].rms == pytest.approx(apart[name].rms, rel=1e-3)
        assert said[name].grad_rms == pytest.approx(apart[name].grad_rms, rel=0.1 if how == "rows" else 1e-6)


def measured(how: str, **more) -> dict[str, tuple[float, float]]:
    nets, rows = Networks(batch()), {}
    for seed in range(NETWORKS):
        torch.manual_seed(seed)
        for row in nets.measure(Linear(how, **more), seed=seed).rows:
            rows.setdefault(row.name, []).append((row.rms**2, np.nan if row.grad_rms is None else row.grad_rms**2))
    return {name: tuple(np.sqrt(np.mean(v, 0))) for name, v in rows.items()}


@pytest.mark.parametrize("heads", [1, 4])
def test_against_networks(heads: int) -> None:
    """As one product the quotient is several times too large with 16 features a head, gradients by ten to the sixth."""
    said, seen = fanin.predict(made("behind", heads=heads), batch()), measured("behind", heads=heads)
    for name in ("/matmul", "/matmul_1", "/div", "out"):
        assert said[name].rms == pytest.approx(seen[name][0], rel=0.08), name
    for name in ("k", "v"):
        assert said[name].grad_rms == pytest.approx(seen[name][1], rel=0.12), name
    assert said["q"].grad_rms == pytest.approx(seen["q"][1], rel=0.25)


def test_tensors_that_are_no_longer_read_have_no_gradient() -> None:
    said = fanin.predict(made("behind"), batch())
    for name in ("/pad", "/matmul", "/matmul_1"):
        assert said[name].rms is not None
        assert said[name].grad_rms is None


def test_zeros_beside_values_are_left() -> None:
    """A control: only ones make a sum of a product."""

    class Zeros(Linear):
        def read(self, q, k, v):
            return (q @ (k.transpose(-1, -2) @ F.pad(v, (0, 1))))[..., :-1]

    torch.manual_seed(0)
    said = fanin.predict(Zeros("behind"), batch())
    assert said["/matmul"].grad_rms is not None


def test_queries_of_two_signs_are_divided_as_they_are() -> None:
    """A control: without positive shares a quotient is no mean, and its numerator is read."""

    class Signed(Linear):
        def read(self, q, k, v):
            keys = k.transpose(-1, -2)
            return (q @ (keys @ v)) / (3 + (q - 0.5) @ keys.sum(-1, keepdim=True))

    class Positive(Signed):
        def read(self, q, k, v):
            keys = k.transpose(-1, -2)
            return (q @ (keys @ v)) / (3 + q @ keys.sum(-1, keepdim=True))

    read = {}
    for model in (Signed, Positive):
        torch.manual_seed(0)
        read[model] = fanin.predict(model("apart"), batch())["/matmul_1"].grad_rms is not None
    assert read == {Signed: True, Positive: False}


class Stored(nn.Module):
    """``K^T v`` of keys and values that one tensor makes, or of values of another one."""

    def __init__(self, shared: bool):
        super().__init__()
        self.shared = shared
        self.k, self.v = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.k(x).relu().transpose(1, 2) @ self.v(x if self.shared else x.flip(-2))


@pytest.mark.parametrize("shared", [True, False])
def test_keys_and_values_agree_by_chance(shared: bool) -> None:
    """Pairs of tokens that agree do so in keys and in values: else 14 % too small."""
    seen, said = [], None
    for seed in range(NETWORKS):
        torch.manual_seed(seed)
        model = Stored(shared)
        x = torch.randn(8, TOKENS, WIDTH)
        said = fanin.predict(model, x)["/matmul"].rms if said is None else said
        seen.append(float(model(x).detach().square().mean()))
    if shared:
        assert said == pytest.approx(np.mean(seen) ** 0.5, rel=0.03)
    else:
        assert said > 1.05 * np.mean(seen) ** 0.5  # not told: tokens in another order are taken for the same ones


def test_means_over_places_of_pieces_of_unlike_size() -> None:
    """The mean of squares over pieces is not the square of the mean, where a border makes places differ."""

    class Pieces(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(16, 32, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)

        def forward(self, x):
            return torch.cat([self.a(x), 0.1 * self.b(x)], 1).relu().flatten(2).sum(-1, keepdim=True)

    x = torch.randn(8, 16, 12, 12, generator=torch.Generator().manual_seed(1))
    nets, seen, said = Networks(x), [], None
    for seed in range(NETWORKS):
        torch.manual_seed(seed)
        model = Pieces()
        said = fanin.predict(model, x)["/sum"].rms if said is None else said
        seen.append(nets.measure(model, seed=seed)["/sum"].rms ** 2)
    assert said == pytest.approx(np.mean(seen) ** 0.5, rel=0.04)  # 26 % too large by the square of the mean
