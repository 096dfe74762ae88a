"""Compiled losses and updates against NumPy's, called directly and by what the library does."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sharing import shared_out

import tinyseq as ts
from tinyseq import changes, nn, optim
from tinyseq import functional as F
from tinyseq import primitives as raw
from tinyseq.errors import GraphError, ShapeError
from tinyseq.kernels import load, losses, threads, updates

DTYPES = [np.float32, np.float64]
WITHIN = {np.float32: 1e-6, np.float64: 1e-14}
seeds = st.integers(0, 2**16)


@pytest.fixture(scope="module", autouse=True)
def _awake():
    before = load.kernels
    load.load_kernels()
    yield
    load.kernels = before


@pytest.fixture
def asleep(monkeypatch):
    """Calls a function without kernels."""

    def call(fn, *args):
        with monkeypatch.context() as m:
            m.setattr(load, "kernels", None)
            return fn(*args)

    return call


@pytest.fixture(params=["one thread", "two threads"])
def shared(request, monkeypatch):
    """With every piece of work large enough to be shared out."""
    if request.param == "two threads":
        monkeypatch.setattr(losses, "_MANY", 1)
        monkeypatch.setattr(updates, "_MANY", 1)
        before = threads.get_num_threads()
        threads.set_num_threads(2)
        yield
        threads.set_num_threads(before)
    else:
        yield


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


# -- the kernels by themselves --------------------------------------------------------------------

sizes = st.one_of(st.sampled_from([0, 1, 2, 15, 16, 17, 63, 64, 65]), st.integers(0, 200))
rates = st.floats(0.001, 0.5)
RULES = {
    "momentum": (
        updates.momentum,
        lambda p, g, v, lr, m: (p - lr * (m * v + g), m * v + g),
        (False,),
    ),
    "nesterov": (
        updates.momentum,
        lambda p, g, v, lr, m: (p - lr * (g + m * (m * v + g)), m * v + g),
        (True,),
    ),
    "rmsprop": (
        updates.rmsprop,
        lambda p, g, s, lr, a: (
            p - lr * g / (np.sqrt(a * s + (1 - a) * g * g) + 0.01),
            a * s + (1 - a) * g * g,
        ),
        (0.01,),
    ),
    "adagrad": (
        lambda p, g, s, lr, _, eps: updates.adagrad(p, g, s, lr, eps),
        lambda p, g, s, lr, _: (p - lr * g / (np.sqrt(s + g * g) + 0.01), s + g * g),
        (0.01,),
    ),
}


@pytest.fixture(params=[1, 2, 3], scope="module")
def team(request):
    """So many threads, and all work shared out."""
    with shared_out(updates, request.param) as n:
        yield n


def drawn(seed, n, dtype, count):
    """Arrays of n numbers away from 0, the last of them (a mean square, say) positive."""
    rng = np.random.default_rng(seed)
    signs = rng.choice([-1, 1], (count - 1, n))
    return [
        *(signs * rng.uniform(0.5, 2, (count - 1, n))).astype(dtype),
        rng.uniform(0.5, 2, n).astype(dtype),
    ]


@given(
    st.sampled_from(sorted(RULES)),
    sizes,
    st.sampled_from(DTYPES),
    rates,
    st.floats(0.1, 0.99),
    seeds,
)
def test_an_update_is_its_equation(team, name, n, dtype, lr, factor, seed):
    kernel, equation, more = RULES[name]
    p, g, buffer = drawn(seed, n, dtype, 3)
    expected = equation(*(a.astype(np.longdouble) for a in (p, g, buffer)), lr, factor)
    kept = g.copy()
    kernel(p, g, buffer, lr, factor, *more)
    for made, right in zip((p, buffer), expected, strict=True):
        np.testing.assert_allclose(made, right, rtol=WITHIN[dtype], atol=2 * WITHIN[dtype])
    np.testing.assert_array_equal(g, kept)


def numbers(t, lr, betas, eps, decay, ahead):
    steady, rate = 1 / np.sqrt(1 - betas[1] ** t), lr / (1 - betas[0] ** t)
    return 1 - lr * decay, *betas, eps, steady, rate, ahead


def adam(p, g, mean, square, t, lr, betas, eps, decay, ahead):
    """As in the paper, with the decay of AdamW and the look ahead of NAdam."""
    p, g, mean, square = (a.astype(np.longdouble) for a in (p, g, mean, square))
    mean = betas[0] * mean + (1 - betas[0]) * g
    square = betas[1] * square + (1 - betas[1]) * g * g
    m, s = mean / (1 - betas[0] ** t), square / (1 - betas[1] ** t)
    return p - lr * decay * p - (lr * m + ahead * g) / (np.sqrt(s) + eps), mean, square


betas = st.tuples(st.floats(0, 0.99), st.floats(0, 0.999))


@given(
    st.lists(sizes, min_size=1, max_size=4), st.sampled_from(DTYPES), st.integers(1, 1000), rates,
    betas, st.sampled_from([1e-8, 0.1]), st.sampled_from([0.0, 0.1]),
    st.sampled_from([0.0, 0.01]), seeds,
)  # fmt: skip
def test_adam_of_one_and_of_all(team, lengths, dtype, t, lr, betas, eps, decay, ahead, seed):
    """Also where a thread's share begins in the middle of a parameter and ends in another."""
    given = [drawn(seed + i, n, dtype, 4) for i, n in enumerate(lengths)]
    expected = [adam(*arrays, t, lr, betas, eps, decay, ahead) for arrays in given]
    options = numbers(t, lr, betas, eps, decay, ahead)
    alone = [[a.copy() for a in arrays] for arrays in given]
    for arrays in alone:
        updates.adam(*arrays, options)
    table = updates.Table(*(list(column) for column in zip(*given, strict=True)))
    squares = [
        float((column.astype(np.longdouble) ** 2).sum())
        for column in map(np.concatenate, table.held)
    ]
    for column, right in enumerate(squares):
        assert updates.sum_of_all_squares(table, column) == pytest.approx(right, rel=1e-12)
    updates.adam_of_all(table, options)
    few = 4 * WITHIN[dtype]  # β² is rounded, and 1 − βᵗ makes more of that
    for made, one, before, right in zip(
        given, alone, [g[1].copy() for g in given], expected, strict=True
    ):
        for k, r in ((0, right[0]), (2, right[1]), (3, right[2])):
            np.testing.assert_allclose(made[k], r, rtol=few, atol=few)
            np.testing.assert_array_equal(made[k], one[k])
        np.testing.assert_array_equal(made[1], before)


