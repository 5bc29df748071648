"""Keys, the generator and ``draw``: known answers, slices, dtypes, and errors."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from fanin.distributions import (
    Constant,
    DeltaOrthogonal,
    Identity,
    Normal,
    Orthogonal,
    Rademacher,
    Sparse,
    TruncatedNormal,
    Uniform,
)
from fanin.errors import ArgumentError
from fanin.fill import arithmetic, arithmetic64, draw, laws, philox
from fanin.fill.formats import FORMATS, encode
from fanin.fill.jobs import Job, run
from fanin.fill.keys import Key, key

ELEMENTWISE = [Normal(0.5), Normal(2.0, mean=1.0), Uniform(0.5), TruncatedNormal(0.5), TruncatedNormal(1.0, bound=4.0),
               Rademacher(0.5), Constant(0.25)]  # fmt: skip


@pytest.mark.parametrize(
    ("counter", "stream", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_known_answers(counter, stream, expected):
    """Random123's kat_vectors for philox4x32-10: nought, all ones, digits of pi."""
    low = np.array([counter[0] | counter[1] << 32], np.uint64)
    words = philox.words(Key(*stream, *counter[2:]), low)[:, 0]
    assert " ".join(f"{w:08x}" for w in words) == expected


def test_a_million_names_have_a_million_keys():
    names = (f"model.layers.{i}.{part}" for i in range(250_000) for part in ("q", "k", "v", "o"))
    assert len({key(0, name) for name in names}) == 1_000_000


def test_the_key_tells_seed_name_and_purpose_apart():
    keys = {key(s, n, p) for s in (0, 1, 256, 2**64 - 1) for n in ("", "a", "a\0", "b", "é") for p in ("", "zeros")}
    assert len(keys) == 40


@pytest.mark.parametrize("law", ELEMENTWISE, ids=str)
@pytest.mark.parametrize("dtype", list(FORMATS))
def test_any_slice_is_cut_from_the_same_tensor(law, dtype):
    full = draw(5000, law, seed=3, name="w", dtype=dtype)
    for start, count in [(0, 1), (1, 5), (255, 2), (1000, 48), (1023, 1030), (511, 3000), (4999, 1), (2048, 1024)]:
        part = draw(count, law, seed=3, name="w", dtype=dtype, offset=start)
        np.testing.assert_array_equal(part, full[start : start + count])


def test_far_slices():
    """Beyond 2^32 counters the upper counter word comes in."""
    low, far = (draw(10, Normal(1.0), seed=0, name="w", offset=o) for o in (0, 2**40))
    assert not np.intersect1d(low, far).size
    np.testing.assert_array_equal(draw(5, Normal(1.0), seed=0, name="w", offset=2**40 + 5), far[5:])


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 4e-7), ("float64", 1e-15)])
def test_formulas_against_scipy(dtype, tolerance):
    """Radius, angle and quantile against libm and scipy on random words and the extreme ones."""
    rng = np.random.default_rng(0)
    if dtype == "float32":
        bits = np.concatenate([rng.integers(0, 2**32, 1 << 16), [0, 1, 2, 2**31, 2**32 - 1]]).astype(np.uint32)
        m, size, radius, turn, quantile = (bits >> 1).astype(float), 2.0**31, *_formulas(arithmetic, 32)
        angle = bits.view(np.int32) * (2 * np.pi / 2**32)
    else:
        bits = np.concatenate([rng.integers(-(2**63), 2**63 - 1, 1 << 16), [0, 1, -1, -(2**63), 2**63 - 1]])
        m, size, radius, turn, quantile = (
            (bits.view(np.uint64) >> 11).astype(float),
            2.0**53,
            *_formulas(arithmetic64, 64),
        )
        angle = bits * (2 * np.pi / 2**64)
    u, below_one = (m + 0.5) / size, (size - m - 0.5) / size
    r = np.sqrt(-2 * np.where(u < 0.5, np.log(u), np.log1p(-np.minimum(below_one, 0.9))))
    moderate = below_one > 2.0**-20 if dtype == "float64" else np.ones_like(u, bool)
    assert np.abs(radius(bits) / r - 1)[moderate].max() < tolerance
    cos, sin = turn(bits)
    assert max(np.abs(cos - np.cos(angle)).max(), np.abs(sin - np.sin(angle)).max()) < tolerance
    for bound in (0.5, 2.0, 3.5, 12.0):
        edge, tail = laws.coverage(bound)
        z = np.where(bits & 1, 1, -1) * special.ndtri((tail + u * edge) / 2)
        with np.errstate(invalid="ignore"):
            got = quantile(bits, *(np.full(1, x, dtype) for x in (edge, tail, bound)), bound > laws.FAR)
        assert np.abs(got - z).max() < 6 * tolerance and np.abs(got).max() <= bound


def _formulas(module, bits):
    return (getattr(module, f"{name}{bits}") for name in ("radius", "turn", "quantile"))


