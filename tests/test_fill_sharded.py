"""DTensor parameters in real processes, and the parts of it that need none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from test_fill_apply import plan_of  # noqa: E402

from fanin.distributions import Normal, Sparse  # noqa: E402
from fanin.fill import draw  # noqa: E402
from fanin.fill.jobs import run  # noqa: E402
from fanin.frameworks.torch import fill_sharded  # noqa: E402
from fanin.frameworks.torch.fill import apply  # noqa: E402
from fanin.frameworks.torch.fill_storage import direct  # noqa: E402

HERE = Path(__file__).parent


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
@pytest.mark.parametrize("ranks", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(4, marks=pytest.mark.slow)])
def test_every_rank_draws_its_shard(ranks, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [*command, str(HERE / "sharded_fill.py")],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0 and f"shards agree {ranks}" in done.stdout, done.stderr[-3000:]


@pytest.mark.parametrize("law", [Normal(1.0), Sparse(1.0)], ids=str)
@pytest.mark.parametrize(
    "owned",
    [
        ([0, 1, 2], range(5), range(7)),
        ([1, 2], range(5), range(7)),
        (range(3), [3, 4], range(7)),
        ([1, 2], [0, 1], range(7)),
        (range(3), range(5), [2, 3, 4]),
        ([0, 1], [1, 2], [6]),
        (range(3), [0, 1, 3], range(7)),
        ([0, 2], [0, 4], [1, 2, 5]),
    ],
    ids=str,
)
@pytest.mark.parametrize("kernels", ["0", "1"])
def test_runs_cut_any_block(owned, law, kernels, monkeypatch):
    monkeypatch.setenv("FANIN_KERNELS", kernels)
    owned = [list(index) for index in owned]
    full = draw((3, 5, 7), law, seed=0, name="w")
    out = torch.empty([len(index) for index in owned])
    job = direct(out, "w", (3, 5, 7), law)
    assert job is not None
    run(list(fill_sharded._runs(job, (3, 5, 7), owned)), 0)
    np.testing.assert_array_equal(out.numpy(), full[np.ix_(*owned)])


def test_param_init_fn_fills_module_by_module():
    with torch.device("meta"):
        net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Sequential(torch.nn.Linear(4, 5)))
    plan = plan_of(net)
    fill = fill_sharded.param_init_fn(plan, net, seed=2)
    for module in net.modules():
        fill(module)
    whole = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Sequential(torch.nn.Linear(4, 5)))
    expected = apply(plan, whole, seed=2).state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in net.state_dict().items())


def test_a_part_of_a_model_by_its_prefix():
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 5))
    expected = {k: v.clone() for k, v in apply(plan_of(net), net, seed=2).state_dict().items()}
    stage = torch.nn.Linear(4, 5)
    apply(plan_of(net), stage, seed=2, prefix="1")
    assert torch.equal(stage.weight, expected["1.weight"])
