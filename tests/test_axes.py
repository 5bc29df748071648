"""Fans against brute force: the connections of a real torch layer, counted in its Jacobian."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from fanin.axes import Fans, axis_roles, fans
from fanin.errors import ArgumentError


def counted(layer, shape):
    """(mean inputs an output depends on, mean outputs an input feeds) of a torch layer with positive weights."""
    import torch

    layer = layer.double()
    with torch.no_grad():
        for p in layer.parameters():
            p.uniform_(0.5, 1.0)
        n = math.prod(shape)
        basis = torch.eye(n, dtype=torch.float64).reshape(n, *shape)
        j = layer(basis).reshape(n, -1).T != 0  # the layer is linear: its Jacobian, in one batch
    return j.sum(1).double().mean().item(), j.sum(0).double().mean().item()


CONVS = [
    {"kernel_size": 3},
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "padding": "same", "dilation": 2},
    {"kernel_size": 4, "stride": 2, "padding": 1},
    {"kernel_size": 3, "stride": 2, "dilation": 2, "padding": 2, "groups": 2},
    {"kernel_size": 5, "stride": 3, "padding": 4, "groups": 4},
    {"kernel_size": 1, "stride": 2},
    {"kernel_size": 2, "padding": "same"},
]
TRANSPOSED = [
    {"kernel_size": 3},
    {"kernel_size": 4, "stride": 2, "padding": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1},
    {"kernel_size": 5, "stride": 3, "groups": 2},
    {"kernel_size": 2, "stride": 3},
    {"kernel_size": 3, "stride": 2, "dilation": 2, "padding": 2},
]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize(
    ("transposed", "options"),
    [*itertools.product([False], CONVS), *itertools.product([True], TRANSPOSED)],
    ids=str,
)
def test_effective_fans_are_the_connections_of_the_layer(d, transposed, options):
    torch = pytest.importorskip("torch")
    size = {1: (11,), 2: (7, 9), 3: (3, 4, 5)}[d]
    kind = f"Conv{'Transpose' if transposed else ''}{d}d"
    layer = getattr(torch.nn, kind)(4, 8 if d < 3 else 4, bias=False, **options)
    found = fans(layer).effective(size)
    assert (found.fan_in, found.fan_out) == pytest.approx(counted(layer, (4, *size)), rel=1e-12)
    spelled = fans(
        tuple(layer.weight.shape), transposed=transposed, **{k: v for k, v in options.items() if k != "kernel_size"}
    )
    assert spelled == fans(layer) and spelled.effective(size) == found


def test_circular_padding_feeds_every_tap():
    torch = pytest.importorskip("torch")
    layer = torch.nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular", bias=False)
    found = fans(layer).effective(6)
    assert (found.fan_in, found.fan_out) == pytest.approx(counted(layer, (2, 6, 6)))


def test_interior_of_a_transposed_convolution():
    """Far from the borders, averaged over the phases of the stride, an output of a transposed layer sees c_in k / s."""
    torch = pytest.importorskip("torch")
    layer = torch.nn.ConvTranspose1d(3, 5, 5, stride=2)
    assert (fans(layer).fan_in, fans(layer).fan_out) == (7.5, 25)
    assert fans(layer).effective(10_000).fan_in == pytest.approx(7.5, rel=1e-3)


def test_stride_divides_what_an_input_really_feeds():
    f = fans((8, 4, 3, 3), stride=2, padding=1)
    assert (f.fan_in, f.fan_out, f.receptive) == (36, 72, 9)
    assert f.effective(1000).fan_out == pytest.approx(72 / 4, rel=1e-2)


def test_zero_padding_in_the_first_layer(numbers):
    assert numbers["zero_padding"]["first_layer"] == "(1-2/(3H))(1-2/(3W))"
    for height, width in [(8, 8), (16, 16), (32, 32), (7, 12)]:
        kept = fans((16, 16, 3, 3), padding=1).effective((height, width)).fan_in / (16 * 9)
        assert kept == pytest.approx((1 - 2 / (3 * height)) * (1 - 2 / (3 * width)), rel=1e-12)
        if height == width:
            table = numbers["zero_padding"]["mean_second_moment_after_1_2_5_10_20_50_he_relu_layers"]
            assert kept == pytest.approx(table[str(height)][0], abs=1.5e-4)


@pytest.mark.parametrize(
    ("shape", "options", "wanted"),
    [
        ((200, 300), {}, (300, 200)),
        ((300, 200), {"layout": "IO"}, (300, 200)),
        ((5, 5, 3, 8), {"layout": "HWIO"}, (75, 200)),
        ((8, 3, 5, 5), {}, (75, 200)),
        ((8, 3, 5, 5), {"layout": "OIHW"}, (75, 200)),
        ((5, 3, 8), {"layout": "WIO"}, (15, 40)),
        ((2, 5, 5, 3, 8), {"layout": "DHWIO"}, (150, 400)),
        ((32, 1, 3, 3), {"groups": 32}, (9, 9)),
        ((64, 1, 3, 3), {"groups": 32}, (9, 18)),
        ((3, 3, 32, 2), {"layout": "HWIM"}, (9, 18)),
        ((3, 3, 32, 1), {"layout": "HWIM"}, (9, 9)),
        ((3, 3, 8, 64), {"layout": "HWIO", "groups": 4}, (72, 144)),
        ((16, 8, 4, 4), {"layout": "IOHW", "stride": 2}, (64, 128)),
        ((16, 8, 4, 4), {"transposed": True, "stride": 2}, (64, 128)),
        ((4, 4, 8, 16), {"layout": "HWOI", "stride": 2}, (64, 128)),
        ((3 * 64, 64), {"blocks": 3}, (64, 64)),
        ((64, 3 * 64), {"layout": "IO", "blocks": 3}, (64, 64)),
        ((4 * 32, 10), {"blocks": 4}, (10, 32)),
        ((32, 20), {"blocks": 2, "block_axis": "I"}, (10, 32)),
        ((8, 100, 50), {"layout": "EOI"}, (50, 100)),
        ((8, 50, 100), {"layout": "EIO"}, (50, 100)),
        ((50_000, 768), {"layout": "embedding"}, (1, 768)),
        ((768, 12, 64), {"in_axes": 0, "out_axes": (1, 2)}, (768, 768)),
        ((12, 64, 768), {"in_axes": (0, 1), "out_axes": -1}, (768, 768)),
        ((8, 50, 100), {"in_axes": 1, "out_axes": 2, "batch_axes": 0}, (50, 100)),
        ((3, 3, 4, 8), {"in_axes": 2, "out_axes": 3}, (36, 72)),
        (np.array([4, 5]), {}, (5, 4)),
    ],
    ids=str,
)
def test_layouts(shape, options, wanted):
    found = fans(shape, **options)
    assert (found.fan_in, found.fan_out) == wanted and found == Fans(*wanted)
    assert isinstance(found.fan_in, int)


def test_modules():
    torch = pytest.importorskip("torch")
    nn = torch.nn
    for module, wanted in [
        (nn.Linear(30, 20), (30, 20)),
        (nn.Embedding(100, 16), (1, 16)),
        (nn.EmbeddingBag(100, 16), (1, 16)),
        (nn.Bilinear(3, 4, 5), (12, 5)),
        (nn.MultiheadAttention(32, 4), (32, 32)),
        (nn.MultiheadAttention(32, 4, kdim=8, vdim=8), (32, 32)),
        (nn.LSTM(10, 32), (10, 32)),
        (nn.GRU(10, 32, bidirectional=True), (10, 32)),
        (nn.RNN(10, 32), (10, 32)),
        (nn.LSTMCell(10, 32), (10, 32)),
        (nn.Conv2d(8, 16, 3, groups=4), (18, 36)),
        (nn.ConvTranspose2d(16, 8, 4, stride=2), (64, 128)),
        (torch.nn.modules.linear.NonDynamicallyQuantizableLinear(3, 4), (3, 4)),
        (nn.Linear(30, 20, device="meta"), (30, 20)),
    ]:
        assert fans(module) == Fans(*wanted), module
    assert fans(nn.LSTM(10, 32), parameter="weight_hh_l0") == Fans(32, 32)
    assert fans(nn.LSTM(10, 32, proj_size=7), parameter="weight_hr_l0") == Fans(32, 7)
    assert fans(nn.MultiheadAttention(32, 4, kdim=8, vdim=8), parameter="k_proj_weight") == Fans(8, 32)
    assert fans(nn.MultiheadAttention(32, 4), parameter="out_proj.weight") == Fans(32, 32)
    with pytest.raises(ArgumentError, match="lazy module"):
        fans(nn.LazyLinear(5))
    with pytest.raises(ArgumentError, match="LayerNorm"):
        fans(nn.LayerNorm(5))
    with pytest.raises(ArgumentError, match="no weight"):
        fans(nn.LSTM(10, 32), parameter="weight_hh_l7")


def test_conv1d_of_transformers():
    utils = pytest.importorskip("transformers.pytorch_utils")
    assert fans(utils.Conv1D(20, 30)) == Fans(30, 20)  # Conv1D(outputs, inputs)


def test_agrees_with_torch_where_torch_is_right():
    torch = pytest.importorskip("torch")
    for shape in [(20, 30), (8, 3, 5), (8, 3, 5, 5), (8, 3, 5, 5, 5)]:
        assert fans(shape) == Fans(*torch.nn.init._calculate_fan_in_and_fan_out(torch.empty(shape)))


def test_a_tied_weight_has_fans_of_each_use():
    shape = (50_000, 768)
    assert fans(shape, layout="embedding") == Fans(1, 768)
    assert fans(shape, layout="OI") == Fans(768, 50_000)


@pytest.mark.parametrize(
    "shape", [(3, 3, 64, 128), (1, 1, 64, 128), (5, 5, 3, 8), (3, 3, 64, 64), (3, 3, 3, 8, 16), (8, 128, 256)]
)
def test_a_shape_that_looks_like_another_layout_is_not_guessed(shape):
    with pytest.raises(ArgumentError, match="ambiguous"):
        fans(shape)
    letters = {3: "OIW", 4: "OIHW", 5: "OIDHW"}[len(shape)]
    assert fans(shape, layout=letters).fan_in == math.prod(shape[1:])


@pytest.mark.parametrize(
    "shape", [(64, 3, 7, 7), (3, 3, 3, 3), (768, 3, 16, 16), (192, 192, 1, 7), (64, 3, 16), (3, 64, 3, 3), (1, 1, 3, 3)]
)
def test_torch_shapes_are_read_as_torch(shape):
    assert fans(shape).fan_in == math.prod(shape[1:])


def test_averages():
    f = Fans(75, 200)
    assert (f.avg, f.geo) == (137.5, pytest.approx(math.sqrt(75 * 200)))
    assert repr(f) == "Fans(fan_in=75, fan_out=200)"
    assert f.effective() is f and fans(f) is f
    assert axis_roles((8, 3, 5, 5)) == ("out", "in", "spatial", "spatial")


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: fans(()), "no fans"),
        (lambda: fans((5,)), "no fans"),
        (lambda: fans(5), "neither a shape nor"),
        (lambda: fans("OI"), "neither a shape nor"),
        (lambda: fans(None), "neither a shape nor"),
        (lambda: fans((5, -1)), "whole number"),
        (lambda: fans((5, 0)), "whole number"),
        (lambda: fans((5, 2.5)), "whole number"),
        (lambda: fans((5, True)), "whole number"),
        (lambda: fans((2,) * 6), "6 axes"),
        (lambda: fans((3, 4), transposed=True), "transposed"),
        (lambda: fans((3, 3, 4, 8), layout="HWOX"), "did you mean 'HWOI'|did you mean 'HWIO'"),
        (lambda: fans((3, 4), layout="HW"), "unknown"),
        (lambda: fans((3, 4), layout="HWIO"), "one letter an axis"),
        (lambda: fans((10, 4, 3, 3), groups=3), "groups=3 does not divide"),
        (lambda: fans((10, 4), blocks=3), "blocks=3 does not divide"),
        (lambda: fans((10, 4), blocks=2, block_axis="X"), "block_axis"),
        (lambda: fans((10, 4, 3, 3), groups=0), "groups is 0"),
        (lambda: fans((10, 4, 3, 3), stride=0), "stride is 0"),
        (lambda: fans((10, 4, 3, 3), stride=(1, 2, 3)), "stride"),
        (lambda: fans((10, 4, 3, 3), padding="full"), "padding"),
        (lambda: fans((10, 4, 3, 3), padding_mode="none"), "padding_mode"),
        (lambda: fans((10, 4, 3, 3)).effective(), "without a size"),
        (lambda: fans((10, 4, 3, 3)).effective(2), "gives 0 outputs"),
        (lambda: fans((10, 4, 3, 3)).effective((5, 5, 5)), "input_size"),
        (lambda: fans((3, 4), in_axes=0), "both ends"),
        (lambda: fans((3, 4), in_axes=0, out_axes=0), "is both"),
        (lambda: fans((3, 4), in_axes=0, out_axes=5), "axis 5"),
        (lambda: fans((3, 4, 5), layout="embedding"), "embedding"),
        (lambda: Fans(0, 3), "fan_in is 0"),
        (lambda: Fans(3, math.nan), "fan_out is nan"),
    ],
)
def test_mistakes_are_argument_errors(make, match):
    with pytest.raises(ArgumentError, match=match):
        make()
