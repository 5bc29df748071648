"""Branches of one channel that are summed, norms behind functions of norms, and places that a norm's mean moves."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import fanin  # noqa: E402
from fanin.theory import branches, statistic  # noqa: E402
from fanin.theory.adjoint import binary  # noqa: E402
from fanin.theory.latent import fresh_latent  # noqa: E402
from fanin.theory.records import replace  # noqa: E402
from fanin.theory.rules import norm  # noqa: E402

NETWORKS, CHANNELS = 40, 32


class Branches(nn.Module):
    """Kernels of one channel beside the channel itself, each behind a norm of its own; a norm reads their sum."""

    def __init__(self, taps: tuple[int, ...], skip: bool):
        super().__init__()
        kernel = lambda k: nn.Conv2d(CHANNELS, CHANNELS, k, padding=k // 2, groups=CHANNELS, bias=False)  # noqa: E731
        self.first = nn.Conv2d(16, CHANNELS, 1, bias=False)
        self.kernels = nn.ModuleList(kernel(k) for k in taps)
        self.norms = nn.ModuleList(nn.BatchNorm2d(CHANNELS) for _ in taps)
        self.itself = nn.BatchNorm2d(CHANNELS) if skip else None
        self.act, self.last, self.head = nn.ReLU(), nn.BatchNorm2d(CHANNELS), nn.Conv2d(CHANNELS, 4, 1)
        for module in (self.first, *self.kernels):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)

    def forward(self, x):
        x = self.first(x)
        summed = sum(norm(kernel(x)) for kernel, norm in zip(self.kernels, self.norms, strict=True))
        return self.head(self.last(self.act(summed if self.itself is None else summed + self.itself(x))))


class Twice(nn.Module):
    """A norm that reads a function of what another has made."""

    def __init__(self, act: nn.Module):
        super().__init__()
        self.first, self.norm, self.act = nn.Conv2d(16, CHANNELS, 1, bias=False), nn.BatchNorm2d(CHANNELS), act
        self.last, self.head = nn.BatchNorm2d(CHANNELS), nn.Conv2d(CHANNELS, 4, 1)
        nn.init.normal_(self.first.weight)

    def forward(self, x):
        return self.head(self.last(self.act(self.norm(self.first(x)))))


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def gradients(make, at: str) -> tuple[float, float, float]:
    """Mean square of a module's gradient over that behind the last norm: predicted, measured, its standard error."""
    torch.manual_seed(0)
    batch, found = noise(4, 16, 12, 12), []
    for _ in range(NETWORKS):
        net, kept = make(), []
        for name in (at, "last"):
            net.get_submodule(name).register_forward_hook(lambda _m, _i, out, kept=kept: kept.append(out))
        out = net(batch)
        sent = torch.autograd.grad(out, kept, torch.randn_like(out))
        found.append(float(sent[0].pow(2).mean() / sent[1].pow(2).mean()))
    said = fanin.predict(make(), batch)
    growth = (said[at].grad_rms / said["last"].grad_rms) ** 2
    return growth, float(np.mean(found)), float(np.std(found)) / (NETWORKS - 1) ** 0.5


def hold(said: float, seen: float, error: float, slack: float = 0.06) -> None:
    assert abs(said - seen) < 4 * error + slack * seen, (said, seen, error)


@pytest.mark.parametrize(("taps", "skip"), [((3, 3, 3), False), ((3, 3), True)])
def test_a_channel_of_branches_that_cancel_has_a_large_gradient(taps, skip):
    hold(*gradients(lambda: Branches(taps, skip), "act"))


def test_a_control_with_branches_that_have_nothing_in_common(monkeypatch):
    monkeypatch.setattr(branches, "of_sum", lambda law, *_: law)
    with pytest.raises(AssertionError):
        hold(*gradients(lambda: Branches((3, 3), True), "act"))


@pytest.mark.parametrize("act", [nn.ReLU(), nn.Identity()], ids=["relu", "none"])
def test_channels_behind_a_norm_are_of_one_size_to_the_next(act):
    hold(*gradients(lambda: Twice(act), "norm"), slack=0.03)


