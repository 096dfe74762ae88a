"""Products of matrices, each against NumPy's, to the bit: of small whole numbers no sum is rounded,
so a term that is dropped, or taken twice, shows whatever the size.
"""

import threading

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided
from sharing import shared_out

import tinyseq as ts
from tinyseq.kernels import gemm, load
from tinyseq.kernels.gemm import DEPTH, ROWS, width

DTYPES = [np.float32, np.float64]
W = width(np.float32)
#: Where a tile, a register, a panel or a block begins and ends, in either dtype, and one beside it
FEW = [1, 2, 3, 4, 5, W // 2, W - 1, W, W + 1]
EDGES = sorted({*FEW, ROWS - 1, ROWS, ROWS + 1, 2 * ROWS + 1, W // 4, W // 2 + 1, 2 * W, 2 * W + 1})
DEEP = [DEPTH - 1, DEPTH, DEPTH + 1, 2 * DEPTH, 2 * DEPTH + 3]
sizes = st.one_of(st.sampled_from(EDGES), st.integers(1, 70))
inner = st.one_of(sizes, st.sampled_from(DEEP))
seeds = st.integers(0, 2**16)


def whole_numbers(shape, dtype, seed):
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(dtype)


#: The same numbers, in other places of memory
LAYOUTS = {
    "rows": np.ascontiguousarray,
    "columns": np.asfortranarray,
    "every other row": lambda x: np.repeat(x, 2, axis=0)[::2],
    "every other column": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "some columns": lambda x: np.pad(x, ((0, 0), (3, 2)))[:, 3:-2],
    "some rows of columns": lambda x: np.pad(x.T, ((0, 0), (3, 2)))[:, 3:-2].T,
    "every other column of columns": lambda x: np.repeat(x.T, 2, axis=1)[:, ::2].T,
    "rows backwards": lambda x: x[::-1].copy()[::-1],
    "columns backwards": lambda x: x[:, ::-1].copy()[:, ::-1],
    "a transpose backwards": lambda x: x.T[::-1].copy()[::-1].T,
    "one row": lambda x: as_strided(x, strides=(0, x.itemsize)),
    "one column": lambda x: as_strided(x, strides=(x.strides[0], 0)),
}
layouts = st.sampled_from(sorted(LAYOUTS))
#: The dtype, and the layouts of both factors. For each kind of them numba compiles a product of its
#: own, which takes a second: not every kind is among them
kinds = st.one_of(
    layouts.map(lambda one: (np.float32, one, "rows")),
    layouts.map(lambda one: (np.float32, "rows", one)),
    layouts.map(lambda one: (np.float32, one, one)),
    st.sampled_from(["rows", "columns"]).map(lambda one: (np.float64, one, "rows")),
)


@pytest.fixture(params=[1, 2, 3], scope="module")
def some_threads(request):
    """All work shared out, however small it is."""
    with pytest.MonkeyPatch.context() as patch, shared_out(gemm, request.param) as n:
        patch.setattr(gemm, "_WORTH_SHARING", 0.0)
        yield n


# -- products -------------------------------------------------------------------------------------


@given(sizes, inner, sizes, kinds, seeds)
@example(5, 2 * DEPTH + 3, 5, (np.float32, "rows", "rows"), 0)
@example(40, 2 * DEPTH + 3, 33, (np.float32, "columns", "rows"), 0)
@example(33, DEPTH + 1, 40, (np.float64, "columns", "rows"), 0)
@example(40, DEPTH + 1, 20, (np.float32, "every other column of columns", "rows"), 0)
@example(40, DEPTH + 1, 20, (np.float32, "columns", "every other column"), 0)
@example(40, DEPTH + 1, 20, (np.float32, "rows backwards", "rows"), 0)
def test_product_is_numpys(some_threads, M, K, N, kind, seed):
    dtype, left, right = kind
    a = LAYOUTS[left](whole_numbers((M, K), dtype, seed))
    b = LAYOUTS[right](whole_numbers((K, N), dtype, seed + 1))
    kept = a.copy(), b.copy()
    made, out = gemm.product(a, b), np.full((M, N), np.nan, dtype)
    assert gemm.product(a, b, out) is out
    np.testing.assert_array_equal(made, a @ b)
    np.testing.assert_array_equal(out, made)
    np.testing.assert_array_equal(a, kept[0])
    np.testing.assert_array_equal(b, kept[1])
    assert made.dtype == dtype


@given(sizes, inner, sizes, st.sampled_from(["rows", "columns"]), seeds)
def test_a_product_into_some_columns_leaves_the_others(some_threads, M, K, N, layout, seed):
    a = LAYOUTS[layout](whole_numbers((M, K), np.float32, seed))
    b = whole_numbers((K, N), np.float32, seed + 1)
    around = np.full((M + 1, N + 2), 99, np.float32)
    gemm.product(a, b, around[:M, 1:-1])
    np.testing.assert_array_equal(around[:M, 1:-1], a @ b)
    around[:M, 1:-1] = 99
    assert (around == 99).all()


@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 0, 0)])
def test_a_product_of_nothing_is_zeros(shape, some_threads):
    M, K, N = shape
    a, b = np.ones((M, K), np.float32), np.ones((K, N), np.float32)
    out = np.full((M, N), 99, np.float32)
    assert gemm.product(a, b, out) is out
    for made in (out, gemm.product(a, b)):
        np.testing.assert_array_equal(made, np.zeros((M, N)))


