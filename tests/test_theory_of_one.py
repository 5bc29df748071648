"""Reductions that meet one element: the element itself, whose quotient by it is one and has no gradient."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from test_theory_rules_contraction import Made  # noqa: E402

import fanin  # noqa: E402

N = 64
X = torch.randn(4, 8, N, generator=torch.Generator().manual_seed(0))
ONE = {
    "norm": lambda v: torch.norm(v, p=1, dim=-1, keepdim=True),
    "length": lambda v: torch.linalg.vector_norm(v, dim=-1)[..., None],
    "sum": lambda v: v.sum(-1, keepdim=True),
    "mean": lambda v: v.mean(-1)[..., None],
    "largest": lambda v: v.amax(-1, keepdim=True),
}
EPS = 2.0**-23


def routed(size, k):
    """The k largest of a router's weights over their size, times a layer's output."""

    def forward(m, x):
        chosen = (x @ m.router).softmax(-1).topk(k, -1).values
        return (chosen / size(chosen)).sum(-1, keepdim=True) * (x @ m.w)

    return Made(forward, router=(N, 4), w=(N, N))


def predicted_and_measured(model):
    plan = fanin.plan(model, X, recipe="he")
    return fanin.predict(model, X, plan=plan), fanin.measure(model, X, plan=plan, seeds=3)


@pytest.mark.parametrize("size", ONE.values(), ids=ONE)
def test_one_of_its_own_size_is_one_and_has_no_gradient(size):
    predicted, measured = predicted_and_measured(routed(size, 1))
    quotient = next(r for r in predicted.rows if r.op == "div")
    assert quotient.rms == pytest.approx(1, abs=1e-9) and measured[quotient.name].rms == pytest.approx(1, abs=EPS)
    for found in (predicted, measured):
        weights = found.parameters
        assert weights["router"]["grad_rms"] < 10 * EPS * weights["w"]["grad_rms"]


def test_two_over_their_sum_have_a_gradient():
    found = predicted_and_measured(routed(lambda v: v.amax(-1, keepdim=True), 2))
    for weights in (f.parameters for f in found):
        assert weights["router"]["grad_rms"] > 1e-2 * weights["w"]["grad_rms"]