@pytest.mark.parametrize("bound", [0.1, 2.0, 5.0, 11.0, 20.0])
def test_coverage_against_scipy(bound):
    p, tail = laws.coverage(bound)
    assert p == pytest.approx(special.erf(bound / 2**0.5), rel=1e-15)
    assert tail == pytest.approx(special.erfc(bound / 2**0.5), rel=1e-13, abs=1e-32)


def test_sixteen_bit_formats_round_to_nearest_even():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=1 << 18) * 10.0 ** rng.integers(-9, 6, 1 << 18)).astype(np.float32)
    x = np.append(x, np.float32([0, -0.0, 65504, 65519.99, 65520, 1e6, 2**-14, 2**-24, 2**-25, 1.01 * 2**-25]))
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(encode(x, FORMATS["float16"]), x.astype(np.float16).view(np.uint16))
    bits = x.view(np.uint32).astype(np.uint64)
    even = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    np.testing.assert_array_equal(encode(x, FORMATS["bfloat16"]), even)


def test_sparse_has_exactly_its_zeros_in_each_column():
    w = draw((100, 50), Sparse(1.0, sparsity=0.85), seed=0, name="w")
    assert ((w == 0).sum(0) == 85).all() and w[w != 0].std() == pytest.approx(0.15**-0.5, rel=0.1)


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4), (4, 3, 3, 3)])
def test_orthogonal(shape):
    w = draw(shape, Orthogonal(2.0), seed=0, name="w", dtype="float64").reshape(shape[0], -1)
    gram = w @ w.T if shape[0] <= w.shape[1] else w.T @ w
    np.testing.assert_allclose(gram, 4 * np.eye(len(gram)), atol=1e-12)


def test_delta_orthogonal_and_identity_live_at_the_central_tap():
    w, eye = (draw((4, 3, 3, 5), law, seed=0, name="w") for law in (DeltaOrthogonal(), Identity(3.0)))
    np.testing.assert_allclose(w[:, :, 1, 2].T @ w[:, :, 1, 2], np.eye(3), atol=1e-6)
    assert np.count_nonzero(w) == 12 and np.count_nonzero(eye) == 3 and eye[1, 1, 1, 2] == 3


@pytest.mark.parametrize(
    "change",
    [
        {"seed": -1},
        {"seed": 2**64},
        {"seed": True},
        {"seed": 1.5},
        {"name": 3},
        {"dtype": "int32"},
        {"dtype": np.int8},
        {"shape": (2, -1)},
        {"shape": "ab"},
        {"offset": -1},
        {"offset": 0.5},
        {"distribution": "normal"},
        {"distribution": Orthogonal(), "offset": 4},
        {"distribution": Orthogonal(), "shape": (4,)},
        {"distribution": Orthogonal(), "dtype": "complex64"},
    ],
    ids=str,
)
def test_bad_arguments(change):
    given = {"shape": (4, 4), "distribution": Normal(1.0), "seed": 0, "name": "w", **change}
    with pytest.raises(ArgumentError):
        draw(given.pop("shape"), given.pop("distribution"), **given)


def test_empty_and_scalar_shapes():
    assert draw((), Normal(1.0), seed=0, name="w").shape == ()
    assert draw((3, 0), Orthogonal(), seed=0, name="w").shape == (3, 0)
    assert draw(np.int64(3), Normal(1.0), seed=np.uint64(2**64 - 1), name="w", dtype=np.float16).dtype == np.float16


def test_stacked_blocks_go_on_in_the_stream_and_any_slice_is_the_same():
    from fanin.distributions import Stacked

    law = Stacked((Constant(0.0), Normal(0.5), Uniform(0.1), Orthogonal()))
    full = draw((32, 8), law, seed=3, name="w")
    assert (full[:8] == 0).all()
    assert np.array_equal(full[8:16], draw((8, 8), Normal(0.5), seed=3, name="w", offset=64))
    assert np.abs(full[24:] @ full[24:].T - np.eye(8)).max() < 1e-6
    for offset, count in ((0, 5), (60, 10), (63, 130), (190, 66)):
        piece = np.empty(count, np.float32)
        run([Job(piece.ctypes.data, count, "w", (32, 8), law, FORMATS["float32"], offset)], 3)
        assert np.array_equal(piece, full.reshape(-1)[offset : offset + count])
    columns = np.empty((32, 3), np.float32)  # what a rank with columns 2 to 4 draws
    run([Job(columns.ctypes.data, 3, "w", (32, 8), law, FORMATS["float32"], 2, count=32, stride=8)], 3)
    assert np.array_equal(columns, full[:, 2:5])
    assert np.array_equal(
        draw((8,), Stacked((Normal(1.0),) * 4), seed=0, name="b"), draw((8,), Normal(1.0), seed=0, name="b")
    )
    with pytest.raises(ArgumentError, match="multiple of 4"):
        draw((30, 8), law, seed=3, name="w")