def test_what_two_products_give_is_not_in_the_same_place(some_threads):
    """Panels are scratch memory that is used again, by a thread: results are not."""
    made, expected = [], []
    for n, (M, K, N) in enumerate(
        [(5, 40, 70), (90, 600, 3), (3, 600, 90), (1, 2, 3), (5, 40, 70)]
    ):
        for left in (np.ascontiguousarray, np.asfortranarray):
            for dtype in DTYPES:
                a, b = left(whole_numbers((M, K), dtype, n)), whole_numbers((K, N), dtype, n + 9)
                made.append(gemm.product(a, b))
                expected.append(a @ b)
    for x, y in zip(made, expected, strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_nan_or_an_infinity_stays_in_its_row_and_column(some_threads):
    """Also in blocks behind the first: nothing is multiplied by a zero that stands for nothing."""
    for K in (3, DEPTH + 5):
        for order in "CF":
            a, b = np.ones((20, K), np.float32, order), np.ones((K, 9), np.float32)
            a[3, K - 1], b[0, 4] = np.nan, np.inf
            made = gemm.product(a, b)
            assert np.isnan(made[3]).all()
            assert (made[[0, 19], 4] == np.inf).all()
            assert np.isfinite(np.delete(np.delete(made, 3, 0), 4, 1)).all()


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_matrices_of_tensors_too(layout, monkeypatch):
    """What the eager op hands to the kernels: transposes and slices of tensors are views."""
    monkeypatch.setattr(load, "kernels", None)
    monkeypatch.setattr(load, "_failed", False)
    load.load_kernels()
    x = ts.Tensor.wrap(LAYOUTS[layout](whole_numbers((40, 700), np.float32, 0)))
    w = ts.Tensor.wrap(LAYOUTS[layout](whole_numbers((700, 20), np.float32, 1)))
    x.requires_grad = w.requires_grad = True
    g = whole_numbers((40, 20), np.float32, 2)
    found = ts.grad(x @ w, [x, w], g)
    np.testing.assert_array_equal((x @ w).numpy(), x.numpy() @ w.numpy())
    np.testing.assert_array_equal(found[0].numpy(), g @ w.numpy().T)
    np.testing.assert_array_equal(found[1].numpy(), x.numpy().T @ g)


# -- the parts that compiled loops call -----------------------------------------------------------


@given(sizes, sizes, st.sampled_from(DTYPES), layouts, seeds)
def test_panels_are_the_columns_and_zeros(some_threads, K, N, dtype, layout, seed):
    w = LAYOUTS[layout](whole_numbers((K, N), dtype, seed))
    shape = gemm.panels_shape(K, N, dtype)
    assert (shape[1], shape[2]) == (K, width(dtype))
    assert (shape[0] - 1) * shape[2] < N <= shape[0] * shape[2]
    for pack in (gemm.pack, gemm.pack_shared):
        panels = np.full(shape, np.nan, dtype)
        pack(w, panels)
        columns = panels.transpose(1, 0, 2).reshape(K, -1)
        np.testing.assert_array_equal(columns[:, :N], w)
        np.testing.assert_array_equal(columns[:, N:], 0)


def packed(w):
    gemm.ready(w.dtype)
    panels = np.empty(gemm.panels_shape(*w.shape, w.dtype), w.dtype)
    gemm.pack(w, panels)
    return panels


@given(sizes, inner, sizes, st.sampled_from(DTYPES), layouts, seeds)
def test_matmul_takes_panels_that_are_used_again(M, K, N, dtype, layout, seed):
    w = whole_numbers((K, N), dtype, seed)
    panels = packed(w)
    around = np.full((M + 1, N + 2), 99, dtype)
    for more in (1, 2):
        a = LAYOUTS[layout](whole_numbers((M, K), dtype, seed + more))
        gemm.matmul(a, panels, around[:M, 1:-1])
        np.testing.assert_array_equal(around[:M, 1:-1], a @ w)
    gemm.pack(w * 2, panels)  # the weight has changed
    gemm.matmul(a, panels, around[:M, 1:-1])
    np.testing.assert_array_equal(around[:M, 1:-1], a @ w * 2)
    around[:M, 1:-1] = 99
    assert (around == 99).all()


@given(
    st.integers(0, 4), st.integers(0, 30), inner, sizes, st.sampled_from(DTYPES),
    st.booleans(), st.booleans(), st.booleans(), seeds,
)  # fmt: skip
@example(3, 2, 4, 5, np.float32, True, False, False, 0)
@example(3, 2, 4, 5, np.float32, False, True, False, 0)
@example(3, 2, DEPTH + 1, 5, np.float64, True, True, True, 0)
def test_matmuls_are_products_of_all_steps(T, M, K, N, dtype, rows_of, rows_into, cols_of, seed):
    """Of steps that lie in some rows of a larger array, on either side, as those of a thread do."""
    w = whole_numbers((K, N), dtype, seed)
    a = whole_numbers((T, M + 3, K + 2), dtype, seed + 1)
    a = a[:, 1 : M + 1] if rows_of else a[:, :M].copy()
    a = a[:, :, 1 : K + 1] if cols_of else a[:, :, :K].copy()
    around = np.full((T, M + 3, N), 99, dtype)
    out = around[:, 1 : M + 1] if rows_into else around[:, :M].copy()
    gemm.matmuls(a, packed(w), out)
    np.testing.assert_array_equal(out, a @ w)
    out[...] = 99
    assert (around == 99).all()


@given(
    st.integers(0, 3), st.integers(0, 20), sizes, sizes, st.sampled_from(DTYPES),
    st.booleans(), st.booleans(), seeds,
)  # fmt: skip
@example(2, 300, 40, 20, np.float32, False, False, 0)
@example(2, 9, 2 * ROWS, 2 * W + 1, np.float32, True, True, 0)
@example(2, 9, 2 * ROWS + 1, W + W // 2, np.float64, False, True, 0)
def test_sums_of_outer_products(T, R, M, N, dtype, of_rows, add, seed):
    """Σ aᵀ g written over what is there, or added to it; of some rows of larger arrays, or all."""
    gemm.ready(dtype)
    a, g = (
        whole_numbers((T, R + 2, n + 1), dtype, seed + i)[:, 1 : R + 1, :n]
        for i, n in enumerate((M, N))
    )
    if not of_rows:
        a, g = a.copy(), g.copy()
    rows = T * R
    panels = np.full(int(np.prod(gemm.panels_shape(rows, N, dtype))), np.nan, dtype)
    gemm.in_panels(g, panels)
    tiles = np.full(gemm.tiles_size(rows, M), np.nan, dtype)
    around = np.full((M, N + 2), 7, dtype)
    gemm.outers(a, panels, around[:, 1:-1], tiles, add)
    expected = np.einsum("trm,trn->mn", a, g) + (7 if add else 0)
    np.testing.assert_array_equal(around[:, 1:-1], expected)
    assert (around[:, [0, -1]] == 7).all()


@given(st.integers(0, 200), st.sampled_from(DTYPES), seeds)
def test_sums_of_two_arrays(some_threads, n, dtype, seed):
    a, b = (whole_numbers((n, 3), dtype, seed + i) for i in range(2))
    out = np.full((n, 3), 99, dtype)
    gemm.add_shared(a, b, out)
    np.testing.assert_array_equal(out, a + b)
    gemm.add_shared(out, b, out)  # in place
    np.testing.assert_array_equal(out, a + b + b)


# -- who may call when ----------------------------------------------------------------------------


def test_two_threads_multiply_at_once(some_threads):
    """Each has scratch memory of its own."""
    pairs = [
        (whole_numbers((60, 80 + n), np.float32, n), whole_numbers((80 + n, 50), np.float32, n + 9))
        for n in range(4)
    ]
    wrong, start = [], threading.Barrier(len(pairs))

    def work(a, b):
        start.wait()
        for _ in range(200):
            wrong.extend(
                x for x in (a, np.asfortranarray(a)) if (gemm.product(x, b) != a @ b).any()
            )

    workers = [threading.Thread(target=work, args=pair) for pair in pairs]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