@given(sizes, st.integers(1, 40), st.sampled_from(DTYPES), seeds)
def test_rows_are_added_up_and_spread(n, D, dtype, seed):
    """Small whole numbers: to the bit."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-3, 4, (n, D)).astype(dtype)
    row = rng.integers(-3, 4, D).astype(dtype)
    out = np.full((n, D), np.nan, dtype)
    updates.add_to_rows(x, row, out)
    np.testing.assert_array_equal(out, x + row)
    total = np.full(D, np.nan, dtype)
    updates.sum_of_rows(x, total)
    np.testing.assert_array_equal(total, x.sum(axis=0))
    rows = rng.integers(-5, 5, n)
    added = rng.integers(-3, 4, (5, D)).astype(dtype)
    expected = added.copy()
    np.add.at(expected, rows, x)
    updates.add_rows(added, rows, x)
    np.testing.assert_array_equal(added, expected)
    assert updates.sum_of_squares(x) == (x * x).sum()


# -- the softmax loss -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("N", [0, 1, 2, 16, 17, 40])
@pytest.mark.parametrize("V", [1, 2, 65, 128])
def test_softmax_loss_and_slope_are_their_definitions(N, V, dtype, shared):
    rng = np.random.default_rng(N + V)
    x = (5 * rng.standard_normal((N, V))).astype(dtype)
    g = rng.standard_normal(N).astype(dtype)
    classes = rng.integers(0, V, N)
    p = softmax(x.astype(np.longdouble)) if N else x
    loss = losses.softmax_loss(x, classes)
    slope = losses.softmax_loss_slope(g, x, classes)
    assert (loss.dtype, slope.dtype) == (dtype, dtype)
    few = 10 * WITHIN[dtype]
    np.testing.assert_allclose(loss, -np.log(p[np.arange(N), classes]), rtol=few, atol=few)
    np.testing.assert_allclose(slope, g[:, None] * (p - np.eye(V)[classes]), rtol=few, atol=few)


def test_rows_that_are_far_out_ruled_out_or_nan_stay_by_themselves():
    far, out = 1e4, -np.inf
    x = np.array([[far, -far, 0], [0, out, 0], [np.nan, 0, 0], [0, np.nan, 0], [0, 0, 0]], "f")
    classes = np.array([1, 0, 1, 1, 2])
    loss = losses.softmax_loss(x, classes)
    np.testing.assert_allclose(loss, [2e4, np.log(2), np.nan, np.nan, np.log(3)], rtol=1e-6)
    slope = losses.softmax_loss_slope(np.ones(5, "f"), x, classes)
    np.testing.assert_array_equal(slope[:2], [[1, -1, 0], [-0.5, 0, 0.5]])
    assert np.isnan(slope[2:4]).all()
    np.testing.assert_allclose(slope[4], [1 / 3, 1 / 3, -2 / 3], rtol=1e-6)
    assert losses.softmax_loss(np.array([[0, -np.inf]], "f"), np.array([1])).tolist() == [np.inf]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("options", [{}, {"ignore_index": 2}, {"weight": [1, 2, 0.5, 1]}])
def test_cross_entropy_is_the_same_awake_and_asleep(dtype, reduction, options, asleep):
    rng = np.random.default_rng(0)
    logits = ts.tensor(rng.standard_normal((5, 3, 4)).astype(dtype), requires_grad=True)
    targets = rng.integers(0, 4, (5, 3))

    def both():
        loss = F.cross_entropy(logits, targets, reduction, **options)
        return loss.numpy(), ts.grad(loss.sum(), logits).numpy()

    for ours, theirs in zip(both(), asleep(both), strict=True):
        assert ours.dtype == theirs.dtype == dtype
        np.testing.assert_allclose(ours, theirs, rtol=10 * WITHIN[dtype], atol=WITHIN[dtype])


@given(seed=seeds, V=st.integers(1, 4), reduction=st.sampled_from(["mean", "sum", "none"]))
def test_gradients_of_order_2_are_those_of_finite_differences(seed, V, reduction):
    rng = np.random.default_rng(seed)
    logits = ts.tensor(rng.standard_normal((2, 2, V)), requires_grad=True)
    targets = rng.integers(0, V, (2, 2))

    def squared(x):
        loss = F.cross_entropy(x, targets, reduction)
        return loss * loss

    assert ts.gradcheck(squared, [logits])
    assert ts.gradcheck(squared, [logits], order=2)


def test_logits_of_any_strides():
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    turned = ts.tensor(x, requires_grad=True).transpose()
    straight = ts.tensor(np.ascontiguousarray(x.T), requires_grad=True)
    both = [F.cross_entropy(t, [0, 1, 2]) for t in (turned, straight)]
    assert both[0].item() == pytest.approx(both[1].item(), rel=1e-6)
    g = [ts.grad(loss, t).numpy() for loss, t in zip(both, (turned, straight), strict=True)]
    np.testing.assert_allclose(*g, rtol=1e-6)


def test_targets_that_are_written_to_afterwards_were_copied():
    logits = ts.tensor([[1.0, 0.0]], requires_grad=True)
    for targets in (np.array([0]), ts.tensor([0])):
        loss = F.cross_entropy(logits, targets)
        (targets.data if isinstance(targets, ts.Tensor) else targets)[...] = 1
        assert ts.grad(loss, logits).numpy()[0, 0] < 0


def test_a_class_that_does_not_exist_is_refused():
    logits = ts.tensor(np.zeros((2, 3), np.float32))
    for wrong in (-1, 3, 2**40):
        with pytest.raises(IndexError, match=rf"index {wrong} is outside of 0 … 2"):
            F.cross_entropy(logits, [0, wrong])
        with pytest.raises(IndexError, match=rf"index {wrong} is outside of 0 … 2"):
            F.cross_entropy(logits, np.array([0, wrong]), ignore_index=0)
    with pytest.raises(IndexError, match="index 200 is outside of 0 … 2"):
        F.cross_entropy(logits, np.array([0, 200], np.uint8))


def test_no_targets_and_no_classes():
    nothing = ts.tensor(np.zeros((0, 3), np.float32), requires_grad=True)
    assert F.cross_entropy(nothing, np.zeros(0, int), "sum").item() == 0
    assert F.cross_entropy(nothing, np.zeros(0, int), "none").shape == (0,)
    for loss, N in [(F.cross_entropy, 0), (F.cross_entropy, 1), (F.nll_loss, 1)]:
        with pytest.raises(ShapeError, match="have no classes"):
            loss(ts.tensor(np.zeros((N, 0), np.float32)), np.zeros(N, int))


def test_logits_that_were_changed_in_place_are_noticed():
    x = ts.tensor(np.zeros((2, 3), np.float32), requires_grad=True)
    loss = F.cross_entropy(x, [0, 1])
    x.data[0, 0] = 1
    with pytest.raises(GraphError, match="changed in place"):
        loss.backward()


def test_a_nan_is_found_where_it_was_made():
    x = ts.tensor(np.full((1, 2), np.inf, np.float32), requires_grad=True)
    came_in = r"reads what is not finite: its input 0 holds inf, first at \[0, 0\] of \(1, 2\)"
    with ts.detect_anomaly(), pytest.raises(ts.errors.AnomalyError, match=came_in):
        F.cross_entropy(x, [0])
    huge = ts.tensor(np.full((1, 2), 3e38, np.float32), requires_grad=True)
    with ts.detect_anomaly(), pytest.raises(ts.errors.AnomalyError, match="grad"):
        (F.cross_entropy(huge, [0]) * 1e38 * 1e38).backward()


# -- optimisers -----------------------------------------------------------------------------------

OPTIMISERS = {
    "momentum": lambda ps: optim.SGD(ps, lr=0.01, momentum=0.9),
    "nesterov": lambda ps: optim.SGD(ps, lr=0.01, momentum=0.9, nesterov=True),
    "rmsprop": lambda ps: optim.RMSprop(ps, lr=0.01),
    "centred rmsprop": lambda ps: optim.RMSprop(ps, lr=0.01, centered=True),
    "adagrad": lambda ps: optim.Adagrad(ps, lr=0.1),
    "adam": lambda ps: optim.Adam(ps, lr=0.01),
    "adam with decay": lambda ps: optim.Adam(ps, lr=0.01, weight_decay=0.1),
    "adamw": lambda ps: optim.AdamW(ps, lr=0.01, weight_decay=0.1),
    "amsgrad": lambda ps: optim.Adam(ps, lr=0.01, amsgrad=True),
    "nadam": lambda ps: optim.NAdam(ps, lr=0.01),
}


def trained(make, p, gradients):
    """A parameter after some updates, and the optimiser's buffers."""
    p = nn.Parameter(p)
    optimizer = make([p])
    for g in gradients:
        p.grad = ts.tensor(g)
        optimizer.step()
    return [p.numpy(), *[a[0] for a in optimizer.buffers.values()]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (0,), (7, 33), (3, 5, 100)])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_optimisers_are_the_same_awake_and_asleep(name, shape, dtype, shared, asleep):
    rng = np.random.default_rng(0)
    # away from 0, where a sum of terms that cancel has no relative accuracy to speak of
    p = np.asarray(rng.uniform(2, 3, shape), dtype)
    gradients = [np.asarray(rng.uniform(0.1, 3, shape), dtype) for _ in range(5)]
    ours = trained(OPTIMISERS[name], p, gradients)
    theirs = asleep(trained, OPTIMISERS[name], p, gradients)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype == dtype
        # five updates, each within the bound
        np.testing.assert_allclose(a, b, rtol=5 * WITHIN[dtype])