def test_a_control_with_channels_that_stray_as_before_the_norm(monkeypatch):
    monkeypatch.setattr(statistic, "_settled", lambda *_: None)
    with pytest.raises(AssertionError):
        hold(*gradients(lambda: Twice(nn.ReLU()), "norm"), slack=0.03)


def profiles() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean squares about channels' means over their mean, at places of three sizes: predicted, measured, its error."""
    torch.manual_seed(1)
    sizes = torch.tensor([0.05, 1.0, 1.0, 2.0]).repeat(16)
    batch, found = noise(64, 48) * sizes[:, None], []
    make = lambda: nn.Sequential(  # noqa: E731
        nn.Linear(48, 256, bias=False), nn.ReLU(), nn.Linear(256, 256, bias=False), nn.BatchNorm1d(256)
    )
    for _ in range(NETWORKS):
        y = make()[:3](batch).detach()
        square = (y - y.mean(0)).pow(2)
        found.append((square.mean(1).reshape(16, 4).mean(0) / square.mean()).numpy())
    said = _by_place(make(), batch).reshape(16, 4).mean(0)
    return said, np.mean(found, 0), np.std(found, 0) / (NETWORKS - 1) ** 0.5


def _by_place(net: nn.Module, batch: torch.Tensor) -> np.ndarray:
    """The predicted mean square of every sample behind the last norm, read off the rule itself."""
    kept = []
    rule = norm.normalized

    def told(*args, **options):
        kept.append(rule(*args, **options))
        return kept[-1]

    norm.normalized = told
    try:
        fanin.predict(net, batch)
    finally:
        norm.normalized = rule
    law = kept[-1]
    return np.broadcast_to(law.profile(law.seconds), (len(batch), 1))


def test_a_dark_place_is_at_minus_the_mean_behind_a_norm():
    said, seen, error = profiles()
    assert np.all(np.abs(said - seen) < 4 * error + 0.02 * seen), (said, seen, error)


def test_a_control_with_places_that_keep_their_shares(monkeypatch):
    monkeypatch.setattr(norm, "about_mean", lambda *_: None)
    said, seen, error = profiles()
    assert np.any(np.abs(said - seen) > 10 * error + 0.02 * seen)


def test_correlations_of_branches():
    x, other = fresh_latent({}), fresh_latent({})
    kernel = lambda rho2, of=x: replace(fresh_latent({}), heard=((of.id, 1.0, rho2),))  # noqa: E731
    assert branches._met(kernel(1 / 9), kernel(1 / 25)) == pytest.approx(1 / 25)
    itself = replace(fresh_latent({}), heard=branches.of_norm(x))
    assert branches._met(kernel(1 / 9), itself) == pytest.approx(1 / 9)
    assert branches._met(kernel(1 / 9), kernel(1 / 9, other)) == 0
    assert branches._met(itself, itself) == 0  # known, and no chance
    assert branches._met(kernel(1 / 9), x) == 0  # without a norm of its own
    assert branches.of_norm(x) == ((x.id, 1.0, inf),)


def test_a_shift_in_front_of_a_norm_has_no_gradient_beside_a_gain_of_zero():
    class Silent(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm = nn.Conv2d(16, 8, 1), nn.BatchNorm2d(8)
            self.branch, self.gain = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
            self.last, self.end = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
            nn.init.zeros_(self.gain.weight)

        def forward(self, x):
            x = self.norm(self.first(x))
            return self.end(self.last(x + self.gain(self.branch(x))))

    torch.manual_seed(0)
    said = fanin.predict(Silent(), noise(4, 16, 12, 12)).parameters
    assert said["gain.bias"]["grad_rms"] < 1e-6
    assert said["gain.weight"]["grad_rms"] > 1e-3


def test_a_control_where_a_constant_forgets_that_gradients_sum_to_zero(monkeypatch):
    monkeypatch.setattr(binary, "is_sum", lambda fn: False)
    with pytest.raises(AssertionError):
        test_a_shift_in_front_of_a_norm_has_no_gradient_beside_a_gain_of_zero()
