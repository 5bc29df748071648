"""Schemes against their papers' numbers, and against the initializers of torch."""

from __future__ import annotations

import math

import pytest

from fanin.activations import gain, moments
from fanin.axes import Fans, fans
from fanin.distributions import Normal, TruncatedNormal, Uniform
from fanin.errors import ArgumentError
from fanin.schemes import (
    SCHEMES,
    alexnet,
    bert,
    dcgan,
    delta_orthogonal,
    glorot_in,
    glorot_normal,
    glorot_truncated_normal,
    glorot_uniform,
    gpt2,
    he_normal,
    he_truncated_normal,
    he_uniform,
    kaiming_normal,
    lecun_normal,
    lecun_truncated_normal,
    lecun_uniform,
    orthogonal,
    scheme,
    standard_uniform,
    sum_uniform,
    variance_scaling,
    xavier_uniform,
)

F = Fans(300, 100)


@pytest.mark.parametrize(
    ("found", "kind", "variance"),
    [
        (glorot_normal(F), Normal, 2 / 400),
        (glorot_uniform(F), Uniform, 2 / 400),
        (glorot_truncated_normal(F), TruncatedNormal, 2 / 400),
        (glorot_in(F), Uniform, 1 / 300),
        (he_normal(F), Normal, 2 / 300),
        (he_normal(F, mode="fan_out"), Normal, 2 / 100),
        (he_normal(F, mode="fan_avg"), Normal, 2 / 200),
        (he_normal(F, mode="fan_geo"), Normal, 2 / math.sqrt(30_000)),
        (he_uniform(F, slope=0.5), Uniform, 2 / (1.25 * 300)),
        (he_truncated_normal(F), TruncatedNormal, 2 / 300),
        (lecun_normal(F), Normal, 1 / 300),
        (lecun_uniform(F), Uniform, 1 / 300),
        (lecun_truncated_normal(F), TruncatedNormal, 1 / 300),
        (standard_uniform(F), Uniform, 1 / 900),
        (sum_uniform(F, 2.0), Uniform, 4 / (3 * 400**2)),
        (variance_scaling(F, scale=3, mode="fan_out", distribution="uniform"), Uniform, 3 / 100),
        (alexnet(F), Normal, 0.01**2),
        (gpt2(F), Normal, 0.02**2),
        (dcgan(), Normal, 0.02**2),
        (bert(), TruncatedNormal, (0.02 * 0.8796256610342398) ** 2),
    ],
    ids=lambda v: str(v) if not isinstance(v, type) else v.__name__,
)
def test_kind_and_variance(found, kind, variance):
    assert type(found) is kind
    assert found.std == pytest.approx(math.sqrt(variance), rel=1e-9)
    assert found.mean == 0


def test_bounds_are_the_papers():
    assert glorot_uniform(F).bounds == pytest.approx((-math.sqrt(6 / 400), math.sqrt(6 / 400)))
    assert standard_uniform(F).bounds == pytest.approx((-1 / math.sqrt(300), 1 / math.sqrt(300)))
    assert sum_uniform(F, 2.0).bounds == pytest.approx((-2 / 400, 2 / 400))
    assert bert().bounds == pytest.approx((-0.04, 0.04))


def test_orthogonal_kinds():
    assert str(orthogonal(F, gain=2.0)) == "orthogonal(gain=2)"
    assert delta_orthogonal((3, 3, 3, 3)).moments((16, 16, 3, 3))[1] == pytest.approx(1 / 12)


def test_the_first_argument_may_be_fans_a_shape_or_a_module():
    torch = pytest.importorskip("torch")
    layer = torch.nn.Conv2d(3, 8, 5)
    wanted = he_normal(Fans(75, 200))
    assert he_normal(layer) == he_normal((8, 3, 5, 5)) == he_normal(fans((5, 5, 3, 8), layout="HWIO")) == wanted


def test_vgg_b(numbers):
    """Delving deep into rectifiers, section 2.2: std of each layer, and what std 0.01 does to the gradient."""
    he = numbers["he_2015"]
    for width, std in he["vgg_b_std_fan_out"].items():
        d = int(width)
        assert he_normal((d, d, 3, 3), mode="fan_out").std == pytest.approx(std, abs=5.1e-8)
    widths = [64, 128, 128, 256, 256, 512, 512, 512, 512]  # conv2 to conv10
    shrunk = math.prod(alexnet().std / he_normal((d, d, 3, 3), mode="fan_out").std for d in widths)
    assert "1.673e4" in he["vgg_b_gradient_conv10_to_conv2_with_std_0_01"]
    assert 1 / shrunk == pytest.approx(1.673e4, rel=3e-4)