def test_a_nan_or_an_infinity_stays_where_it_is():
    p, g = np.ones(40, np.float32), np.ones(40, np.float32)
    g[3], g[20] = np.nan, np.inf
    for make in OPTIMISERS.values():
        with np.errstate(all="ignore"):
            out = trained(make, p, [g])[0]
        assert np.isfinite(np.delete(out, [3, 20])).all()
        assert not np.isfinite(out[3])


def test_an_update_is_a_change_of_the_parameter():
    p = nn.Parameter([1.0, 2.0])
    loss = (p * p).sum()
    p.grad = ts.tensor([1.0, 1.0])
    optim.Adam([p]).step()
    with pytest.raises(GraphError, match="changed in place"):
        loss.backward()


@pytest.mark.parametrize("name", OPTIMISERS)
def test_what_no_kernel_takes_goes_the_long_way(name, asleep):
    """Strides, another dtype of the gradient, one that is broadcast."""
    rng = np.random.default_rng(0)
    start = rng.uniform(2, 3, (4, 3)).astype(np.float32)
    g = rng.uniform(0.1, 1, (4, 3))

    def run(strided, gradient):
        p = nn.Parameter(start)
        optimizer = OPTIMISERS[name]([p])
        if strided:
            p.replace(np.asfortranarray(start))
        p.grad = ts.Tensor.wrap(gradient)
        optimizer.step()
        return p.numpy()

    for strided, gradient in [
        (True, g.astype(np.float32)),
        (False, g),
        (False, g.astype(np.float32)[::-1]),
        (False, np.broadcast_to(g[0].astype(np.float32), g.shape)),
    ]:
        np.testing.assert_array_equal(run(strided, gradient), asleep(run, strided, gradient))


