"""Memory for the kernels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyseq.compiler import pool as pools
from tinyseq.compiler.pool import Pool
from tinyseq.kernels.memory import aligned, bytes_for, over, raw


@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (3, 1, 7), (300, 257)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, bool])
def test_arrays_begin_at_a_line_of_the_cache(shape, dtype):
    held = [aligned(shape, dtype) for _ in range(3)]
    for n, x in enumerate(held):
        assert x.ctypes.data % 64 == 0
        assert (x.shape, x.dtype) == (shape, dtype)
        assert x.flags.c_contiguous
        x[...] = n
    assert all((x == dtype(n)).all() for n, x in enumerate(held))


@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (3, 1, 7)])
@pytest.mark.parametrize("start", [*range(9), 63])
def test_wherever_bytes_begin_an_array_fits_in(shape, start):
    """And they are the base of the array and of its views."""
    for dtype in (np.float32, np.float64, bool):
        held = np.full(bytes_for(shape, dtype) + start, 7, np.uint8)[start:]
        x = over(held, shape, dtype)
        assert x.ctypes.data % 64 == 0
        x[...] = 0
        assert (held == 7).sum() == held.size - x.nbytes
    held = raw(shape, np.float32)
    assert over(held, shape, np.float32)[None].T.base is held


def test_a_view_holds_an_array_of_the_pool():
    pool = Pool()
    view = pool.take((4, 5), np.float32)[1:, 2:].T
    view[...] = 1
    other = pool.take((4, 5), np.float32)
    other[...] = 2
    assert (view == 1).all()
    address = other.ctypes.data
    del other
    assert pool.take((4, 5), np.float32).ctypes.data == address
    del view
    assert len({pool.take((4, 5), np.float32).ctypes.data for _ in range(3)}) == 1


@given(st.lists(st.tuples(st.sampled_from(["take", "view", "drop", "clear"]), st.integers(0, 3))))
def test_what_is_held_is_nobody_elses_and_the_rest_goes(actions):
    pool, held = Pool(), []  # arrays or views of them, each with what it holds
    for n, (action, which) in enumerate(actions):
        if action == "take":
            held.append((pool.take((which, 4), np.float32), n))
            held[-1][0][...] = n
        elif action == "view" and held:
            array, value = held.pop(which % len(held))
            held.append((array.T[1:], value))
            del array
        elif action == "drop" and held:
            held.pop(which % len(held))
        elif action == "clear":
            pool.clear()
        assert all((array == value).all() for array, value in held)
    most = pool.nbytes()
    pool.clear()
    assert pool.nbytes() <= most
    if not held:
        assert pool.nbytes() == 0
    held.clear()
    pool.clear()
    assert pool.nbytes() == 0


def test_what_nobody_took_for_long_is_let_go():
    pool = Pool()
    for size in (5, 6):
        pool.take((size,), np.float32)
    large = pool.nbytes()
    for _ in range(2 * pools._KEPT):
        pool.take((5,), np.float32)
    assert 0 < pool.nbytes() < large
    pool.clear()  # after many takes, too
    assert pool.nbytes() == 0