def test_xavier_against_he(numbers):
    """Std of the signal after L ReLU layers of equal width under Xavier's variance; He's keeps it."""
    f, n = Fans(512, 512), 512
    for depth, wanted in numbers["he_2015"]["xavier_vs_he_std_after_L_relu_layers"].items():
        q = {"xavier": 1.0, "he": 1.0}
        for _ in range(int(depth)):
            for name, law in (("xavier", glorot_normal(f)), ("he", he_normal(f))):
                q[name] = n * law.std**2 * moments("relu", math.sqrt(q[name])).second_moment
        assert math.sqrt(q["xavier"]) == pytest.approx(wanted, rel=2e-3)
        assert q["he"] == pytest.approx(1, rel=1e-9)


def test_slope_is_prelus_gain():
    """The closed form (1 + a^2) / 2 of eq. 15 is the activation's own moment, forward and backward."""
    for slope in (0.0, 0.01, 0.25, 1.0):
        wanted = gain("prelu", slope=slope) ** 2 / F.fan_in
        assert he_normal(F, slope=slope).std ** 2 == pytest.approx(wanted, rel=1e-12)
        back = gain("prelu", slope=slope, mode="backward") ** 2 / F.fan_out
        assert he_normal(F, slope=slope, mode="fan_out").std ** 2 == pytest.approx(back, rel=1e-12)


def test_glorot_jacobian_singular_values(numbers):
    """Mean singular value of an n x n i.i.d. matrix is 8 / (3 pi) sqrt(n) std."""
    wanted, f = numbers["glorot_2010"]["jacobian_mean_singular_value"], Fans(1000, 1000)
    per_unit = 8 / (3 * math.pi) * math.sqrt(1000)
    assert per_unit * glorot_uniform(f).std == pytest.approx(wanted["normalized_linear"], abs=5e-7)
    assert per_unit * standard_uniform(f).std == pytest.approx(wanted["standard_linear"], abs=5e-7)


def test_glorot_figure_6(numbers):
    """Activation std of five tanh layers, width 1000; the table is a Monte Carlo of three digits."""
    table = numbers["glorot_2010"]["figure6_activation_std_tanh_width1000_input_variance_one_third"]
    f = Fans(1000, 1000)
    for name, law in (("standard", standard_uniform(f)), ("normalized", xavier_uniform(f))):
        second = 1 / 3
        for wanted in table[name]:
            second = moments("tanh", math.sqrt(1000 * second) * law.std).second_moment
            assert math.sqrt(second) == pytest.approx(wanted, rel=1e-2)


def test_truncated_schemes_promise_the_variance_they_draw(numbers):
    factor = numbers["truncated_normal"]["two_sigma_std"]
    found = he_truncated_normal(F)
    assert isinstance(found, TruncatedNormal)
    assert found.sigma == pytest.approx(math.sqrt(2 / 300) / factor, rel=1e-12)


@pytest.mark.parametrize("shape", [(30, 20), (8, 3, 5, 5), (6, 4, 3)])
def test_torch_draws_the_same_bounds(shape):
    """The extreme of many uniform draws lies just inside the bound; torch's own formulas, not ours, drew them."""
    torch = pytest.importorskip("torch")
    init = torch.nn.init
    torch.manual_seed(0)
    for fill, law in [
        (lambda w: init.xavier_uniform_(w), glorot_uniform(shape)),
        (lambda w: init.kaiming_uniform_(w, nonlinearity="relu"), he_uniform(shape)),
        (lambda w: init.kaiming_uniform_(w, a=0.3, mode="fan_out"), he_uniform(shape, mode="fan_out", slope=0.3)),
        (lambda w: init.kaiming_uniform_(w, a=math.sqrt(5)), standard_uniform(shape)),
    ]:
        draws = torch.stack([fill(torch.empty(shape)) for _ in range(200)])
        bound = law.support[1]
        assert bound * (1 - 20 / draws.numel()) < draws.max().item() <= bound * (1 + 1e-6)


def test_names():
    assert scheme("kaiming_normal") is kaiming_normal is he_normal
    assert {"glorot_in", "bert", "delta_orthogonal", "sum_uniform"} <= set(SCHEMES)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: scheme("hee_normal"), "did you mean 'he_normal'"),
        (lambda: he_normal(F, mode="fanin"), "did you mean 'fan_in'"),
        (lambda: he_normal(F, slope=math.nan), "slope"),
        (lambda: variance_scaling(F, scale=0), "scale"),
        (lambda: variance_scaling(F, distribution="orthogonal"), "no distribution"),
        (lambda: sum_uniform(F, -1), "c is -1"),
        (lambda: he_normal((5,)), "no fans"),
        (lambda: he_normal(None), "neither a shape nor"),
        (lambda: orthogonal(F, gain=0), "gain"),
    ],
)
def test_mistakes_are_argument_errors(make, match):
    with pytest.raises(ArgumentError, match=match):
        make()
