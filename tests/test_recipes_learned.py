"""GradInit and MetaInit: scales learned before training, on a copy; the plan with the seed is all that is kept."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fanin
from fanin.errors import ArgumentError, ModelError
from fanin.frameworks.torch.learned import gradient_quotient

BATCH = torch.randn(16, 12, generator=torch.Generator().manual_seed(0))
TARGET = torch.randint(0, 3, (16,), generator=torch.Generator().manual_seed(1))


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)
    )


def test_the_gradient_quotient_of_a_quadratic_is_its_curvature():
    """L = sum h_i w_i^2 / 2 has H g = h g, so |(g - H g) / g - 1| = h."""
    w, h = torch.tensor([1.0, -2.0, 3.0], requires_grad=True), torch.tensor([0.5, 1.5, 2.0])
    found = gradient_quotient((h * w**2).sum() / 2, [w], eps=1e-12)
    assert abs(float(found.detach()) - (0.5 + 1.5 + 2.0) / 3) < 1e-5


@pytest.mark.parametrize("recipe", ["gradinit", "metainit"])
def test_learned_scales_leave_the_model_untouched_until_they_are_known(recipe):
    model = net()
    plan = fanin.init_(model, BATCH, recipe=recipe, seed=3, loss=F.cross_entropy, target=TARGET, steps=5)
    assert int(model[1].num_batches_tracked) == 0  # the passes ran on a copy
    again = fanin.apply(plan, net(), seed=3)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    start = fanin.plan(net(), BATCH, recipe="he")
    ratios = [plan[n].std / start[n].std for n in ("0.weight", "3.weight", "5.weight")]
    assert any(abs(r - 1) > 1e-3 for r in ratios)
    assert fanin.Plan.from_json(plan.to_json()) == plan


def test_gradinit_lowers_the_gradient_below_gamma():
    torch.manual_seed(0)
    model = nn.Sequential(*[m for _ in range(6) for m in (nn.Linear(12, 12), nn.Tanh())], nn.Linear(12, 3))
    options = {"loss": F.cross_entropy, "target": TARGET}

    def norm(plan) -> float:
        fanin.apply(plan, model, seed=0)
        loss = F.cross_entropy(model(BATCH), TARGET)
        return float(
            torch.stack([g.square().sum() for g in torch.autograd.grad(loss, list(model.parameters()))]).sum().sqrt()
        )

    before = norm(fanin.plan(model, BATCH, recipe="he"))
    made = fanin.init_(model, BATCH, recipe="gradinit", seed=0, gamma=0.3 * before, steps=40, rate=0.03, **options)
    assert norm(made) < 0.8 * before


def test_what_is_missing_is_said():
    with pytest.raises(ArgumentError, match="without a loss"):
        fanin.init_(net(), BATCH, recipe="gradinit")
    with pytest.raises(ArgumentError, match="without a batch"):
        fanin.init_(net(), recipe="metainit", loss=F.cross_entropy, target=TARGET)
    with pytest.raises(ModelError, match="loss"):
        fanin.init_(net(), BATCH * float("inf"), recipe="gradinit", loss=F.cross_entropy, target=TARGET, steps=1)
    with pytest.raises(ArgumentError, match="optimizer"):
        fanin.init_(net(), BATCH, recipe="gradinit", loss=F.cross_entropy, target=TARGET, optimizer="lion")
