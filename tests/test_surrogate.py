"""Operations without a rule: unmodelled by default, measured on samples where the user allows it."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from test_theory_rules_contraction import Made  # noqa: E402
from test_theory_statistics import normal  # noqa: E402
from torch import nn  # noqa: E402

import fanin  # noqa: E402

N, T, B = 128, 6, 8
X = normal(B, T, N)


def net(fn) -> nn.Module:
    module = Made(lambda m, x: fn(torch.relu(x @ m.w)) @ m.u, w=(N, N), u=(N, N))
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=N**-0.5)
    return module


UNKNOWN = {
    "cumprod": lambda y: torch.cumprod(1.0 + 0.2 * y, 1),
    "renorm": lambda y: torch.renorm(y.flatten(0, 1), 2, 0, 4.0).view(B, T, N),
    "logcumsumexp": lambda y: torch.logcumsumexp(y, 1),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_by_default_it_is_unmodelled(name):
    rows = fanin.predict(net(UNKNOWN[name]), X)
    row = rows[f"/{name}"]
    assert row.rms is None and row.note == f"unmodelled: {name} has no rule"


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_stand_in_is_measured_and_marked(name):
    module = net(UNKNOWN[name])
    said, found = fanin.predict(module, X, surrogate=True), fanin.measure(module, X)
    row = said[f"/{name}"]
    assert not row.exact and "stand-in" in row.note
    for name in said:
        one, other = said[name], found[name]
        # one network of width 128, and few samples of products: a few percent
        assert one.rms == pytest.approx(other.rms, rel=0.1), name
        if other.grad_rms is not None:
            assert one.grad_rms == pytest.approx(other.grad_rms, rel=0.15), name


def test_the_report_carries_it():
    report = fanin.check(net(UNKNOWN["renorm"]), X, surrogate=True)
    assert all(row.rms is not None for row in report.predicted.rows)


def test_what_has_a_rule_does_not_change():
    module = net(torch.tanh)
    one, other = fanin.predict(module, X), fanin.predict(module, X, surrogate=True)
    assert [r.rms for r in one.rows] == [r.rms for r in other.rows]
