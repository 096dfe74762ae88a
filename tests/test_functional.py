"""Softmax and the losses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import values

import tinyseq as ts
from tinyseq import functional as F
from tinyseq.errors import DtypeError, ShapeError


@given(data=st.data(), n=st.integers(1, 4), V=st.integers(1, 4))
def test_softmax_and_its_gradients(data, n, V):
    x = ts.tensor(data.draw(values((n, V))), requires_grad=True)
    e = np.exp(x.numpy())
    for axis in (0, -1):
        expected = e / e.sum(axis=axis, keepdims=True)
        np.testing.assert_allclose(F.softmax(x, axis).numpy(), expected)
        np.testing.assert_allclose(F.log_softmax(x, axis).numpy(), np.log(expected), atol=1e-12)
    assert ts.gradcheck(F.softmax, x)
    assert ts.gradcheck(F.softmax, x, order=2)


@given(data=st.data(), shape=st.sampled_from([(), (3,), (2, 3)]), V=st.integers(1, 4))
def test_cross_entropy(data, shape, V):
    logits = ts.tensor(data.draw(values((*shape, V))), requires_grad=True)
    targets = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, V, shape)
    e = np.exp(logits.numpy())
    p = np.take_along_axis(e / e.sum(-1, keepdims=True), targets[..., None], -1)[..., 0]
    each = F.cross_entropy(logits, targets, reduction="none")
    np.testing.assert_allclose(each.numpy(), -np.log(p), atol=1e-12)
    np.testing.assert_allclose(
        F.cross_entropy(logits, targets).item(), -np.log(p).mean(), atol=1e-12
    )
    total = F.cross_entropy(logits, ts.tensor(targets), reduction="sum")
    np.testing.assert_allclose(total.item(), -np.log(p).sum(), atol=1e-12)
    for order in (1, 2):
        assert ts.gradcheck(lambda x: F.cross_entropy(x, targets), logits, order=order)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cross_entropy_far_out(dtype):
    logits = ts.tensor(np.array([[1e4, -1e4], [1e4, -1e4]], dtype), requires_grad=True)
    loss = F.cross_entropy(logits, [0, 1], reduction="none")
    assert loss.tolist() == [0.0, 2e4]
    loss.sum().backward()
    assert logits.grad.tolist() == [[0.0, 0.0], [1.0, -1.0]]


def test_one_hot():
    assert F.one_hot([[0, 2]], 3).tolist() == [[[1, 0, 0], [0, 0, 1]]]
    assert F.one_hot(ts.tensor([1]), 2, np.float64).dtype == np.float64


LOGITS = ts.tensor(np.ones((4, 3)))


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (
            lambda: F.cross_entropy(LOGITS, [0, 1]),
            ShapeError,
            r"logits \(4, 3\) need targets of shape",
        ),
        (
            lambda: F.cross_entropy(LOGITS, [0, 1, 2, 3]),
            IndexError,
            r"index 3 is outside of 0 … 2 \(V=3",
        ),
        (lambda: F.cross_entropy(LOGITS, [0, 1, -1, 0]), IndexError, r"index -1 is outside"),
        (lambda: F.cross_entropy(LOGITS, LOGITS), DtypeError, r"whole numbers, not float64"),
        (lambda: F.cross_entropy(ts.tensor([[1, 2]]), [0]), DtypeError, r"in this order\?"),
        (lambda: F.cross_entropy(ts.tensor(1.0), 0), ShapeError, r"last axis of V classes"),
        (
            lambda: F.cross_entropy(LOGITS[:0], np.zeros(0, int)),
            ShapeError,
            r"mean over no targets",
        ),
        (
            lambda: F.cross_entropy(LOGITS, [0] * 4, "avg"),
            ValueError,
            r"reduction='avg' is unknown",
        ),
        (lambda: F.one_hot([3], 3), IndexError, r"one_hot: index 3"),
    ],
)
def test_errors_teach(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
