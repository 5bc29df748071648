"""Distributions against closed forms, quadrature, torch's own initializers, and the reference figures."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from fanin.distributions import (
    BY_KIND,
    Constant,
    DeltaOrthogonal,
    Distribution,
    Identity,
    Normal,
    Orthogonal,
    Rademacher,
    Sparse,
    TruncatedNormal,
    Uniform,
    Zeros,
    distribution,
    truncation_factor,
)
from fanin.errors import ArgumentError

IID = [
    Normal(0.3),
    Normal(0.3, mean=-1.0),
    TruncatedNormal(0.3),
    TruncatedNormal(2.0, bound=0.7, mean=1.0),
    TruncatedNormal(0.3, bound=3.0),
    Uniform(0.3),
    Uniform(0.3, mean=2.0),
    Rademacher(0.3),
    Sparse(0.3),
    Sparse(0.3, sparsity=0.25),
]
ALL = [*IID, Orthogonal(1.5), DeltaOrthogonal(0.1), Identity(2.0), Constant(-0.1), Zeros()]


@pytest.mark.parametrize("law", IID, ids=str)
def test_quantile_has_the_promised_moments(law):
    """Midpoint quadrature of the quantile function; its error is far below the tolerance for these laws."""
    x = law.quantile((np.arange(2_000_000) + 0.5) / 2_000_000)
    mean, std = law.moments(None)
    assert x.mean() == pytest.approx(mean, abs=1e-6 * std)
    assert x.std() == pytest.approx(std, rel=2e-5)
    assert np.mean((x - mean) ** 4) / std**4 == pytest.approx(law.kurtosis, rel=1e-3)
    assert np.all(np.diff(x) >= 0)
    assert x[0] >= law.support[0] and x[-1] <= law.support[1]


@pytest.mark.parametrize("law", ALL, ids=str)
def test_json_round_trip_is_exact(law):
    assert Distribution.from_dict(json.loads(json.dumps(law.to_dict()))) == law
    assert hash(law) == hash(Distribution.from_dict(law.to_dict()))


@pytest.mark.parametrize("law", ALL, ids=str)
def test_scaled_multiplies_mean_and_std(law):
    shape = (6, 4, 3, 3)
    wanted = [2.5 * m for m in law.moments(shape)]
    assert law.scaled(2.5).moments(shape) == pytest.approx(wanted, rel=1e-12, abs=0)
    assert type(law.scaled(2.5)) is type(law)


def test_reference_kurtosis_and_truncation(numbers):
    wanted = numbers["finite_width"]["kurtosis"]
    laws = {
        "normal": Normal(1),
        "uniform": Uniform(1),
        "rademacher": Rademacher(1),
        "truncated_normal_2sigma": TruncatedNormal(1),
        "truncated_normal_3sigma": TruncatedNormal(1, bound=3),
    }
    assert set(laws) == set(wanted)
    for name, law in laws.items():
        assert law.kurtosis == pytest.approx(wanted[name], abs=5e-7)
    assert truncation_factor(2.0) == pytest.approx(numbers["truncated_normal"]["two_sigma_std"], rel=1e-15)
    assert truncation_factor(2.0) ** 2 == pytest.approx(numbers["truncated_normal"]["two_sigma_variance"], abs=5e-11)


def test_kurtosis_gives_the_finite_width_table(numbers):
    """The recursion of the reference file from one input of unit mean square, so that B_0 is the fourth moment 1."""
    laws = {"normal": Normal(1), "uniform": Uniform(1), "truncated": TruncatedNormal(1)}
    for key, row in numbers["finite_width"]["relative_variance_of_M"].items():
        n, depth = (int(part[1:]) for part in key.split("_"))
        for name, law in laws.items():
            a = b = 1.0
            for _ in range(depth):
                b_next = 6 * a + 2 * (law.kurtosis - 3) * b / n
                a, b = (1 - 1 / n) * a + b_next / n, b_next
            assert a - 1 == pytest.approx(row[name], rel=3e-3), (key, name)


@pytest.mark.parametrize("bound", [1e-6, 0.01, 0.5, 2.0, 5.0, 9.999, 10.001, 30.0])
def test_truncation_factor_at_any_bound(bound):
    wanted = bound / math.sqrt(3) if bound < 1e-3 else stats.truncnorm.std(-bound, bound)
    assert truncation_factor(bound) == pytest.approx(wanted, rel=1e-7)
    low, high = TruncatedNormal(1.0, bound=bound).support
    assert TruncatedNormal(1.0, bound=bound).quantile([0, 0.5, 1]) == pytest.approx([low, 0, high], rel=1e-6, abs=1e-9)


def test_truncated_normal_quantile_against_scipy():
    u = np.array([1e-9, 0.01, 0.3, 0.5, 0.77, 1 - 1e-9])
    assert TruncatedNormal(truncation_factor(2.0)).quantile(u) == pytest.approx(stats.truncnorm.ppf(u, -2, 2), rel=1e-8)


def test_structured_moments_are_those_of_real_weights():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    for shape in [(30, 20), (20, 30), (12, 5, 3, 3)]:
        w = torch.nn.init.orthogonal_(torch.empty(shape), gain=1.3)
        mean, std = Orthogonal(1.3).moments(shape)
        assert mean == 0
        assert w.square().mean().sqrt().item() == pytest.approx(std, rel=1e-5)  # exact: the Frobenius norm is fixed
    w = torch.nn.init.dirac_(torch.empty(8, 6, 3, 3))
    assert (w.mean().item(), w.std(correction=0).item()) == pytest.approx(Identity().moments((8, 6, 3, 3)), rel=1e-5)
    w = torch.nn.init.eye_(torch.empty(5, 9))
    assert (w.mean().item(), w.std(correction=0).item()) == pytest.approx(Identity().moments((5, 9)), rel=1e-5)
    delta = np.zeros((8, 6, 3, 3))
    delta[:, :, 1, 1] = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 6)))[0]
    assert np.sqrt(np.mean(delta**2)) == pytest.approx(DeltaOrthogonal().moments(delta.shape)[1])


def test_sparse_is_torchs_sparse():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    law = Sparse(0.02, sparsity=0.33)
    w = torch.nn.init.sparse_(torch.empty(10, 40_000), sparsity=law.sparsity, std=law.nonzero_std)
    assert set((w == 0).sum(0).tolist()) == {law.zeros(10)} == {4}
    assert w.square().mean().sqrt().item() == pytest.approx(law.moments((10, 40_000))[1], rel=5 / math.sqrt(480_000))


def test_by_name():
    assert distribution("normal", 0.1) == Normal(0.1)
    assert distribution("truncated_normal", 0.1, bound=3) == TruncatedNormal(0.1, bound=3)
    assert distribution("orthogonal", 1.4) == Orthogonal(1.4)
    assert all(law.kind == kind for kind, law in BY_KIND.items())


def test_text():
    assert str(Normal(0.0205)) == "normal(std=0.0205)"
    assert str(TruncatedNormal(0.02, bound=3)) == "truncated_normal(std=0.02, bound=3)"
    assert str(Uniform(1 / 3, mean=1)) == "uniform(std=0.3333, mean=1)"
    assert (str(Orthogonal()), str(Zeros()), str(Constant(1))) == ("orthogonal(gain=1)", "zeros", "constant(value=1)")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Normal(0),
        lambda: Normal(-1),
        lambda: Normal(math.nan),
        lambda: Uniform(math.inf),
        lambda: Normal("1"),  # type: ignore[arg-type]
        lambda: Normal(True),
        lambda: Normal(1, mean=math.nan),
        lambda: TruncatedNormal(1, bound=0),
        lambda: Sparse(1, sparsity=1.0),
        lambda: Sparse(1, sparsity=0),
        lambda: Orthogonal(-1),
        lambda: Constant(math.inf),
        lambda: Normal(1).scaled(0),
        lambda: Normal(1).quantile(1.5),
        lambda: Normal(1).quantile(math.nan),
        lambda: Orthogonal().std,
        lambda: Orthogonal().quantile(0.5),
        lambda: Orthogonal().moments(None),
        lambda: Orthogonal().moments((3,)),
        lambda: distribution("normal", 1, bound=2),
        lambda: Distribution.from_dict({"std": 1.0}),
        lambda: Distribution.from_dict({"kind": "normal"}),
        lambda: Distribution.from_dict({"kind": "normal", "std": 1.0, "sigma": 1.0}),
    ],
)
def test_mistakes_are_argument_errors(make):
    with pytest.raises(ArgumentError):
        make()


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(ArgumentError, match="did you mean 'truncated_normal'"):
        distribution("trunc_normal", 1)


def test_import_is_light():
    code = "import sys, fanin.distributions; print(sorted({'torch', 'scipy', 'jax'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
