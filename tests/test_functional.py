"""Softmax and the losses: values from their definitions, gradients from finite differences."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import values

import tinyseq as ts
from tinyseq import functional as F
from tinyseq.errors import DtypeError, GraphError, ShapeError

REDUCTIONS = {"mean": np.mean, "sum": np.sum, "none": lambda a: a}
reductions = st.sampled_from(list(REDUCTIONS))
seeds = st.integers(0, 999)


def checked(fn, *xs):
    """Gradients of order 1, and of order 2 of something that has one even where fn is linear."""
    assert ts.gradcheck(fn, xs)
    assert ts.gradcheck(lambda *xs: fn(*xs) * fn(*xs), xs, order=2)


def np_log_softmax(x):
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def probabilities(rng, *shape):
    return np.exp(np_log_softmax(rng.standard_normal(shape)))


@given(data=st.data(), n=st.integers(1, 4), V=st.integers(1, 4))
def test_softmax_and_its_gradients(data, n, V):
    x = ts.tensor(data.draw(values((n, V))), requires_grad=True)
    e = np.exp(x.numpy())
    for axis in (0, -1):
        expected = e / e.sum(axis=axis, keepdims=True)
        np.testing.assert_allclose(F.softmax(x, axis).numpy(), expected)
        np.testing.assert_allclose(F.log_softmax(x, axis).numpy(), np.log(expected), atol=1e-12)
    checked(F.softmax, x)
    checked(F.log_softmax, x)


@given(data=st.data())
def test_log_sigmoid_and_its_gradients(data):
    x = ts.tensor(data.draw(values((2, 3))), requires_grad=True)
    np.testing.assert_allclose(F.log_sigmoid(x).numpy(), -np.log(1 + np.exp(-x.numpy())))
    checked(F.log_sigmoid, x)


def test_one_hot():
    assert F.one_hot([[0, 2]], 3).tolist() == [[[1, 0, 0], [0, 0, 1]]]
    assert F.one_hot(ts.tensor([1]), 2, np.float64).dtype == np.float64


# -- cross-entropy --------------------------------------------------------------------------------


def np_cross_entropy(x, y, weight, ignore_index, smoothing):
    """From the definition, target by target; and what the mean divides by."""
    V = x.shape[-1]
    w = np.ones(V) if weight is None else weight
    losses, count = [], 0.0
    classes = y.dtype.kind == "i"
    for scores, target in zip(x.reshape(-1, V), y.reshape(-1, *([] if classes else [V])),
                              strict=True):  # fmt: skip
        if classes and target == ignore_index:
            losses.append(0.0)
            continue
        count += w[target] if classes else 1
        p = np.eye(V)[target] if classes else target
        p = (1 - smoothing) * p + smoothing / V
        losses.append(-(w * p * np_log_softmax(scores)).sum())
    return np.reshape(losses, x.shape[:-1]), count


@pytest.mark.parametrize("kind", ["classes", "probabilities"])
@given(
    shape=st.sampled_from([(), (3,), (2, 3)]),
    V=st.integers(1, 4),
    seed=seeds,
    reduction=reductions,
    weighted=st.booleans(),
    smoothing=st.sampled_from([0.0, 0.1, 1.0]),
    ignore=st.booleans(),
)
def test_cross_entropy(kind, shape, V, seed, reduction, weighted, smoothing, ignore):
    rng = np.random.default_rng(seed)
    logits = ts.tensor(rng.standard_normal((*shape, V)), requires_grad=True)
    options = {"label_smoothing": smoothing, "reduction": reduction}
    if weighted:
        options["weight"] = rng.uniform(0.2, 2, V)
    if kind == "classes":
        targets = rng.integers(0, V, shape)
        if ignore and targets.size > 1:
            options["ignore_index"] = -1
            targets[..., 0] = -1
        xs, fn = [logits], lambda x: F.cross_entropy(x, targets, **options)
    else:
        targets = probabilities(rng, *shape, V)
        xs = [logits, ts.tensor(targets, requires_grad=True)]
        fn = lambda x, p: F.cross_entropy(x, p, **options)  # noqa: E731
    each, count = np_cross_entropy(
        logits.numpy(), targets, options.get("weight"), options.get("ignore_index"), smoothing
    )
    expected = {"mean": each.sum() / count, "sum": each.sum(), "none": each}[reduction]
    np.testing.assert_allclose(fn(*xs).numpy(), expected, rtol=1e-10, atol=1e-12)
    checked(fn, *xs)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cross_entropy_far_out(dtype):
    logits = ts.tensor(np.array([[1e4, -1e4], [1e4, -1e4]], dtype), requires_grad=True)
    loss = F.cross_entropy(logits, [0, 1], reduction="none")
    assert loss.tolist() == [0.0, 2e4]
    loss.sum().backward()
    assert logits.grad.tolist() == [[0.0, 0.0], [1.0, -1.0]]


@pytest.mark.parametrize("shift", [-1e4, 1e4])
def test_far_out_float32_is_as_fine_as_near_zero(shift):
    near = ts.tensor([[0.5, 0.0, -0.5]], requires_grad=True)  # steps that 10⁴ can be told from
    far = ts.tensor(near.numpy() + np.float32(shift), requires_grad=True)
    targets = [np.array([1]), np.array([[0.25, 0.5, 0.25]], np.float32)]
    for target, smoothing in itertools.product(targets, [0.0, 0.1]):
        losses = [F.cross_entropy(x, target, label_smoothing=smoothing) for x in (near, far)]
        assert losses[0].item() == losses[1].item()
        gradients = [ts.grad(loss, x) for loss, x in zip(losses, (near, far), strict=True)]
        assert gradients[0].tolist() == gradients[1].tolist()
    assert F.softmax(near).tolist() == F.softmax(far).tolist()


def test_a_class_that_is_ruled_out_has_probability_0():
    x = ts.tensor([[0.0, -np.inf, 0.0]], requires_grad=True)
    assert F.softmax(x).tolist() == [[0.5, 0.0, 0.5]]
    loss = F.cross_entropy(x, [0])
    assert loss.item() == pytest.approx(math.log(2))
    assert ts.grad(loss, x).tolist() == [[-0.5, 0.0, 0.5]]


def test_losses_of_float32_stay_float32():
    logits = ts.tensor([[0.5, 0.0]], requires_grad=True)
    for targets in ([1], np.array([[0.5, 0.5]]), [[0.5, 0.5]]):
        loss = F.cross_entropy(
            logits, targets, weight=np.array([1.0, 2.0]), label_smoothing=np.float64(0.1)
        )
        assert loss.dtype == np.float32
    targets = ts.tensor(np.array([[1.0, 0.0]]))
    assert F.mse_loss(logits, targets).dtype == np.float32
    assert F.binary_cross_entropy_with_logits(logits, targets).dtype == np.float32


def test_probabilities_are_taken_at_full_precision():
    logits = ts.tensor(np.array([1.0, 0.0]))
    a, b = np.exp(1) / (1 + np.exp(1)), 1 / (1 + np.exp(1))
    expected = -(0.1 * np.log(a) + 0.9 * np.log(b))
    assert F.cross_entropy(logits, [0.1, 0.9]).item() == pytest.approx(expected, rel=1e-14)


def test_an_ignored_target_passes_no_gradient():
    logits = ts.tensor(np.random.default_rng(0).standard_normal((3, 4)), requires_grad=True)
    F.cross_entropy(logits, [-100, 2, -100]).backward()
    alone = ts.tensor(logits.numpy()[1:2], requires_grad=True)
    F.cross_entropy(alone, [2]).backward()
    assert logits.grad.numpy()[[0, 2]].tolist() == [[0.0] * 4] * 2
    np.testing.assert_array_equal(logits.grad.numpy()[1:2], alone.grad.numpy())


def test_a_class_can_be_the_ignored_one():
    logits = ts.tensor(np.eye(3))
    loss = F.cross_entropy(logits, [0, 1, 2], "none", ignore_index=0)
    assert loss.numpy()[0] == 0
    assert (loss.numpy()[1:] > 0).all()


@given(
    seed=seeds, V=st.integers(1, 4), reduction=reductions, weighted=st.booleans(),
    ignore=st.booleans(),
)  # fmt: skip
def test_nll_after_log_softmax_is_cross_entropy(seed, V, reduction, weighted, ignore):
    rng = np.random.default_rng(seed)
    logits = ts.tensor(rng.standard_normal((2, 3, V)), requires_grad=True)
    targets = rng.integers(0, V, (2, 3))
    options = {"weight": rng.uniform(0.2, 2, V)} if weighted else {}
    if ignore:
        targets[0, 1] = options["ignore_index"] = -1

    def fn(x):
        return F.nll_loss(F.log_softmax(x), targets, reduction, **options)

    expected = F.cross_entropy(logits, targets, reduction, **options)
    np.testing.assert_allclose(fn(logits).numpy(), expected.numpy(), atol=1e-12)
    checked(fn, logits)


# -- binary cross-entropy, squared error, sequences ------------------------------------------------


@given(
    seed=seeds, reduction=reductions, weighted=st.sampled_from([None, (3,), (2, 3), (2, 1)]),
    positive=st.sampled_from([None, (3,), ()]),
)  # fmt: skip
def test_binary_cross_entropy_with_logits(seed, reduction, weighted, positive):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((2, 3)), rng.uniform(0.1, 0.9, (2, 3))
    w = 1.0 if weighted is None else rng.uniform(0, 2, weighted)
    p = 1.0 if positive is None else rng.uniform(0, 2, positive)
    options = {"weight": None if weighted is None else w}
    options["pos_weight"] = None if positive is None else p

    def fn(x, y):
        return F.binary_cross_entropy_with_logits(x, y, reduction, **options)

    sigmoid = 1 / (1 + np.exp(-x))
    each = -w * (p * y * np.log(sigmoid) + (1 - y) * np.log(1 - sigmoid))
    xs = [ts.tensor(x, requires_grad=True), ts.tensor(y, requires_grad=True)]
    np.testing.assert_allclose(fn(*xs).numpy(), REDUCTIONS[reduction](each), rtol=1e-10)
    checked(fn, *xs)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_binary_cross_entropy_far_out(dtype):
    x = ts.tensor(np.array([1e4, 1e4, -1e4, -1e4], dtype), requires_grad=True)
    loss = F.binary_cross_entropy_with_logits(x, [True, False, True, False], "none")
    assert loss.dtype == dtype
    assert loss.tolist() == [0.0, 1e4, 1e4, 0.0]
    loss.sum().backward()
    assert x.grad.tolist() == [0.0, 1.0, -1.0, 0.0]
    nearly_sure = F.binary_cross_entropy_with_logits(ts.tensor(np.array([-30.0], dtype)), [0])
    assert nearly_sure.item() == pytest.approx(math.exp(-30), rel=1e-6, abs=0)


@given(data=st.data(), reduction=reductions)
def test_mse(data, reduction):
    a, b = data.draw(values((2, 3))), data.draw(values((2, 3)))
    xs = [ts.tensor(a, requires_grad=True), ts.tensor(b, requires_grad=True)]
    fn = lambda a, b: F.mse_loss(a, b, reduction)  # noqa: E731
    np.testing.assert_allclose(fn(*xs).numpy(), REDUCTIONS[reduction]((a - b) ** 2))
    checked(fn, *xs)


def test_mse_far_out():
    x = ts.tensor([1e4, -1e4], requires_grad=True)
    loss = F.mse_loss(x, [-1e4, -1e4], "sum")
    assert loss.item() == 4e8
    loss.backward()
    assert x.grad.tolist() == [4e4, 0.0]


@given(seed=seeds, reduction=reductions, more=st.sampled_from([(), (2,)]),
       by=st.sampled_from([None, "lengths", "mask"]))  # fmt: skip
def test_sequence_loss_is_the_sum_over_the_steps(seed, reduction, more, by):
    rng = np.random.default_rng(seed)
    T, B = 4, 3
    losses = rng.standard_normal((T, B, *more))
    lengths = rng.integers(0, T + 1, B)
    mask = rng.random((T, B)) < 0.5
    options = {} if by is None else {by: lengths if by == "lengths" else mask}
    expected = np.zeros(B)
    for b in range(B):
        for t in range(T):
            if by is None or (by == "lengths" and t < lengths[b]) or (by == "mask" and mask[t, b]):
                expected[b] += losses[t, b].sum()

    def fn(x):
        return F.sequence_loss(x, reduction=reduction, **options)

    x = ts.tensor(losses, requires_grad=True)
    np.testing.assert_allclose(fn(x).numpy(), REDUCTIONS[reduction](expected), atol=1e-12)
    checked(fn, x)


def test_padding_costs_nothing_whatever_it_holds():
    logits = np.random.default_rng(0).standard_normal((4, 2, 3))
    targets = np.array([[0, 1], [1, 2], [2, 0], [0, 1]])
    padded = logits.copy()
    padded[2:, 0] = 1e4
    results = []
    for values_ in (logits, padded):
        x = ts.tensor(values_, requires_grad=True)
        loss = F.sequence_loss(F.cross_entropy(x, targets, "none"), [2, 4])
        results.append((loss.item(), ts.grad(loss, x).tolist()))
    assert results[0] == results[1]
    assert np.all(np.array(results[0][1])[2:, 0] == 0)
    nan = ts.tensor([[1.0], [np.nan]], requires_grad=True)
    loss = F.sequence_loss(nan, ts.tensor([1]))
    assert (loss.item(), ts.grad(loss, nan).tolist()) == (1.0, [[1.0], [0.0]])


# -- CTC ------------------------------------------------------------------------------------------


def spelled(path, blank):
    return [s for i, s in enumerate(path) if s != blank and (i == 0 or path[i - 1] != s)]


def ctc_by_hand(log_probs, target, blank):
    """The definition: all paths that spell the target, one by one."""
    T, V = log_probs.shape
    total = sum(
        math.exp(sum(log_probs[t, s] for t, s in enumerate(path)))
        for path in itertools.product(range(V), repeat=T)
        if spelled(path, blank) == list(target)
    )
    return -math.log(total) if total else math.inf


@st.composite
def alignments(draw, T=4, B=3, V=3):
    """Log-probabilities and targets, too long ones and empty ones among them."""
    rng = np.random.default_rng(draw(seeds))
    T, B, V = draw(st.integers(1, T)), draw(st.integers(1, B)), draw(st.integers(2, V))
    blank = draw(st.integers(0, V - 1))
    lengths = rng.integers(0, 4, B)
    targets = rng.choice([v for v in range(V) if v != blank], (B, 3))
    return rng.standard_normal((T, B, V)), targets, rng.integers(0, T + 1, B), lengths, blank


@given(case=alignments(), zero_infinity=st.booleans(), one_after_the_other=st.booleans())
def test_ctc_is_the_sum_over_all_paths(case, zero_infinity, one_after_the_other):
    logits, targets, steps, lengths, blank = case
    log_probs = np_log_softmax(logits)
    used = [list(row[:n]) for row, n in zip(targets, lengths, strict=True)]
    expected = np.array([
        ctc_by_hand(log_probs[: steps[b], b], used[b], blank) for b in range(len(used))
    ])  # fmt: skip
    if zero_infinity:
        expected[np.isinf(expected)] = 0
    given_targets = np.array([*itertools.chain(*used)], int) if one_after_the_other else targets

    def loss(reduction):
        return F.ctc_loss(
            ts.tensor(log_probs), given_targets, steps, lengths, blank, reduction, zero_infinity
        )

    np.testing.assert_allclose(loss("none").numpy(), expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(loss("sum").item(), expected.sum(), rtol=1e-10, atol=1e-12)
    mean = (expected / np.maximum(lengths, 1)).mean()
    np.testing.assert_allclose(loss("mean").item(), mean, rtol=1e-10, atol=1e-12)


@given(case=alignments(T=3, B=2), reduction=reductions)
def test_ctc_gradients(case, reduction):
    logits, targets, steps, lengths, blank = case
    steps[0] = max(steps[0], 1)  # where nobody reads anything, nothing is recorded

    def fn(x):  # an infinite loss has no finite differences: it counts as 0
        return F.ctc_loss(F.log_softmax(x), targets, steps, lengths, blank, reduction, True)

    checked(fn, ts.tensor(logits, requires_grad=True))


def test_ctc_of_the_impossible():
    """Two equal symbols need a blank between them, and therefore three steps."""
    x = ts.tensor(np.zeros((2, 2, 3)), requires_grad=True)
    loss = F.ctc_loss(F.log_softmax(x), [[1, 1], [1, 2]], [2, 2], [2, 2], reduction="none")
    np.testing.assert_allclose(loss.numpy(), [np.inf, 2 * np.log(3)])
    g = ts.grad(loss.sum(), x, create_graph=True)
    assert np.isfinite(g.numpy()).all()
    assert np.all(g.numpy()[:, 0] == 0)
    assert np.any(g.numpy()[:, 1] != 0)
    assert np.isfinite(ts.grad((g * g).sum(), x).numpy()).all()
    assert F.ctc_loss(F.log_softmax(x), [[1, 1], [1, 2]], [2, 2], [2, 2]).item() == np.inf


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ctc_far_out(dtype):
    """Logits that are sure of a, blank, b: the target ab is certain, ba is all but impossible."""
    logits = np.full((3, 2, 3), -1e4, dtype)
    logits[[0, 1, 2], :, [1, 0, 2]] = 1e4
    x = ts.tensor(logits, requires_grad=True)
    loss = F.ctc_loss(F.log_softmax(x), [[1, 2], [2, 1]], [3, 3], [2, 2], reduction="none")
    assert loss.dtype == dtype
    assert loss.tolist() == [0.0, 4e4]
    g = ts.grad(loss.sum(), x).numpy()
    np.testing.assert_allclose(g[:, 0], 0)
    # of ba, the likeliest alignments get one step of three right: b b a, b a a and b - a
    assert np.isfinite(g).all()
    np.testing.assert_allclose(g[0, 1], [0, 1, -1], atol=1e-6)
    np.testing.assert_allclose(g.sum(-1), 0, atol=1e-6)


def test_ctc_reads_no_padding():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((5, 1, 4))
    short = ts.tensor(logits[:3], requires_grad=True)
    long = ts.tensor(logits, requires_grad=True)
    a = F.ctc_loss(F.log_softmax(short), [[2, 3]], [3], [2])
    b = F.ctc_loss(F.log_softmax(long), [[2, 3, -1, 99]], [3], [2])
    assert a.item() == b.item()
    np.testing.assert_array_equal(ts.grad(a, short).numpy(), ts.grad(b, long).numpy()[:3])
    assert np.all(ts.grad(F.ctc_loss(F.log_softmax(long), [[2]], [3], [1]), long).numpy()[3:] == 0)


# -- errors ---------------------------------------------------------------------------------------

LOGITS = ts.tensor(np.ones((4, 3)))
LOG_PROBS = ts.tensor(np.full((4, 2, 3), -np.log(3)))
P = np.full((4, 3), 1 / 3)
BCE = F.binary_cross_entropy_with_logits
CE = F.cross_entropy
OK = {"input_lengths": [4, 4], "target_lengths": [1, 1]}

ERRORS = [
    (lambda: CE(LOGITS, [0, 1]), ShapeError, r"logits \(4, 3\) need targets of shape"),
    (lambda: CE(LOGITS, [0, 1, 2, 3]), IndexError, r"index 3 is outside of 0 … 2 \(V=3"),
    (lambda: CE(LOGITS, [0, 1, -1, 0]), IndexError, r"index -1 is outside"),
    (lambda: CE(LOGITS, [True] * 4), DtypeError, r"whole numbers, not bool"),
    (lambda: CE(LOGITS, [0.0] * 4), ShapeError, r"targets of shape \(4,\), prob.*classes as whole"),
    (lambda: CE(LOGITS, LOGITS), ValueError, r"float targets must be probabilities"),
    (lambda: CE(LOGITS, P - [0.5, -0.5, 0]), ValueError, r"float targets must be probabilities"),
    (lambda: CE(LOGITS, P * np.nan), ValueError, r"float targets must be probabilities"),
    (lambda: CE(LOGITS, P, ignore_index=0), ValueError, r"ignore_index=0 is a class.*Leave those"),
    (lambda: CE(ts.tensor([[1, 2]]), [0]), DtypeError, r"in this order\?"),
    (lambda: CE(ts.tensor(1.0), 0), ShapeError, r"last axis of V classes"),
    (lambda: CE(LOGITS[:0], np.zeros(0, int)), ShapeError, r"mean over no targets"),
    (lambda: CE(LOGITS[:0], P[:0]), ShapeError, r"mean over no targets"),
    (lambda: CE(LOGITS, [-100] * 4), ValueError, r"all targets are ignored"),
    (lambda: CE(LOGITS, [1] * 4, weight=[1, 0, 1]), ValueError, r"or weigh nothing"),
    (lambda: CE(LOGITS, [0] * 4, "avg"), ValueError, r"reduction='avg' must be 'mean' or"),
    (lambda: CE(LOGITS, [0] * 4, weight=[1, 2]), ShapeError, r"\(2,\) does not fit logits of V=3"),
    (lambda: CE(LOGITS, [0] * 4, weight=[1, -2, 1]), ValueError, r"weight must not be negative"),
    (
        lambda: CE(LOGITS, [0] * 4, weight=ts.tensor([1.0] * 3, requires_grad=True)),
        GraphError,
        r"weight requires a gradient, and none goes to it",
    ),
    (lambda: CE(LOGITS, [0] * 4, label_smoothing=1.1), ValueError, r"label_smoothing=1.1 must be"),
    (lambda: F.nll_loss(LOGITS, [0] * 4), ValueError, r"nll_loss: log_probs above 0.*log_softmax"),
    (lambda: F.nll_loss(-LOGITS, [0]), ShapeError, r"nll_loss: log_probs \(4, 3\) need targets"),
    (lambda: F.nll_loss(ts.tensor([[1]]), [0]), DtypeError, r"nll_loss: log_probs must be float"),
    (lambda: F.nll_loss(-LOGITS, [-100] * 4), ValueError, r"nll_loss: all targets are ignored"),
    (lambda: BCE(LOGITS, [0, 1]), ShapeError, r"logits \(4, 3\) and targets \(2,\) must have"),
    (lambda: BCE(LOGITS, P * 4), ValueError, r"targets must be probabilities"),
    (lambda: BCE(LOGITS, P * np.nan), ValueError, r"targets must be probabilities"),
    (lambda: BCE(ts.tensor([1]), [1]), DtypeError, r"logits must be float"),
    (lambda: BCE(LOGITS, P, weight=[1, 2]), ShapeError, r"weight of shape \(2,\) does not broad"),
    (lambda: BCE(LOGITS, P, pos_weight=-1), ValueError, r"pos_weight must not be negative"),
    (lambda: F.binary_cross_entropy(P * 4, P), ValueError, r"probabilities must be prob.*0 to 1"),
    (lambda: F.binary_cross_entropy(P, P * 4), ValueError, r"targets must be probabilities"),
    (lambda: F.kl_div(P, P), ValueError, r"kl_div: log_probs above 0.*through log_softmax"),
    (lambda: F.kl_div(-P, P * 4), ValueError, r"kl_div: targets must be probabilities"),
    (lambda: F.kl_div(-P, P, log_target=True), ValueError, r"kl_div: targets above 0 are no log"),
    (
        lambda: F.kl_div(-1.0, 0.5, "batchmean"),
        ShapeError,
        r"first axis of log_probs, and got \(\)",
    ),
    (lambda: F.l1_loss(P, P[0]), ShapeError, r"prediction .* and target .* must have the same"),
    (lambda: F.huber_loss(P, P, delta=0), ValueError, r"huber_loss: delta=0 must be.*above 0"),
    (lambda: F.mse_loss(LOGITS, P[:, :1]), ShapeError, r"prediction \(4, 3\) and target \(4, 1\)"),
    (lambda: F.mse_loss(ts.tensor([1]), [1]), DtypeError, r"prediction must be float"),
    (lambda: F.sequence_loss(LOGITS[0]), ShapeError, r"losses must be \(T, B\), got \(3,\)"),
    (
        lambda: F.sequence_loss(LOGITS, [1, 2]),
        ShapeError,
        r"lengths for losses .* must be B=3 whole",
    ),
    (
        lambda: F.sequence_loss(LOGITS, [1.0] * 3),
        ShapeError,
        r"lengths for losses .* must be B=3 whole",
    ),
    (lambda: F.sequence_loss(LOGITS, [1, 2, 5]), ValueError, r"5 is outside of 0 … 4"),
    (lambda: F.sequence_loss(LOGITS, [1, 2, -1]), ValueError, r"-1 is outside of 0 … 4"),
    (lambda: F.sequence_loss(LOGITS, [1] * 3, mask=P > 0), ValueError, r"Pass one of them"),
    (lambda: F.sequence_loss(LOGITS, mask=P), DtypeError, r"mask must be boolean, not float64"),
    (lambda: F.sequence_loss(LOGITS, mask=P.T > 0), ShapeError, r"a mask of shape \(T=4, B=3\)"),
    (lambda: F.one_hot([3], 3), IndexError, r"one_hot: indices: index 3"),
    (lambda: F.ctc_loss(LOGITS, [[1]], **OK), ShapeError, r"log_probs must be \(T, B, V\), got"),
    (
        lambda: F.ctc_loss(ts.tensor([[[0]]]), [[1]], [1], [1]),
        DtypeError,
        r"log_probs must be float32 or float64, not int64",
    ),
    (lambda: F.ctc_loss(-LOG_PROBS, [[1]], **OK), ValueError, r"ctc_loss: log_probs above 0"),
    (lambda: F.ctc_loss(LOG_PROBS, [[1], [1]], blank=3, **OK), IndexError, r"blank=3 is outside"),
    (lambda: F.ctc_loss(LOG_PROBS, [[1]], **OK), ShapeError, r"targets must be \(B=2, S\)"),
    (lambda: F.ctc_loss(LOG_PROBS, [1, 2, 1], **OK), ShapeError, r"say, 2, got 3"),
    (lambda: F.ctc_loss(LOG_PROBS, [[1], [3]], **OK), IndexError, r"index 3 is outside"),
    (lambda: F.ctc_loss(LOG_PROBS, [[1.0], [2.0]], **OK), DtypeError, r"must be whole numbers"),
    (lambda: F.ctc_loss(LOG_PROBS, [[1], [0]], **OK), ValueError, r"targets contain the blank, 0"),
    (
        lambda: F.ctc_loss(LOG_PROBS, [[1], [1]], [4, 5], [1, 1]),
        ValueError,
        r"input_lengths: 5 is outside of 0 … 4",
    ),
    (
        lambda: F.ctc_loss(LOG_PROBS, [[1], [1]], [4, 4], [1, 2]),
        ValueError,
        r"target_lengths for targets \(.*\): 2 is outside of 0 … 1",
    ),
    (
        lambda: F.ctc_loss(LOG_PROBS, [[1], [1]], [4], [1, 1]),
        ShapeError,
        r"input_lengths must be B=2 whole",
    ),
    (
        lambda: F.ctc_loss(LOG_PROBS, [[1], [1]], **OK, reduction="avg"),
        ValueError,
        r"reduction='avg'",
    ),
]


@pytest.mark.parametrize(("call", "kind", "message"), ERRORS)
def test_errors_teach(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
