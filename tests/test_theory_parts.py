"""One module applied to several inputs of one forward pass: siamese nets, triplets, similarities, prototypes."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

import fanin  # noqa: E402
from fanin.theory import parts  # noqa: E402
from fanin.theory.latent import fresh_latent  # noqa: E402

SAMPLES, WIDTH, NETWORKS = 24, 48, 60


def cosines(z):
    """Of every two rows."""
    return z @ z.T


MEETING = {
    "difference": lambda a, b: a - b,
    "product": lambda a, b: a * b,
    "rectified sum": lambda a, b: F.relu(a + b),
    "normalized sum": lambda a, b: F.batch_norm(a + b, None, None, training=True),
    "mean of a product": lambda a, b: (a * b).mean(0),
    "every pair": lambda a, b: a @ b.T,
    "cosines": lambda a, b: F.normalize(a, dim=1) @ F.normalize(b, dim=1).T,
    "all cosines": lambda a, b: cosines(F.normalize(torch.cat([a, b]), dim=1)),
    "distances": lambda a, b: torch.cdist(a, b),
    "distance": lambda a, b: F.pairwise_distance(a, b),
}


class Siamese(nn.Module):
    """One encoder on two inputs, or on both halves of one, and what is made of both results."""

    def __init__(self, how: str, *, normed: bool = False, halves: bool = False) -> None:
        super().__init__()
        norm = [nn.BatchNorm1d(WIDTH)] if normed else []
        self.encoder = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, WIDTH), *norm)
        self.how, self.halves = how, halves

    def forward(self, a, b):
        if self.halves:
            return MEETING[self.how](*self.encoder(torch.cat([a, b])).chunk(2))
        return MEETING[self.how](self.encoder(a), self.encoder(b))


class Maps(nn.Module):
    """Convolutions, pools and their mean over places, of two batches of images."""

    def __init__(self, *, normed: bool = False) -> None:
        super().__init__()
        norm = [nn.BatchNorm2d(16)] if normed else []
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 16, 3), *norm, nn.ReLU(), nn.Flatten()
        )

    def forward(self, a, b):
        return self.encoder(a) - self.encoder(b)


def off(make, batch) -> tuple[float, float]:
    """Predicted over measured rms of the output, less one, and its standard error."""
    squares, found = [], []
    for seed in range(NETWORKS):
        torch.manual_seed(seed)
        model = make().train()
        if not found:
            found.append(fanin.predict(model, batch).rows[-1].rms)
        with torch.no_grad():
            squares.append(float(model(*batch).square().mean()))
    error = float(np.std(squares) / np.mean(squares) / np.sqrt(NETWORKS)) / 2
    return found[0] / float(np.sqrt(np.mean(squares))) - 1, error


def two(form: str) -> tuple:
    """Two inputs that have nothing in common, or two views of each sample."""
    torch.manual_seed(3)
    a = torch.randn(SAMPLES, 32)
    noise = torch.randn(SAMPLES, 32)
    return a, (noise if form == "apart" else (a + noise) / 2**0.5)


FORMS = [*((how, "apart") for how in MEETING), *((how, "views") for how in ("difference", "product", "every pair"))]


@pytest.mark.parametrize(("how", "form"), FORMS)
def test_what_one_encoder_makes_of_two_inputs(how: str, form: str) -> None:
    error, noise = off(lambda: Siamese(how), two(form))
    assert abs(error) < 4 * noise + 0.015


@pytest.mark.parametrize("how", ["difference", "product", "every pair"])
def test_norms_of_each_input_take_away_what_both_have_in_common(how: str) -> None:
    error, noise = off(lambda: Siamese(how, normed=True), two("apart"))
    assert abs(error) < 4 * noise + 0.015


@pytest.mark.parametrize("how", ["difference", "every pair"])
def test_halves_of_a_batch_are_as_two_inputs(how: str) -> None:
    error, noise = off(lambda: Siamese(how, halves=True), two("apart"))
    assert abs(error) < 4 * noise + 0.015


@pytest.mark.parametrize("normed", [False, True])
def test_maps_that_were_pooled(normed: bool) -> None:
    torch.manual_seed(5)
    batch = torch.randn(6, 3, 12, 12), torch.randn(6, 3, 12, 12)
    error, noise = off(lambda: Maps(normed=normed), batch)
    assert abs(error) < 4 * noise + 0.03


@pytest.mark.parametrize("how", ["difference", "every pair"])
def test_two_encoders_have_nothing_in_common(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what weights have in common the predictions are those of two encoders, and wrong for one."""
    from fanin.theory import engine

    monkeypatch.setattr(engine.Twins, "of", classmethod(lambda cls, graph, drawn: None))
    error, noise = off(lambda: Siamese(how), two("apart"))
    assert abs(error) > 4 * noise + 0.05


def test_parts_say_what_places_have_in_common() -> None:
    groups = frozenset(("sample", "position"))
    corr = {frozenset(("sample",)): 0.5, frozenset(("position",)): 0.6, groups: 0.4}
    found = parts.by_part(lambda s: corr.get(s, 1.0), groups)
    assert sum(found.values()) == pytest.approx(1.0)
    named = parts.named(fresh_latent(corr), groups)
    for differ, r in corr.items():
        assert parts.shared(named, named, differ) == pytest.approx(r)


class Scored(nn.Module):
    """Siamese, with weights behind what is made of both."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.siamese, self.head = Siamese(how), nn.Linear(WIDTH, 10)

    def forward(self, a, b):
        return self.head(self.siamese(a, b).abs() if self.siamese.how == "difference" else self.siamese(a, b))


def gradients(how: str, networks: int) -> dict[str, tuple[float, float, float]]:
    """Predicted and measured mean square of the gradients of the encoder's parameters, and a standard error."""
    batch, squares, found = two("apart"), {}, None
    for seed in range(networks):
        torch.manual_seed(seed)
        model = Scored(how)
        found = found or fanin.predict(model, batch).parameters
        out = model(*batch)
        out.backward(torch.randn(out.shape))
        for name, p in model.siamese.named_parameters():
            squares.setdefault("siamese." + name, []).append(float(p.grad.square().mean()))
    errors = {k: float(np.std(v)) / np.sqrt(networks) for k, v in squares.items()}
    return {k: (found[k]["grad_rms"] ** 2, float(np.mean(v)), errors[k]) for k, v in squares.items()}


@pytest.mark.parametrize("how", ["difference", "product"])
def test_both_operands_are_sent_one_gradient(how: str) -> None:
    for predicted, measured, error in gradients(how, 120).values():
        assert abs(predicted - measured) < 4 * error + 0.05 * measured + 1e-9


def test_gradients_of_operands_count_as_independent_without_their_node(monkeypatch: pytest.MonkeyPatch) -> None:
    from fanin.theory.adjoint import shared

    monkeypatch.setattr(shared, "of_one_node", lambda a, b: None)
    off_by = [abs(p - m) > 4 * e + 0.05 * m for p, m, e in gradients("difference", 60).values()]
    assert any(off_by)


class Steps(nn.Module):
    """Steps of one block along a stream that weights which are read once began."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 32))

    def forward(self, x):
        for _ in range(4):
            x = x + 0.1 * self.block(x)
        return x


def test_parts_stand_beside_latents_that_have_none() -> None:
    """On the way back, too, parts are compared with parts alone."""
    found = fanin.predict(Steps(), torch.randn(16, 32))
    assert all(r["grad_rms"] is not None for r in found.parameters.values())
