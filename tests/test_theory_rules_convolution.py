"""Convolutions in every variant: predicted against drawn networks, position by position where borders count."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from test_theory_statistics import Comparison, compared, normal  # noqa: E402
from torch import nn  # noqa: E402

from fanin.distributions import Normal  # noqa: E402

C = 32
IMAGE, LINE, VOLUME = normal(4, C, 8, 8), normal(4, C, 16), normal(2, C, 4, 4, 4)


def twice(kind: type[nn.Module], **options) -> nn.Module:
    """Two equal layers with a ReLU between: the first sees the known batch, the second a law."""
    return nn.Sequential(kind(C, C, **options), nn.ReLU(), kind(C, C, **options))


CASES = {
    "3x3 same": (lambda: twice(nn.Conv2d, kernel_size=3, padding=1), IMAGE),
    "3x3 valid": (lambda: twice(nn.Conv2d, kernel_size=3), IMAGE),
    "1x1": (lambda: twice(nn.Conv2d, kernel_size=1), IMAGE),
    "5x3": (lambda: twice(nn.Conv2d, kernel_size=(5, 3), padding=(2, 1)), IMAGE),
    "padding='same'": (lambda: twice(nn.Conv2d, kernel_size=3, padding="same"), IMAGE),
    "padding='same', even kernel": (lambda: twice(nn.Conv2d, kernel_size=4, padding="same"), IMAGE),
    "wide padding": (lambda: twice(nn.Conv2d, kernel_size=3, padding=2), IMAGE),
    "stride": (lambda: twice(nn.Conv2d, kernel_size=3, padding=1, stride=2), IMAGE),
    "dilation": (lambda: twice(nn.Conv2d, kernel_size=3, padding=2, dilation=2), IMAGE),
    "groups": (lambda: twice(nn.Conv2d, kernel_size=3, padding=1, groups=4), IMAGE),
    "depthwise": (lambda: twice(nn.Conv2d, kernel_size=3, padding=1, groups=C), IMAGE),
    "1d": (lambda: twice(nn.Conv1d, kernel_size=3, padding=1), LINE),
    "1d strided": (lambda: twice(nn.Conv1d, kernel_size=4, stride=2), LINE),
    "3d": (lambda: twice(nn.Conv3d, kernel_size=3, padding=1), VOLUME),
    "circular": (lambda: twice(nn.Conv2d, kernel_size=3, padding=1, padding_mode="circular"), IMAGE),
    "reflect": (lambda: twice(nn.Conv2d, kernel_size=3, padding=1, padding_mode="reflect"), IMAGE),
    "replicate": (lambda: twice(nn.Conv2d, kernel_size=3, padding=1, padding_mode="replicate"), IMAGE),
    "transposed": (lambda: twice(nn.ConvTranspose2d, kernel_size=3, padding=1), IMAGE),
    "transposed strided": (lambda: twice(nn.ConvTranspose2d, kernel_size=4, stride=2, padding=1), IMAGE),
    "transposed uneven": (lambda: twice(nn.ConvTranspose2d, kernel_size=3, stride=2, output_padding=1), IMAGE),
    "transposed grouped": (lambda: twice(nn.ConvTranspose2d, kernel_size=3, stride=2, groups=4), IMAGE),
    "transposed 1d": (lambda: twice(nn.ConvTranspose1d, kernel_size=4, stride=2, padding=1), LINE),
}
OPEN: dict[str, str] = {}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.xfail(strict=True, reason=OPEN[n]) if n in OPEN else ()) for n in CASES]
)
def test_convolution(name):
    build, batch = CASES[name]
    assert compared(build(), batch, networks=64).misses() == []


def test_bias():
    laws = {"0.bias": Normal(0.5), "2.bias": Normal(0.5)}
    assert compared(twice(nn.Conv2d, kernel_size=3, padding=1), IMAGE, laws).misses() == []


def test_images_that_are_smooth():
    """Neighbouring pixels that are alike: patches of known inputs are taken as they are."""
    flat = normal(4, C, 1, 1).expand(4, C, 8, 8) + 0.1 * IMAGE
    assert compared(twice(nn.Conv2d, kernel_size=3, padding=1), flat).misses() == []


def test_padding_left_out_is_missed():
    """A control: circular padding loses nothing at the border, zero padding a sixth on an 8x8 map."""
    zero = compared(twice(nn.Conv2d, kernel_size=3, padding=1), IMAGE)
    full = compared(twice(nn.Conv2d, kernel_size=3, padding=1, padding_mode="circular"), IMAGE)
    rows = {row.name: row for row in full.predicted.rows}
    swapped = zero.predicted.with_rows([replace(row, rms=rows[row.name].rms) for row in zero.predicted.rows])
    assert Comparison(swapped, zero.squares, zero.means).misses()


def test_the_border_is_told_apart_from_the_middle():
    """Rows of the map by themselves: a slice of the border is weaker than one of the middle, by the taps it lacks."""

    class Sliced(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = twice(nn.Conv2d, kernel_size=3, padding=1, bias=False)

        def forward(self, x):
            y = self.body(x)
            return y[:, :, 0], y[:, :, 4]

    result = compared(Sliced(), normal(16, C, 8, 8), networks=64)
    assert result.misses() == []
    border, middle = (row.rms for row in result.predicted.rows[-2:])
    assert border is not None and middle is not None
    assert np.isclose(
        (border / middle) ** 2, (2 / 3 + 1) / 3, atol=0.02
    )  # of two rows of taps, one lost a third itself
