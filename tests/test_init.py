"""Initialisers: the distributions they promise, and the properties they are chosen for."""

import numpy as np
import pytest

import tinyseq as ts
from tinyseq import nn
from tinyseq.errors import ShapeError
from tinyseq.nn import init

SHAPE = (200, 300)

UNIFORM = [
    (lambda rng: init.uniform(SHAPE, 0.3, rng), 0.3),
    (lambda rng: init.glorot_uniform(SHAPE, rng), np.sqrt(6 / 500)),
    (lambda rng: init.glorot_uniform(SHAPE, rng, fan_out=100), np.sqrt(6 / 300)),
    (lambda rng: init.he_uniform(SHAPE, rng), np.sqrt(6 / 200)),
]
NORMAL = [
    (lambda rng: init.normal(SHAPE, 0.3, rng), 0.3),
    (lambda rng: init.normal(SHAPE, rng=rng), 1.0),
    (lambda rng: init.glorot_normal(SHAPE, rng), np.sqrt(2 / 500)),
    (lambda rng: init.glorot_normal(SHAPE, rng, fan_out=100), np.sqrt(2 / 300)),
    (lambda rng: init.he_normal(SHAPE, rng), np.sqrt(2 / 200)),
]


@pytest.mark.parametrize(("make", "bound"), UNIFORM)
def test_uniform_ones(make, bound):
    w = make(np.random.default_rng(0))
    assert (w.shape, w.dtype) == (SHAPE, np.float32)
    assert np.abs(w).max() <= np.float32(bound)
    deciles = np.quantile(w, np.linspace(0, 1, 11))
    np.testing.assert_allclose(deciles, np.linspace(-bound, bound, 11), atol=0.02 * bound)


@pytest.mark.parametrize(("make", "std"), NORMAL)
def test_normal_ones(make, std):
    w = make(np.random.default_rng(0))
    assert (w.shape, w.dtype) == (SHAPE, np.float32)
    assert abs(w.mean()) < 0.02 * std
    assert w.std() == pytest.approx(std, rel=0.02)
    for k, share in ((1, 0.683), (2, 0.954), (3, 0.9973)):  # what a bell has within k σ
        assert np.mean(np.abs(w) < k * std) == pytest.approx(share, abs=0.005)


@pytest.mark.parametrize(("make", "activation"), [
    (init.glorot_normal, np.tanh), (init.glorot_uniform, np.tanh),
    (init.he_normal, lambda a: np.maximum(a, 0)), (init.he_uniform, lambda a: np.maximum(a, 0)),
])  # fmt: skip
def test_signals_keep_their_size(make, activation):
    """Ten layers deep: small before a tanh, where it is linear; of any size before a relu."""
    rng = np.random.default_rng(0)
    x = 0.01 * rng.standard_normal((100, 256))
    before = np.sqrt((x**2).mean())
    for _ in range(10):
        x = activation(x @ make((256, 256), rng))
    assert before / 2 < np.sqrt((x**2).mean()) < before * 2


@pytest.mark.parametrize("blocks", [1, 4])
def test_orthogonal_blocks_keep_lengths(blocks):
    w = init.orthogonal((20, blocks * 20), np.random.default_rng(0)).astype(np.float64)
    assert w.shape == (20, blocks * 20)
    for block in np.split(w, blocks, axis=1):
        np.testing.assert_allclose(block @ block.T, np.eye(20), atol=1e-6)


@pytest.mark.parametrize("shape", [(5, 3), (5, 8)])
def test_orthogonal_blocks_that_are_not_whole(shape):
    w = init.orthogonal(shape, np.random.default_rng(0)).astype(np.float64)
    assert w.shape == shape
    for block in (w[:, :5], w[:, 5:]):
        np.testing.assert_allclose(block.T @ block, np.eye(block.shape[1]), atol=1e-6)


def test_every_rotation_is_as_likely():
    """QR alone would prefer some: signs would be missing from the diagonal of r."""
    rng = np.random.default_rng(0)
    ws = np.stack([init.orthogonal((3, 3), rng) for _ in range(2000)])
    np.testing.assert_allclose(ws.mean(axis=0), 0, atol=0.05)
    np.testing.assert_allclose((ws**2).mean(axis=0), 1 / 3, atol=0.03)
    assert np.mean(np.linalg.det(ws) > 0) == pytest.approx(0.5, abs=0.05)


def test_zeros_and_forget_bias():
    assert init.zeros((2, 3)).tolist() == [[0.0] * 3] * 2
    assert init.forget_bias(2).tolist() == [0, 0, 1, 1, 0, 0, 0, 0]
    assert init.forget_bias(1, 2.5).tolist() == [0, 2.5, 0, 0]
    assert nn.LSTMCell(3, 2, forget_bias=1.5).b.tolist() == init.forget_bias(2, 1.5).tolist()


def test_a_forget_bias_keeps_the_memory():
    c = ts.tensor([[1.0, 1.0]])
    kept = {}
    for bias in (0.0, 5.0):
        cell = nn.LSTMCell(3, 2, forget_bias=bias)
        kept[bias] = cell(ts.tensor(np.zeros((1, 3), np.float32)), (c * 0, c))[1].numpy()
    np.testing.assert_allclose(kept[0.0], 0.5)
    np.testing.assert_allclose(kept[5.0], 0.9933, atol=1e-4)


DRAWN = [
    lambda: init.uniform((3, 4), 1.0),
    lambda: init.normal((3, 4)),
    lambda: init.glorot_uniform((3, 4)),
    lambda: init.glorot_normal((3, 4)),
    lambda: init.he_uniform((3, 4)),
    lambda: init.he_normal((3, 4)),
    lambda: init.orthogonal((3, 4)),
]


@pytest.mark.parametrize("make", DRAWN)
def test_the_same_seed_gives_the_same_bits(make):
    ts.seed(7)
    first, second = make(), make()
    ts.seed(7)
    np.testing.assert_array_equal(make(), first)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (
            lambda: init.uniform((2,), -1.0),
            ValueError,
            r"uniform: bound=-1.0 must be .* at least 0",
        ),
        (lambda: init.normal((2,), np.nan), ValueError, r"normal: std=nan must be .* at least 0"),
        (lambda: init.glorot_uniform((2,)), ShapeError, r"glorot_uniform: the shape \(2,\) is not"),
        (lambda: init.glorot_normal((2, 3, 4)), ShapeError, r"not that of a weight \(fan_in, fan_"),
        (lambda: init.he_uniform((0, 3)), ShapeError, r"he_uniform: the shape \(0, 3\)"),
        (lambda: init.he_normal((3,)), ShapeError, r"use zeros, uniform or normal"),
        (lambda: init.orthogonal((3,)), ShapeError, r"orthogonal: the shape \(3,\)"),
    ],
)
def test_errors_teach(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
