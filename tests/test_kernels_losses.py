"""The softmax loss and its slope, for drawn sizes, threads and logits, are their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sharing import shared_out

from tinyseq.kernels import losses, threads

DTYPES = [np.float32, np.float64]
WITHIN = {np.float32: 1e-5, np.float64: 1e-13}
R, MANY = losses._ROWS, losses._MANY
#: Around the ends of a block of rows, and of a register
rows = st.one_of(st.sampled_from([0, 1, R - 1, R, R + 1, 2 * R, 2 * R + 1]), st.integers(0, 50))
classes = st.one_of(st.sampled_from([1, 2, 15, 16, 17, 33]), st.integers(1, 70))
#: How far apart logits lie, and around what: beyond what eˣ can hold on either side
scales = st.sampled_from([(1, 0), (5, 0), (100, 0), (3e4, 0), (1, 1e4), (1, -1e4), (0, 7)])


@pytest.fixture(params=[1, 2, 3], scope="module")
def some_threads(request):
    with shared_out(losses, request.param) as n:
        yield n


def definitions(g, x, targets):
    """(losses, slopes), in the widest floats there are."""
    x, g = x.astype(np.longdouble), g.astype(np.longdouble)
    x = x - x.max(axis=1, keepdims=True)
    e = np.exp(x)
    total = e.sum(axis=1)
    hot = np.arange(x.shape[1]) == targets[:, None]
    return np.log(total) - x[hot], g[:, None] * (e / total[:, None] - hot)


@given(rows, classes, st.sampled_from(DTYPES), scales, st.integers(0, 2**16))
def test_they_are_their_definitions(some_threads, N, V, dtype, scale, seed):
    rng = np.random.default_rng(seed)
    x = (scale[0] * rng.standard_normal((N, V)) + scale[1]).astype(dtype)
    g, targets = rng.standard_normal(N).astype(dtype), rng.integers(0, V, N)
    kept = x.copy()
    few = WITHIN[dtype]
    if N:
        loss, slope = definitions(g, x, targets)
    else:
        loss, slope = np.zeros(0), np.zeros((0, V))
    found = losses.softmax_loss(x, targets)
    np.testing.assert_allclose(found, loss, rtol=few, atol=few)
    out = np.full((N, V), np.nan, dtype)
    assert losses.softmax_loss_slope(g, x, targets, out) is out
    fresh = losses.softmax_loss_slope(g, x, targets)
    np.testing.assert_allclose(out, slope, rtol=few, atol=few)
    np.testing.assert_array_equal(fresh, out)
    np.testing.assert_array_equal(x, kept)
    assert found.dtype == out.dtype == fresh.dtype == dtype


def test_the_largest_is_found_wherever_it_is(some_threads):
    """Else the exponentials of what is far above it would be infinite."""
    for V in (1, 2, 17):
        x = np.zeros((V, V), np.float32) + 1e4 * np.eye(V, dtype=np.float32)
        targets = np.arange(V)
        np.testing.assert_array_equal(losses.softmax_loss(x, targets), np.zeros(V))
        np.testing.assert_array_equal(
            losses.softmax_loss_slope(np.ones(V, np.float32), x, targets), np.zeros((V, V))
        )


@pytest.mark.parametrize("rows", [MANY // 64 - 1, MANY // 64, MANY // 4])
def test_shared_out_or_not_it_is_the_same(rows, monkeypatch):
    """From so many logits on; each thread has scratch memory of its own."""
    monkeypatch.setattr(losses, "_MANY", MANY)
    x = np.random.default_rng(0).standard_normal((rows, 64)).astype(np.float32)
    targets = np.arange(rows) % 64
    g = np.linspace(1, 2, rows, dtype=np.float32)
    expected = definitions(g, x, targets)
    before, found = threads.get_num_threads(), []
    try:
        for n in (1, 2, 3, 2, 3):
            threads.set_num_threads(n)
            loss, slope = losses.softmax_loss(x, targets), losses.softmax_loss_slope(g, x, targets)
            found.append((loss, slope))
    finally:
        threads.set_num_threads(before)
    for made, right in zip(found[0], expected, strict=True):
        np.testing.assert_allclose(made, right, rtol=1e-5, atol=1e-6)
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
