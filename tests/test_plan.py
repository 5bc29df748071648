"""The Plan record: round trip, fingerprint, diff, text, and what it refuses."""

# pyright: reportOptionalMemberAccess=false, reportArgumentType=false, reportOperatorIssue=false
# pyright: reportCallIssue=false, reportOptionalOperand=false, reportOptionalSubscript=false

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

import fanin
from fanin.axes import Fans
from fanin.distributions import BY_KIND, Constant, Identity, Normal, Orthogonal, Sparse, TruncatedNormal, Uniform
from fanin.errors import ArgumentError, PlanError, TargetError
from fanin.recipes import Entry, Plan

LAWS = [Normal(0.1), Uniform(0.1, mean=0.3), TruncatedNormal(0.02), Orthogonal(1.5), Constant(1.0), Identity()]
LAWS += [Sparse(0.1)]


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))


def plan_of(**laws) -> Plan:
    entries = {n: Entry(n, (4, 4), law, Fans(4, 4), 1 / 3, "because") for n, law in laws.items()}
    return Plan(entries, "custom", {"a": 0.1})


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.kind)
def test_json_round_trip_is_exact(law):
    made = plan_of(w=law)
    again = Plan.from_json(made.to_json())
    assert again == made
    assert again.fingerprint == made.fingerprint
    assert again.to_json() == made.to_json()


def test_round_trip_of_awkward_floats():
    std = float(np.nextafter(1 / 3, 1))
    assert Plan.from_json(plan_of(w=Normal(std)).to_json())["w"].distribution == Normal(std)


@pytest.mark.parametrize("recipe", ["auto", "he", "gpt2", "mup"])
def test_round_trip_of_recipes(recipe):
    made = fanin.plan(small(), torch.randn(4, 8), recipe=recipe)
    assert Plan.from_json(made.to_json()) == made


def test_fingerprint_is_stable():
    """Pinned: it must not change between versions or machines for the same content."""
    assert plan_of(w=Normal(0.1)).fingerprint == "0aeeee5c0b86316b57318f9d6a0985b2"


def test_fingerprint_follows_what_is_drawn_only():
    base = plan_of(w=Normal(0.1), v=Normal(0.2))
    swapped = Plan(dict(reversed(base.entries.items())), "other", {"b": 1})
    reworded = Plan({n: Entry(n, e.shape, e.distribution, None, None, "else") for n, e in base.entries.items()})
    assert base.fingerprint == swapped.fingerprint == reworded.fingerprint
    assert base.fingerprint != plan_of(w=Normal(np.nextafter(0.1, 1)), v=Normal(0.2)).fingerprint
    assert base.fingerprint != plan_of(w=Normal(0.1)).fingerprint


def test_a_plan_changed_by_hand_is_refused():
    data = json.loads(plan_of(w=Normal(0.1)).to_json())
    data["entries"][0]["distribution"]["std"] = 0.2
    with pytest.raises(PlanError, match="fingerprint"):
        Plan.from_json(json.dumps(data))
    del data["fingerprint"]
    assert Plan.from_json(json.dumps(data))["w"].distribution == Normal(0.2)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"fanin_plan": 99}', '{"fanin_plan": 1}', "null", "3"])
def test_what_is_no_plan_is_refused(text):
    with pytest.raises(PlanError):
        Plan.from_json(text)


def test_unknown_distribution_is_refused():
    data = json.loads(plan_of(w=Normal(0.1)).to_json())
    data["entries"][0]["distribution"]["kind"] = "cauchy"
    with pytest.raises(PlanError, match="cauchy"):
        Plan.from_json(json.dumps(data))


def test_a_plan_is_frozen_and_consistent():
    made = plan_of(w=Normal(0.1))
    with pytest.raises(TypeError):
        made.entries["w"] = None  # type: ignore[index]
    with pytest.raises(PlanError, match="filed"):
        Plan({"v": made["w"]})
    with pytest.raises(PlanError, match="tied"):
        Plan({"v": Entry("v", (2,), None, tied_to="u")})


def test_coverage_is_complete():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(20, 8)
            self.norm = nn.LayerNorm(8)
            self.free = nn.Parameter(torch.randn(3))
            self.unused = nn.Linear(4, 4)
            self.head = nn.Linear(8, 20, bias=False)
            self.head.weight = self.table.weight

        def forward(self, x):
            return self.head(self.norm(self.table(x)))

    model = Tied()
    ids = torch.randint(0, 20, (2, 5))
    for recipe in ("auto", "he", "torch_default"):
        made = fanin.plan(model, ids, recipe=recipe)
        assert list(made.entries) == [n for n, _ in model.named_parameters(remove_duplicate=False)]
        assert made["head.weight"].tied_to == "table.weight"
        assert made["free"].distribution is None
        assert all(e.reason for e in made.entries.values())
        assert any("unused.weight" in note for note in made.notes)


