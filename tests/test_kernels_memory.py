"""Memory for the kernels."""

import numpy as np
import pytest

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
