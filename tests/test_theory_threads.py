"""One thread for the theory's small matrices, and the caller's setting left as it was."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from fanin.theory import threads


def test_products_run_in_one_thread_and_the_setting_comes_back():
    controls = threads._controls()
    if controls is None:
        pytest.skip("NumPy's linear algebra is not OpenBLAS")
    get, set_ = controls
    before = get()
    set_(2)
    try:
        with threads.one_thread():
            assert get() == 1
            assert np.allclose(np.eye(3) @ np.eye(3), np.eye(3))
        assert get() == 2
        with pytest.raises(ZeroDivisionError), threads.one_thread():
            raise ZeroDivisionError
        assert get() == 2
    finally:
        set_(before)


def test_another_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(threads, "_controls", lambda: None)
    with threads.one_thread():
        assert float(np.ones(3) @ np.ones(3)) == 3


def test_functions_in_pieces_and_of_constants_are_the_function():
    torch = pytest.importorskip("torch")
    from fanin.frameworks.torch.ops import SERIAL, numpy_function
    from fanin.frameworks.torch.program import Ref, Step

    step = Step("y", torch.ops.aten.mul.Tensor, (Ref("a"), Ref("b")), {}, None, ())
    fn = numpy_function(step)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((SERIAL // 256, 512))
    assert np.array_equal(fn(x, x), x * x)
    same = np.repeat(x[:, :1], 512, 1)
    assert np.array_equal(fn(same, same), same * same)
    assert np.array_equal(fn(same, x), same * x)
    assert fn(2.0, 3.0) == 6.0


def test_searches_for_cycles_are_rarer_while_a_graph_is_read_and_as_before_afterwards():
    before = gc.get_threshold()
    with threads.rarely_collected():
        assert gc.get_threshold() == (threads.ALLOCATIONS, *before[1:])
        assert gc.get_freeze_count()
    assert gc.get_threshold() == before
    assert not gc.get_freeze_count()
    gc.set_threshold(0, *before[1:])  # switched off by the user
    try:
        with threads.rarely_collected():
            assert gc.get_threshold()[0] == 0
    finally:
        gc.set_threshold(*before)


def test_objects_that_were_frozen_stay_so():
    gc.freeze()
    try:
        count = gc.get_freeze_count()
        with threads.rarely_collected():
            assert gc.get_freeze_count() == count
        assert gc.get_freeze_count() == count
    finally:
        gc.unfreeze()
