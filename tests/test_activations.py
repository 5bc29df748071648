"""Activations against the reference figures, closed forms, dense summation, and torch's own modules."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import optimize, special

from fanin.activations import (
    ROWS,
    activation,
    chi,
    correlation_map,
    critical_line,
    fixed_point,
    gain,
    moments,
    pair_moment,
    reach,
)
from fanin.activations.named import SELU_ALPHA, SELU_SCALE
from fanin.errors import ArgumentError

SIX = 5.01e-7  # half of the sixth digit


def summed(f, std=1.0, mean=0.0):
    """E[f], E[f^2], E[f'^2] by a plain sum over four million even steps that fall between kinks."""
    n = 4_000_000
    z = (np.arange(n) + 0.5) / n * 20 - 10
    w = np.exp(-z * z / 2) / math.sqrt(2 * math.pi) * (20 / n)
    y, slope = f(mean + std * z), (f(mean + std * (z + 1e-6)) - f(mean + std * (z - 1e-6))) / (2e-6 * std)
    return float(w @ y), float(w @ y**2), float(w @ slope**2)


def test_reference_table(numbers):
    table = numbers["activations_at_unit_gaussian"]["table"]
    assert len(table) == 24
    for name, wanted in table.items():
        found = moments(name)
        for statistic, value in wanted.items():
            assert getattr(found, statistic) == pytest.approx(value, abs=SIX), (name, statistic)
        assert gain(name) == pytest.approx(wanted["second_moment"] ** -0.5, rel=2e-5)
        assert gain(name, mode="backward") == pytest.approx(wanted["derivative_second_moment"] ** -0.5, rel=2e-5)


@pytest.mark.parametrize("name", ["mish", "hardswish", "relu6", "elu(0.5)", "softshrink", "gelu", "softsign"])
@pytest.mark.parametrize(("std", "mean"), [(0.3, 0.0), (3.0, 0.0), (1.3, -0.7)])
def test_named_against_a_plain_sum(name, std, mean):
    wanted = summed(activation(name), std, mean)
    found = moments(name, std, mean=mean)
    assert (found.mean, found.second_moment, found.derivative_second_moment) == pytest.approx(wanted, rel=2e-6)


@pytest.mark.parametrize("name", [*ROWS, "leaky_relu(0.3)", "hardtanh(-2,0.5)", "threshold(0.4,-1)", "softplus(2)"])
@pytest.mark.parametrize(("std", "mean"), [(1.0, 0.0), (2.3, 0.4)])
def test_breaks_found_by_themselves_give_what_known_ones_do(name, std, mean):
    known, f = moments(name, std, mean=mean), activation(name)
    found = moments(lambda x: f(x), std, mean=mean)
    for statistic in ("mean", "second_moment", "derivative_second_moment"):
        assert getattr(found, statistic) == pytest.approx(getattr(known, statistic), rel=1e-9, abs=1e-10), statistic


@pytest.mark.parametrize("shift", [0.0, 1e-3, 0.2812, 0.28125, 0.999999, -1.23456])
def test_a_kink_anywhere_is_exact(shift):
    """P(relu'(x - shift) = 1) and its moments in closed form: the trap was a node on the kink."""
    found = moments(lambda x: np.maximum(x - shift, 0))
    p, density = special.ndtr(-shift), math.exp(-shift * shift / 2) / math.sqrt(2 * math.pi)
    assert found.derivative_second_moment == pytest.approx(p, abs=1e-9)
    assert found.mean == pytest.approx(density - shift * p, abs=1e-9)
    assert found.second_moment == pytest.approx((1 + shift**2) * p - shift * density, abs=1e-9)
    assert found.kinks == pytest.approx((shift,), abs=1e-9)


def test_relu_halves_exactly():
    assert moments("relu").derivative_second_moment == pytest.approx(0.5, abs=1e-14)
    assert moments("relu", 7.3).second_moment == pytest.approx(7.3**2 / 2, rel=1e-14)


@pytest.mark.parametrize(("omega", "std"), [(30.0, 1.0), (1.0, 40.0), (3000.0, 1.0)])
def test_fast_oscillation(omega, std):
    found, s = moments(lambda x: np.sin(omega * x), std), omega * std
    assert found.second_moment == pytest.approx(-math.expm1(-2 * s * s) / 2, abs=1e-9)
    assert found.derivative_second_moment == pytest.approx(omega**2 * (1 + math.exp(-2 * s * s)) / 2, rel=1e-9)


def test_growth_is_followed_into_the_tails():
    assert moments("exp", 5.0).second_moment == pytest.approx(math.exp(50), rel=1e-9)
    assert moments(lambda x: x**4).second_moment == pytest.approx(105, rel=1e-9)
    assert moments(lambda x: np.maximum(x - 10, 0)).second_moment == pytest.approx(1.4529276957e-25, rel=1e-6)


def test_steps_say_what_backpropagation_sees():
    for f, jumps in ((np.sign, 1), ("step", 1), (lambda x: (x > 0.3) * 1.0, 1)):
        found = moments(f)
        assert found.derivative_second_moment == 0 and len(found.jumps) == jumps
        with pytest.raises(ArgumentError, match="derivative is 0 wherever it exists and jumps at"):
            gain(f, mode="backward")
    assert gain(np.sign) == pytest.approx(1.0)
    assert moments("hardshrink").derivative_second_moment == pytest.approx(2 * special.ndtr(-0.5), abs=1e-12)
    assert moments(lambda x: np.sqrt(np.abs(x))).derivative_second_moment == math.inf
    assert moments(np.round).second_moment == pytest.approx(summed(np.round)[1], abs=1e-6)


def test_steep_is_not_a_jump():
    found = moments("tanh", 1e5)
    assert not found.jumps
    assert found.derivative_second_moment == pytest.approx(4 / 3 / math.sqrt(2 * math.pi) / 1e5, rel=1e-6)


def test_selu_constants_follow_from_its_two_equations(numbers):
    """E f = 0 and E f^2 = 1 at the unit Gaussian, solved for alpha and scale."""

    def equations(v):
        alpha, scale = v
        m = moments(lambda x: scale * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))))
        return m.mean, m.second_moment - 1

    alpha, scale = optimize.root(equations, (1.5, 1.1), tol=1e-13).x
    assert (alpha, scale) == pytest.approx((numbers["selu"]["alpha"], numbers["selu"]["scale"]), rel=1e-9)
    assert pytest.approx((alpha, scale), rel=1e-9) == (SELU_ALPHA, SELU_SCALE)


