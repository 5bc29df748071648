"""The compiled kernels give the reference's bits: every law, format, split and number of threads."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("numba")

from fanin.distributions import Normal, Rademacher, TruncatedNormal, Uniform
from fanin.fill import engine, reference, table
from fanin.fill.formats import FORMATS, encode
from fanin.fill.keys import key
from fanin.fill.laws import RAW, Law, law

LAWS = [Normal(0.5), Normal(2.0, mean=-1.0), Uniform(0.5, mean=3.0), Rademacher(0.25), TruncatedNormal(0.5),
        TruncatedNormal(1.0, bound=4.0), TruncatedNormal(1.0, bound=30.0)]  # fmt: skip
REAL = [f for f in FORMATS.values() if f.parts == 1]


def expected(generator: Law, size, start, format):
    values = np.empty(size, format.working)
    reference.fill(values, generator, key(5, "w"), start)
    return encode(values, format)


def piece(out, *rest):
    law, key, *rest = rest
    return engine.Piece(out.ctypes.data, out.size, law, key.packed(), *rest)


def assert_same_bits(a, b):
    np.testing.assert_array_equal(a.view(f"u{a.itemsize}"), b.view(f"u{b.itemsize}"))


@pytest.mark.parametrize("format", REAL, ids=lambda f: f.name)
@pytest.mark.parametrize("distribution", LAWS, ids=str)
def test_kernel_is_the_reference(distribution, format):
    generator, size = law(distribution), 200_000
    out = np.zeros(size, format.storage)
    table.fill_by_kernels([piece(out, generator, key(5, "w"), 0, format)])
    assert_same_bits(out, expected(generator, size, 0, format))


@pytest.mark.parametrize("format", REAL, ids=lambda f: f.name)
def test_any_start_and_size(format):
    generator, rng = law(Normal(1.0)), np.random.default_rng(0)
    whole = expected(generator, 6000, 0, format)
    spans = [
        (s, s + n) for s in (0, 1, 255, 256, 511, 512, 700, 1023, 1024, 2047) for n in (0, 1, 2, 255, 257, 1024, 1025)
    ]
    spans += [tuple(sorted(rng.integers(0, 6000, 2))) for _ in range(100)]
    guarded = [np.full(stop - start + 2, 7, format.storage) for start, stop in spans]
    pieces = [
        piece(out[1:-1], generator, key(5, "w"), int(start), format)
        for out, (start, _) in zip(guarded, spans, strict=True)
    ]
    table.fill_by_kernels(pieces)
    for out, (start, stop) in zip(guarded, spans, strict=True):
        assert_same_bits(out[1:-1], whole[start:stop])
        assert out[0] == 7 and out[-1] == 7, "written outside its piece"


def test_raw_words_and_far_blocks():
    out, far = np.zeros(3000, np.uint32), np.zeros(3000, np.uint32)
    plain = piece(out, RAW, key(5, "w"), 2**42 + 77, engine._PLAIN["uint32"])
    table.fill_by_kernels([plain])
    reference.fill(far, RAW, key(5, "w"), 2**42 + 77)
    assert_same_bits(out, far)


@pytest.mark.parametrize("threads", ["1", "2", "7"])
def test_threads_do_not_matter(threads, monkeypatch):
    monkeypatch.setenv("FANIN_THREADS", threads)
    test_kernel_is_the_reference(Normal(0.5), FORMATS["float32"])
    test_kernel_is_the_reference(Normal(0.5), FORMATS["bfloat16"])


def test_all_words_that_matter_at_the_edges():
    """The formulas on extreme words, compiled and in NumPy."""
    from fanin.fill import arithmetic, kernels

    words = np.array([0, 1, 2, 3, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 2, 2**32 - 1, 0x20000000, 0x60000000], np.uint32)
    radius, (cos, sin) = arithmetic.radius32(words), arithmetic.turn32(words)
    for i, word in enumerate(words):
        assert kernels._radius32(word) == radius[i]
        assert kernels._turn32(word) == (cos[i], sin[i])
        assert kernels._unit32(word) == arithmetic.signed_unit32(words)[i]


def run_python(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


DRAW = """
import hashlib, sys
from fanin.fill import draw
from fanin.distributions import Normal
x = draw(300_000, Normal(1.0), seed=1, name="w")
print(hashlib.sha256(x.tobytes()).hexdigest(), "numba" in sys.modules)
"""


def test_processes_with_and_without_kernels_agree(tmp_path):
    slow, fast = (run_python(DRAW, FANIN_KERNELS=k).split() for k in "01")
    assert slow[0] == fast[0] and (slow[1], fast[1]) == ("False", "True")


@pytest.mark.slow  # compiles everything anew
def test_an_unwritable_cache_still_draws(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    assert run_python(DRAW, FANIN_KERNELS="1", FANIN_CACHE_DIR=str(blocked)).endswith("True")


def test_little_work_does_not_load_numba():
    assert run_python(DRAW).endswith("False")
