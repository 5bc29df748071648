"""The tasks of built-in studies are what their studies say of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import fanin
from fanin.study.grid import Cell
from fanin.study.tasks import normalized, sparse
from fanin.study.trial import _prepared, run_cells
from fanin.study.versions import versions

DRAWS, WIDTH = 200, 64
START = {"recipe": "he", "options": {"distribution": "normal"}}


def made(
    factory: str, levels: dict, *, scale: float = 1.0, rate: float = 0.1, law: str = "normal", seed: int = 0
) -> Cell:
    training = {"steps": 40, "batch": 32, "optimizer": "sgd", "momentum": 0.0}
    start = {"recipe": "he", "options": {"distribution": law}} | ({"scale": scale} if scale != 1 else {})
    return Cell({"factory": f"fanin.study.tasks:{factory}"}, levels, start, training, rate, seed, seed)


@pytest.mark.parametrize(("active", "law"), [(1, "normal"), (1, "uniform"), (64, "uniform")])
def test_spread_of_a_sparse_sample_is_as_predicted(active, law):
    """Relative variance of a sample's squared first pre-activations: (kurtosis - 1) / width where one feature is on."""
    cell = made("sparse", {"active": active, "depth": 1, "width": WIDTH}, law=law)
    problem, starter, _, _ = _prepared(cell)
    x = problem.inputs[:1]
    squares = [(x @ starter.state(cell.start, seed, 32)["1.weight"].T).square().mean() for seed in range(DRAWS)]
    measured = 0.5 * float(np.std(np.log(squares)))
    plan = fanin.plan(problem.model, (problem.inputs[:32],), recipe="he", distribution=law)
    first = next(v for v in fanin.predict(problem.model, (x,), plan=plan).values() if v.name == "1")
    predicted = math.log(first.rms_high / first.rms_low) / (2 * 1.96)
    error = 1 / math.sqrt(2 * DRAWS)
    assert measured == pytest.approx(predicted, rel=3.3 * error)
    kurtosis = 1.8 if (active, law) == (1, "uniform") else 3.0
    assert predicted == pytest.approx(0.5 * math.sqrt((kurtosis - 1) / WIDTH), rel=0.06)  # second order in 1 / width


def test_sparse_inputs_have_mean_square_one_and_classes_by_linear_scores():
    for active in (1, 4, 64):
        _, (x, y), (test, _), _ = sparse(active=active, width=8)
        assert torch.equal((x != 0).sum(1), torch.full((2000,), active))
        assert x.square().mean().item() == pytest.approx(1.0) and len(test) == 1000
        assert y.min() >= 0 and y.max() <= 9 and y.bincount().min() > 60  # ten classes, none of them rare


@pytest.mark.parametrize(("factory", "same"), [("normalized", True), ("usual", False)])
def test_only_the_effective_rate_matters_where_everything_is_normalized(factory, same):
    """Weights times 3 at a rate times 9 train alike; with a norm on hidden layers alone they do not."""
    cells = [made(factory, {"depth": 3, "norm": "batch"}, scale=scale, rate=0.1 * scale**2) for scale in (1.0, 3.0)]
    if not same:
        cells = [Cell({"model": "dense", "data": "digits"}, *list(vars(c).values())[1:7]) for c in cells]
    one, other = (out.numbers["train_loss"] for out in run_cells(cells, "serial"))
    assert (one == pytest.approx(other, rel=0.01)) is same


def test_every_matrix_of_the_normalized_net_has_a_norm_behind_it():
    model, _, _, _ = normalized(depth=2)
    kinds = [type(part).__name__ for part in model]
    assert kinds == ["Flatten", *["Linear", "BatchNorm1d", "ReLU"] * 2, "Linear", "BatchNorm1d"]


def test_a_module_belongs_to_the_key_by_what_it_says(tmp_path, monkeypatch):
    from fanin.study import versions as kept

    cell = Cell({"factory": "mine.tasks:make"}, {}, START, {}, 0.1, 0, 0)
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    found = []
    for text in ("def make(): return 1", "def make():\n    'Said.'\n    return 1  # as before", "def make(): return 2"):
        (tmp_path / "mine" / "tasks.py").write_text(text)
        kept._versions.cache_clear()
        found.append(versions(cell)["files"])
    assert found[0] == found[1] != found[2]