def test_prelu_slopes_of_the_paper(numbers):
    slopes = numbers["he_2015"]["prelu_slopes_table1"]
    for a in slopes["channel_shared"] + slopes["channel_wise"]:
        found = moments("prelu", slope=a)
        assert found.second_moment == pytest.approx((1 + a * a) / 2, rel=1e-12)
        assert found.derivative_second_moment == pytest.approx((1 + a * a) / 2, rel=1e-12)


def test_gelu_closed_form(numbers):
    assert "s sqrt(a)/sqrt(2 pi)" in numbers["transformer_moments"]["gelu"]
    for s in (0.2, 1.0, 4.0):
        a = s * s / (1 + s * s)
        assert moments("gelu", s).mean == pytest.approx(s * math.sqrt(a) / math.sqrt(2 * math.pi), rel=1e-12)
    found = moments("gelu")
    assert (found.mean, found.variance) == pytest.approx((0.282095, 0.345644), abs=SIX)
    assert found.derivative_second_moment == pytest.approx(0.455851, abs=SIX)


def test_dropout_after_gelu(numbers):
    """Variance (v + p m^2)/(1-p); v/(1-p) is wrong where the mean is not zero."""
    assert numbers["transformer_moments"]["dropout"].startswith("variance (s2 + p mu^2)/(1-p)")
    m, p = moments("gelu"), 0.3
    rng = np.random.default_rng(0)
    x = activation("gelu")(rng.normal(size=2_000_000)) * (rng.random(2_000_000) >= p) / (1 - p)
    standard_error = np.std((x - x.mean()) ** 2) / math.sqrt(x.size)
    assert abs(x.var() - (m.variance + p * m.mean**2) / (1 - p)) < 4 * standard_error
    assert abs(x.var() - m.variance / (1 - p)) > 10 * standard_error  # negative control


def relu_pair(r):
    return (math.pi * r + np.sqrt(1 - r * r) - r * np.arccos(r)) / (2 * math.pi)


def test_pair_moments_in_closed_form():
    r = np.array([-1, -0.999, -0.5, 0, 0.3, 0.9, 0.999, 1 - 1e-6, 1 - 1e-10, 1])
    assert pair_moment("relu", r) == pytest.approx(relu_pair(r), abs=1e-9)
    assert pair_moment("relu", r, 3.0) == pytest.approx(9 * relu_pair(r), abs=1e-8)
    assert pair_moment("erf", r) == pytest.approx(2 / math.pi * np.arcsin(2 * r / 3), abs=1e-9)
    assert pair_moment("sign", r) == pytest.approx(2 / math.pi * np.arcsin(r), abs=1e-8)
    assert pair_moment("square", r) == pytest.approx(1 + 2 * r * r, abs=1e-9)
    assert pair_moment("linear", r, mean=2.0) == pytest.approx(4 + r, abs=1e-9)


