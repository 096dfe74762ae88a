"""Jacobians, Hessian-vector products, hooks, anomaly detection, recomputation."""

import math
import tracemalloc

import numpy as np
import pytest

import tinyseq as ts
from tinyseq import functional as F
from tinyseq import nn
from tinyseq.errors import AnomalyError, GraphError, ShapeError


def leaf(data):
    return ts.tensor(np.array(data, np.float64), requires_grad=True)


A = np.random.default_rng(0).standard_normal((3, 3))


def quadratic(x):
    return 0.5 * x @ ts.tensor(A) @ x


def test_jacobian_of_a_linear_map_is_its_matrix():
    x = ts.tensor(np.ones(3))
    np.testing.assert_allclose(ts.jacobian(lambda x: ts.tensor(A) @ x, x).numpy(), A)
    square = ts.jacobian(lambda x: x * x, leaf([[1.0, 2.0]]))
    assert square.shape == (1, 2, 1, 2)
    assert square[0, 1, 0, 1].item() == 4.0


def test_jacobian_of_the_jacobian_is_the_hessian():
    hessian = ts.jacobian(
        lambda x: ts.jacobian(quadratic, x, create_graph=True), leaf([1.0, 2.0, 3.0])
    )
    np.testing.assert_allclose(hessian.numpy(), (A + A.T) / 2)


def test_hessian_vector_products():
    v = ts.tensor(np.array([1.0, -1.0, 2.0]))
    np.testing.assert_allclose(
        ts.hvp(quadratic, leaf([1.0, 2.0, 3.0]), v).numpy(), (A + A.T) / 2 @ v.numpy()
    )
    x, y = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    u, w = ts.tensor(np.array([1.0, 0.0])), ts.tensor(np.array([0.0, 1.0]))
    hx, hy = ts.hvp(lambda x, y: (x * x * y).sum(), [x, y], [u, w])
    np.testing.assert_allclose(hx.numpy(), 2 * y.numpy() * u.numpy() + 2 * x.numpy() * w.numpy())
    np.testing.assert_allclose(hy.numpy(), 2 * x.numpy() * u.numpy())
    assert ts.hvp(lambda x: x.sum(), x, u).tolist() == [0.0, 0.0]
    with pytest.raises(ShapeError, match="hvp: vs of shapes"):
        ts.hvp(quadratic, leaf([1.0, 2.0, 3.0]), u)


# -- hooks --------------------------------------------------------------------------------------


def test_a_hook_sees_the_whole_gradient_and_may_replace_it():
    x, seen = leaf([2.0]), []
    h = x * 3
    remove = h.register_hook(seen.append)
    y = (h * h + h).sum()
    y.backward(retain_graph=True)
    assert [g.tolist() for g in seen] == [[13.0]]
    assert x.grad.tolist() == [39.0]
    remove()
    remove()  # twice is harmless
    h.register_hook(lambda g: g * 0)
    x.grad = None
    y.backward()
    assert len(seen) == 1
    assert x.grad.tolist() == [0.0]


def test_a_hook_on_a_leaf():
    x = leaf([1.0])
    x.register_hook(lambda g: ts.minimum(g, 0.5))
    (x * 3).sum().backward()
    assert x.grad.tolist() == [0.5]


def test_errors_of_hooks():
    x = leaf([1.0])
    x.register_hook(lambda g: ts.tensor([1.0, 2.0]))
    with pytest.raises(ShapeError, match=r"hook on the tensor of shape \(1,\).*shape \(2,\)"):
        (x * 3).sum().backward()
    with pytest.raises(GraphError, match="no hook would ever be called"):
        ts.tensor([1.0]).register_hook(print)


# -- anomalies ----------------------------------------------------------------------------------


def test_the_op_that_first_made_a_nan_forward():
    class Cell(nn.Module):
        def __call__(self, x, state):
            (h,) = state
            return (ts.log(h - 1.0) + x,)

    x, h = ts.tensor(np.zeros((4, 1, 1))), leaf([[2.5]])
    with (
        ts.detect_anomaly(),
        pytest.raises(
            AnomalyError, match=r"log in Recurrent/t=1/cell made the first nan, at \[0, 0\]"
        ),
    ):
        nn.Recurrent(Cell())(x, (h,))


