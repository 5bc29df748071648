"""A rule that fails on the way back: rows say so, tests raise."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import fanin  # noqa: E402
from fanin.graph import Kind  # noqa: E402
from fanin.theory.adjoint import engine  # noqa: E402
from fanin.theory.failures import loud  # noqa: E402


def predicted(monkeypatch, error: Exception):
    """A net whose product has a rule that raises."""

    def rule(*_):
        raise error

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x):
            x = self.first(x)
            return self.last(x * x.sigmoid())

    monkeypatch.setitem(engine.RULES, Kind.PRODUCT, rule)
    return fanin.predict(Net(), torch.ones(2, 8))


def test_a_slip_is_raised_in_tests(monkeypatch):
    with pytest.raises(TypeError, match="a slip"):
        predicted(monkeypatch, TypeError("a slip"))


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (TypeError("a slip"), "its rule failed with TypeError: a slip"),
        (NotImplementedError("such a case"), "such a case"),
    ],
)
def test_rows_behind_it_say_so(monkeypatch, error, why):
    token = loud.set(False)
    try:
        first, *between, product, last = predicted(monkeypatch, error).rows
    finally:
        loud.reset(token)
    assert not last.note and not product.note and last.grad_rms and product.grad_rms
    assert all(
        r.grad_rms is None and r.rms and r.note == f"gradient not modelled: mul: {why}" for r in (first, *between)
    )