@pytest.mark.parametrize("name", ["gelu", "hardswish", "softshrink", "tanh", "step", "relu6"])
def test_pair_moment_at_the_ends(name):
    m = moments(name, 1.4, mean=0.3)
    ends = pair_moment(name, [0.0, 1.0, 1 - 1e-12], 1.4, mean=0.3)
    assert ends == pytest.approx([m.mean**2, m.second_moment, m.second_moment], abs=3e-6)


def test_pair_moment_of_callables():
    wanted = pair_moment("hardswish", 0.7)
    assert pair_moment(lambda x: x * np.clip(x + 3, 0, 6) / 6, 0.7) == pytest.approx(wanted, abs=1e-9)
    r = 0.999  # E sin(wx) sin(wy) = exp(-w^2) sinh(w^2 r)
    wanted = (math.exp(-900 * (1 - r)) - math.exp(-900 * (1 + r))) / 2
    assert pair_moment(lambda x: np.sin(30 * x), r) == pytest.approx(wanted, abs=1e-8)


def test_relu_correlation_map(numbers):
    c, seen = 0.0, []
    for _ in range(10):
        c = correlation_map("relu", c)
        seen.append(c)
    assert seen[0] == pytest.approx(numbers["relu_correlation_map"]["from_0_after_1"], abs=SIX)
    assert seen[9] == pytest.approx(numbers["relu_correlation_map"]["from_0_after_10"], abs=SIX)


def test_relu_covariance_of_transformers(numbers):
    assert "s2 (pi r + sqrt(1-r^2) - r acos r)/(2 pi)" in numbers["transformer_moments"]["relu_covariance"]
    assert pair_moment("relu", 0.4, 1.7) == pytest.approx(1.7**2 * relu_pair(0.4), rel=1e-10)


def test_critical_line(numbers):
    for sigma_b, sigma_w in numbers["mean_field_tanh_critical_line"]["sigma_b_to_sigma_w"].items():
        point = critical_line("tanh", float(sigma_b))
        assert point.sigma_w == pytest.approx(sigma_w, abs=SIX)
        assert chi("tanh", point.sigma_w, math.sqrt(point.q)) == pytest.approx(1, abs=1e-9)
        assert fixed_point("tanh", point.sigma_w, float(sigma_b)) == pytest.approx(point.q, rel=1e-8)
    assert critical_line("tanh", 0.0).sigma_w == pytest.approx(1, abs=1e-6) and critical_line("tanh", 0.0).q == 0
    assert critical_line("relu", 0.0).sigma_w == pytest.approx(math.sqrt(2))
    with pytest.raises(ArgumentError, match="no critical point"):
        critical_line("relu", 0.1)


def test_gain_5_3_is_chaotic(numbers):
    wanted = numbers["mean_field_tanh_critical_line"]["gain_5_3"]
    q = fixed_point("tanh", 5 / 3)
    assert math.sqrt(moments("tanh", math.sqrt(q)).second_moment) == pytest.approx(wanted["output_std"], abs=SIX)
    assert chi("tanh", 5 / 3, math.sqrt(q)) == pytest.approx(wanted["chi"], abs=SIX)
    with pytest.raises(ArgumentError, match="grows without limit"):
        fixed_point("relu", 1.6)
    with pytest.raises(ArgumentError, match="kept as it is"):
        fixed_point("relu", math.sqrt(2))
    assert fixed_point("tanh", 0.9) == 0


def test_reach():
    for name, target in (("tanh", 0.9), ("relu", 3.0), ("gelu", 1.0), ("sigmoid", 0.4)):
        assert moments(name, reach(name, target)).second_moment == pytest.approx(target, rel=1e-9)
    for name, target in (("tanh", 1.0), ("sigmoid", 0.1), ("relu6", 40.0)):
        with pytest.raises(ArgumentError, match="supremum"):
            reach(name, target)


def test_gain_keeps_the_std_that_is_asked_for():
    for std in (0.5, 1.0, 2.0):
        g = gain("gelu", std=std)
        assert g * math.sqrt(moments("gelu", std).second_moment) == pytest.approx(std)