def test_the_op_that_first_made_an_inf_backward():
    x = leaf([0.0, 4.0])
    with ts.detect_anomaly():
        y = ts.sqrt(x).sum()
        with pytest.raises(AnomalyError, match=r"div in grad made the first inf, at \[0\]"):
            y.backward()


def test_without_an_anomaly_nothing_is_raised_and_outside_nothing_is_looked_at():
    with ts.detect_anomaly():
        (leaf([1.0]) * 2).sum().backward()
        with ts.detect_anomaly():
            pass
        with pytest.raises(AnomalyError):
            ts.log(ts.tensor([0.0]))
    with np.errstate(all="ignore"):
        assert ts.log(ts.tensor([0.0])).item() == -np.inf


NAN, INF = np.float32("nan"), np.float32("inf")


def spoiled(shape, at, value):
    array = np.zeros(shape, np.float32)
    array[at] = value
    return array


def in_a_parameter(name, at, value):
    lstm = nn.LSTM(3, 4, num_layers=2)
    dict(lstm.named_parameters())[name]._data[at] = value
    return lstm(np.zeros((5, 2, 3), np.float32))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: nn.LSTM(3, 4)(spoiled((5, 2, 3), (3, 1, 2), NAN)),
            r"t=3 reads .*input 0 holds nan, first at \[3, 1, 2\] of \(5, 2, 3\).*in the data",
        ),
        (lambda: nn.GRU(3, 4)(spoiled((5, 2, 3), (0, 0, 0), INF)), "its input 0 holds inf"),
        (
            lambda: in_a_parameter("layers.1.cell.w_h", (2, 7), NAN),
            r"layers.1/t=0/cell reads .*parameter w_h holds nan, first at \[2, 7\] of \(4, 16\)",
        ),
        (lambda: in_a_parameter("layers.0.cell.b", 3, -INF), r"parameter b holds -inf, .*\[3\]"),
        (
            lambda: F.mse_loss(leaf([1.0]), np.array([NAN])),
            "its input 1 holds nan",  # a target
        ),
        (lambda: leaf([1.0, 2.0]).sum() * math.nan, "its input 1 holds nan"),
        (lambda: ts.exp(leaf([1.0])).backward([math.nan]), "in grad reads"),
        (
            lambda: ts.tensor([-np.inf, 1.0]) - ts.tensor([-np.inf, 1.0]),
            r"sub made the first nan, at \[0\]",  # −∞ alone is let pass
        ),
    ],
)
def test_a_nan_that_no_op_made(call, words):
    """In data or parameters: the op that reads it says where it is, and not to lower the rate."""
    with ts.detect_anomaly(), pytest.raises(AnomalyError, match=words) as caught:
        call()
    assert ("learning rate" in str(caught.value)) == ("made" in words)


def test_a_nan_of_a_forward_pass_outside():
    with np.errstate(invalid="ignore"):
        y = ts.log(leaf([-1.0]))
    with ts.detect_anomaly(), pytest.raises(AnomalyError, match="outside of detect_anomaly made"):
        ts.exp(y)


def test_infinities_that_are_meant_and_nan_in_padding_are_no_anomaly():
    causal = np.tri(3, dtype=bool)
    x = leaf(np.random.default_rng(0).standard_normal((3, 3)))
    x_padded = np.zeros((5, 2, 3), np.float32)
    x_padded[3:, 1] = np.nan
    with ts.detect_anomaly():
        (F.softmax(ts.where(causal, x, -np.inf)) ** 2).sum().backward()
        (F.softmax(x + np.where(causal, 0, -np.inf)) ** 2).sum().backward()
        ts.logsumexp(ts.where(causal, x, -np.inf), axis=-1).sum().backward()
        ts.minimum(x, np.inf).sum().backward()
        y, _ = nn.LSTM(3, 4)(x_padded, lengths=[5, 3])
    assert np.isfinite(y.numpy()).all()