def test_diff_says_what_would_change():
    torch.manual_seed(0)
    model = small()
    made = fanin.plan(model, torch.randn(64, 8), recipe="he")
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    diff = made.diff(model)
    assert diff.fits and diff.of("draw") == list(made.entries)
    assert diff["0.weight"].std_now == pytest.approx(before["0.weight"].std(correction=0).item(), rel=1e-6)
    assert diff["0.weight"].std_planned == pytest.approx(0.5)
    assert all(torch.equal(before[n], p) for n, p in model.named_parameters())
    assert "be drawn" in str(diff)


def test_diff_of_another_model():
    made = fanin.plan(small(), torch.randn(4, 8), recipe="he")
    other = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4), nn.Linear(4, 1))
    diff = made.diff(other)
    assert not diff.fits
    assert diff.of("shape") == ["2.weight", "2.bias"]
    assert diff.of("extra") == ["3.weight", "3.bias"]
    assert made.diff({}).of("missing") == list(made.entries)


def test_diff_of_a_meta_model_and_of_files(tmp_path):
    with torch.device("meta"):
        model = small()
    made = fanin.plan(model, torch.empty(4, 8, device="meta"), recipe="he")
    assert made.diff(model)["0.weight"].std_now is None
    from safetensors.torch import save_file

    save_file(small().state_dict(), tmp_path / "w.safetensors")
    assert made.diff(tmp_path / "w.safetensors").fits
    with pytest.raises(TargetError):
        made.diff(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    with pytest.raises(TargetError):
        made.diff(tmp_path / "bad.safetensors")
    with pytest.raises(ArgumentError):
        made.diff(3)


def test_text_folds_repeated_blocks():
    model = nn.Sequential(*[m for _ in range(4) for m in (nn.Linear(8, 8), nn.ReLU())], nn.Linear(8, 3))
    lines = str(fanin.plan(model, recipe="he")).splitlines()
    assert lines[0].startswith("plan: recipe he, 10 of 10 parameters drawn, ")
    assert [" ".join(line.split()) for line in lines[1:]] == [
        "parameter shape drawn from because",
        "{0,2..6}.weight (4×) 8×8 normal(std=0.5) He: Var = 2 / fan, fan_in 8",
        "{0,2..6}.bias (4×) 8 zeros a bias: zero, so that no direction is preferred",
        "8.weight 3×8 normal(std=0.5) He: Var = 2 / fan, fan_in 8",
        "8.bias 3 zeros a bias: zero, so that no direction is preferred",
    ]
    assert len(fanin.plan(model, recipe="he").to_text(full=True).splitlines()) == 2 + 10
    html = fanin.plan(model, recipe="he")._repr_html_()
    assert html.count("<tr>") == 5 and "<script" not in html


def test_every_kind_of_distribution_is_stored():
    assert {law.kind for law in LAWS} <= set(BY_KIND)


def test_undo_puts_every_bit_back_once():
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    first, second = fanin.plan(model, recipe="he"), fanin.plan(model, recipe="glorot")
    fanin.apply(first, model, seed=0, undo=True)
    middle = {n: p.detach().clone() for n, p in model.named_parameters()}
    fanin.apply(second, model, seed=0, undo=True)
    fanin.undo(second, model)
    assert all(torch.equal(p, middle[n]) for n, p in model.named_parameters())
    fanin.undo(first, model)
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    with pytest.raises(PlanError, match="nothing is kept"):
        fanin.undo(first, model)


def test_what_is_protected_stays():
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2))
    model[0].weight.requires_grad_(False)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    fanin.apply(fanin.plan(model, recipe="he"), model, seed=0, frozen=False, keep="1.bias")
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {"0.bias", "1.weight"}
    with pytest.raises(PlanError):
        fanin.apply(fanin.plan(nn.Linear(6, 4), recipe="he"), model, seed=0, undo=True)
    with pytest.raises(PlanError, match="nothing is kept"):  # the failed apply left nothing behind
        fanin.undo(fanin.plan(nn.Linear(6, 4), recipe="he"), model)