def test_torch_modules_and_functions_match_the_table():
    torch = pytest.importorskip("torch")
    nn, fn = torch.nn, torch.nn.functional
    for given, name in [
        (nn.ReLU(inplace=True), "relu"),
        (nn.LeakyReLU(0.2), "leaky_relu(0.2)"),
        (nn.PReLU(), "prelu"),
        (nn.GELU(), "gelu"),
        (nn.GELU(approximate="tanh"), "gelu(tanh)"),
        (nn.SiLU, "silu"),
        (nn.Mish(), "mish"),
        (nn.ELU(0.7), "elu(0.7)"),
        (nn.CELU(0.7), "celu(0.7)"),
        (nn.SELU(), "selu"),
        (nn.Hardswish(), "hardswish"),
        (nn.Hardsigmoid(), "hardsigmoid"),
        (nn.ReLU6(), "relu6"),
        (nn.Hardtanh(), "hardtanh"),
        (nn.Softsign(), "softsign"),
        (nn.Softshrink(), "softshrink"),
        (nn.Tanhshrink(), "tanhshrink"),
        (nn.LogSigmoid(), "logsigmoid"),
        (nn.Threshold(0.1, 0.4), "threshold(0.1, 0.4)"),
        (torch.tanh, "tanh"),
        (torch.erf, "erf"),
        (fn.gelu, "gelu"),
        (lambda x: x * torch.sigmoid(x), "silu"),
        (lambda x: x.clamp(min=0).square(), "relu_squared"),
        (lambda x: torch.tanh(x.float()), "tanh"),
    ]:
        found, wanted = moments(given, 1.2), moments(name, 1.2)
        assert found.second_moment == pytest.approx(wanted.second_moment, rel=1e-6), name
        assert found.derivative_second_moment == pytest.approx(wanted.derivative_second_moment, rel=1e-5), name
    module = nn.PReLU()
    gain(module)
    assert module.weight.dtype == torch.float32 and module.training


def test_a_straight_through_estimator_has_the_gain_of_its_backward_pass():
    torch = pytest.importorskip("torch")

    def binary(x):
        soft = torch.nn.functional.hardtanh(x)
        return soft + (torch.sign(x) - soft).detach()

    found = moments(binary)
    assert found.second_moment == pytest.approx(1, abs=1e-12) and found.jumps == (0.0,)
    assert found.derivative_second_moment == pytest.approx(moments("hardtanh").derivative_second_moment, abs=1e-12)
    with pytest.raises(ArgumentError, match="derivative is 0"):
        gain(torch.sign, mode="backward")


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("swish", "silu"),
        ("gelu_new", "gelu(tanh)"),
        ("GELU", "gelu(erf)"),
        ("leaky_relu(negative_slope=0.1)", "leaky_relu(0.1)"),
        ("identity", "linear"),
        ("heaviside", "step"),
        ("hard-swish", "hardswish"),
    ],
)
def test_spellings(text, same):
    assert activation(text) is activation(same)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: gain("rellu"), "did you mean 'relu'"),
        (lambda: gain("relu", slope=1), "no parameters"),
        (lambda: gain("relu(1)"), "cannot read"),
        (lambda: gain("relu", mode="sideways"), "mode is"),  # type: ignore[arg-type]
        (lambda: gain("relu", std=0), "std is 0"),
        (lambda: gain("relu", std=math.nan), "std is nan"),
        (lambda: gain(np.tanh, slope=1), "only activations given by name"),
        (lambda: gain(5), "no activation"),
        (lambda: gain(lambda x: 0 * x), "is zero"),
        (lambda: gain(lambda x: x - x.mean()), "not a pointwise"),
        (lambda: gain(np.cumsum), "not a pointwise"),
        (lambda: gain(lambda x: np.random.default_rng().normal(size=x.shape)), "another result each time"),
        (lambda: gain(lambda x: x[:3]), "of shape"),
        (lambda: gain(lambda x: x + 1j), "complex"),
        (lambda: gain(lambda x: None), "array of"),
        (lambda: gain(np.log), "gives nan"),
        (lambda: gain(lambda x: 1 / x), "no finite second moment"),
        (lambda: gain(lambda x: x.no_such_thing()), "no_such_thing"),
        (lambda: gain(lambda x: np.exp(x * x)), "infinite|overflows|finite"),
        (lambda: pair_moment("relu", 1.1), "correlation"),
        (lambda: reach("relu", -1), "second_moment"),
        (lambda: critical_line("tanh", -1), "sigma_b"),
    ],
)
def test_mistakes_are_argument_errors(make, match):
    with pytest.raises(ArgumentError, match=match):
        make()


def test_import_is_light():
    code = "import sys, fanin.activations; print(sorted({'torch', 'scipy', 'jax'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