# -- recomputation ------------------------------------------------------------------------------


def run_in_chunks(layer, x, chunk):
    state, outputs = layer.initial_state(x.shape[1], x.dtype), []
    for start in range(0, x.shape[0], chunk):
        y, state = nn.checkpoint(layer, x[start : start + chunk], state)
        outputs.append(y)
    return ts.concat(outputs), state


def test_checkpointed_chunks_are_the_whole_bit_for_bit():
    layer = nn.LSTM(2, 3, 2).double()
    x = ts.tensor(np.random.default_rng(0).standard_normal((7, 2, 2)), requires_grad=True)
    results = []
    for chunk in (7, 3):
        y, state = run_in_chunks(layer, x, chunk)
        grads = ts.grad((y * y).sum() + state[0][1].sum(), [x, *layer.parameters()])
        results.append([y, *grads])
    y, state = layer(x)
    plain = [y, *ts.grad((y * y).sum() + state[0][1].sum(), [x, *layer.parameters()])]
    for one in results:
        for a, b in zip(one, plain, strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("order", [1, 2])
def test_gradcheck_through_checkpointed_chunks(order):
    layer = nn.GRU(2, 2).double()
    x = ts.tensor(np.random.default_rng(0).standard_normal((4, 1, 2)), requires_grad=True)
    assert ts.gradcheck(
        lambda *_: run_in_chunks(layer, x, 2)[0], [x, *layer.parameters()], order=order
    )


def test_dropout_draws_the_same_again():
    x = leaf(np.ones(50))
    drop = nn.Dropout(0.5)
    y = nn.checkpoint(lambda x: drop(x) * x, x)
    state = ts.random.get_state()
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * y.numpy())
    assert ts.random.get_state() == state  # the backward pass leaves the random stream alone


def test_no_grad_and_none_in_a_state():
    x = leaf([1.0])
    with ts.no_grad():
        assert not nn.checkpoint(ts.tanh, x).requires_grad
    y, nothing = nn.checkpoint(lambda x, state: (x * 2, state), x, None)
    assert nothing is None
    y.sum().backward()
    assert x.grad.tolist() == [2.0]


def test_errors_of_checkpoint():
    x = leaf(np.ones(9))
    h = x * 2
    with pytest.raises(
        GraphError, match=r"uses a recorded tensor of shape \(9,\) that is not among"
    ):
        nn.checkpoint(lambda x: x * h, x)
    own = nn.Dropout(0.5, rng=np.random.default_rng(0))
    y = nn.checkpoint(own, x).sum()
    with pytest.raises(GraphError, match="did not compute the same again"):
        y.backward()
    with pytest.raises(TypeError, match=r"nested tuples of them, or None, not float.*partial"):
        nn.checkpoint(ts.tanh, 1.0)


def train(T, chunk, mode):
    """A training step whose loss reads the last state alone."""
    layer = nn.LSTM(1, 8, mode=mode)
    x = ts.tensor(np.ones((T, 16, 1), np.float32))
    state = layer.initial_state(16)
    for start in range(0, T, chunk):
        part = x[start : start + chunk]
        state = nn.checkpoint(lambda x, state: layer(x, state)[1], part, state)
    state[0][0].sum().backward()


def peak_megabytes(*step):
    tracemalloc.start()
    train(*step)
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("mode", ["unroll", "compiled"])
def test_memory_grows_with_the_root_of_the_length(mode):
    # What is imported and cached on first use is no part of it; and traced it compiles slowly
    train(100, 10, mode)
    short, long = peak_megabytes(100, 10, mode), peak_megabytes(900, 30, mode)
    # 9 times the steps: 3 times the memory and some for the objects of more chunks, not 9
    assert long < 6 * short
    if mode == "unroll":  # a compiled chunk is no more than a few arrays, which are used again
        assert peak_megabytes(100, 100, mode) > 3 * short