def test_a_parameter_that_cannot_be_written_to_raises_and_stays():
    p = nn.Parameter([1.0, 2.0])
    optimizer = optim.Adam([p])
    p._data.flags.writeable = False
    p.grad = ts.tensor([1.0, 1.0])
    with pytest.raises(ValueError, match="read-only"):
        optimizer.step()
    assert p.tolist() == [1.0, 2.0]


# -- clipping -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_norm_is_added_up_in_float64(dtype):
    g = np.full(10**6, 0.1, dtype)
    g[0] = 1e4
    exact = np.sqrt(1e8 + (10**6 - 1) * float(dtype(0.1)) ** 2)
    assert np.sqrt(updates.sum_of_squares(g)) == pytest.approx(exact, rel=1e-11)


def test_clipping_is_the_same_awake_and_asleep(asleep):
    rng = np.random.default_rng(0)
    gradients = [
        rng.standard_normal((7, 9)).astype(np.float32),
        rng.standard_normal((3, 4)).astype(np.float32).T,
        rng.standard_normal(5),
        np.asarray(2.0),
    ]

    def clipped():
        params = [nn.Parameter(np.zeros(g.shape, g.dtype)) for g in gradients]
        for p, g in zip(params, gradients, strict=True):
            p.grad = ts.Tensor.wrap(g.copy())
        before = changes.clock
        norm = optim.clip_grad_norm(params, 5.0)
        noticed = [changes.changed(p.grad._data, before) for p in params]
        return norm, [p.grad.numpy() for p in params], noticed

    ours, theirs = clipped(), asleep(clipped)
    assert ours[0] == pytest.approx(theirs[0], rel=1e-6)
    for a, b in zip(ours[1], theirs[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    assert ours[2] == theirs[2] == [True] * 4
    assert sum((g**2).sum() for g in ours[1]) == pytest.approx(25, rel=1e-6)


def test_squares_that_overflow_are_no_infinite_norm():
    p = nn.Parameter(np.zeros(4, np.float32))
    p.grad = ts.tensor(np.full(4, 1e30, np.float32))
    assert optim.clip_grad_norm([p], 1.0) == pytest.approx(2e30)
    np.testing.assert_allclose(p.grad.numpy(), 0.5, rtol=1e-6)


def test_a_norm_that_is_nan_is_refused():
    p = nn.Parameter([1.0, 2.0])
    p.grad = ts.tensor([1.0, np.nan])
    with pytest.raises(ValueError, match="the norm of the gradients is nan"):
        optim.clip_grad_norm([p], 1.0)


# -- embeddings -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (40,), (8, 9)])
@pytest.mark.parametrize("D", [1, 33])
def test_rows_are_added_where_they_were_read(shape, D, dtype):
    rng = np.random.default_rng(0)
    rows = rng.integers(-6, 6, shape)
    weight = ts.tensor(rng.standard_normal((6, D)).astype(dtype), requires_grad=True)
    y = weight[rows]
    g = rng.standard_normal(y.shape).astype(dtype)
    expected = np.zeros((6, D))
    np.add.at(expected, rows, g)
    got = ts.grad(y, weight, g)
    assert got.dtype == dtype
    np.testing.assert_allclose(got.numpy(), expected, rtol=10 * WITHIN[dtype], atol=1e-6)


def test_rows_of_more_and_of_fewer_axes_and_of_any_strides():
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 4, 30)
    for shape in [(4,), (4, 3), (4, 3, 2)]:
        x = rng.standard_normal((*shape[1:], 30)[::-1] if len(shape) < 3 else (30, 3, 2))
        x = np.asarray(x, np.float32)
        expected = np.zeros(shape)
        np.add.at(expected, rows, x)
        for layout in (np.ascontiguousarray, np.asfortranarray):
            out = raw.scatter_add(
                ts.tensor(layout(x)), ts.tensor(rows), indices=[raw.ARRAY], shape=shape
            )
            np.testing.assert_allclose(out.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_an_embedding_trains_awake_as_asleep(asleep):
    indices = np.random.default_rng(0).integers(0, 9, (20, 3))

    def gradient():
        ts.seed(0)
        layer = nn.Embedding(9, 5)
        (layer(indices) ** 2.0).sum().backward()
        return layer.weight.grad.numpy()

    np.testing.assert_allclose(gradient(), asleep(gradient), rtol=1e-5)


# -- without the compiler -------------------------------------------------------------------------

PLAIN = """
import numpy as np
from tinyseq.kernels import losses, updates
x, classes = np.array([[1, 2, 4], [0, -np.inf, 0]], np.float32), np.array([2, 0])
print(*losses.softmax_loss(x, classes).round(4))
print(*losses.softmax_loss_slope(np.ones(2, np.float32), x, classes).ravel().round(4))
p, m, s = np.ones(3), np.zeros(3), np.zeros(3)
updates.adam(p, 2 * np.ones(3), m, s, (1.0, 0.9, 0.999, 1e-8, 1 / np.sqrt(0.001), 1.0, 0.0))
print(*p.round(4), *m.round(4), updates.sum_of_squares(p).__round__(4))
out = np.zeros((2, 2))
updates.add_rows(out, np.array([1, 1]), np.ones((2, 2)))
print(*out.ravel())
"""


def test_plain_python_computes_the_same():
    """Under NUMBA_DISABLE_JIT=1 a debugger can step through the kernels."""
    run = subprocess.run(
        [sys.executable, "-c", PLAIN],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split("\n")[:-1] == [
        "0.1698 0.6931",
        "0.042 0.1142 -0.1562 -0.5 0.0 0.5",
        "0.9 0.9 0.9 0.2 0.2 0.2 2.43",
        "0.0 0.0 2.0 2.0",
    ]
