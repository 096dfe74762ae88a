"""The problems and the gradients of the demo memory.py."""

import memory
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyseq as ts
from tinyseq import nn

lags = st.integers(2, 30)
seeds = st.integers(0, 1000)


@given(lags, seeds)
def test_adding(lag, seed):
    x, targets = memory.draw_adding(np.random.default_rng(seed), lag, 7)
    assert x.shape == (lag, 7, 2)
    assert targets.shape == (1, 7, 1)
    numbers, marks = x[..., 0], x[..., 1]
    assert np.array_equal(marks[: lag // 2].sum(axis=0), np.ones(7))
    assert np.array_equal(marks[lag // 2 :].sum(axis=0), np.ones(7))
    for b in range(7):
        assert numbers[marks[:, b] == 1, b].sum() == pytest.approx(targets[0, b, 0], abs=1e-6)


@given(lags, seeds)
def test_copying(lag, seed):
    x, targets = memory.draw_copying(np.random.default_rng(seed), lag, 7)
    assert x.shape == (lag + 10, 7, 10)
    assert np.array_equal(x.sum(axis=-1), np.ones((lag + 10, 7)))
    assert np.array_equal(x[:5, :, :8], targets)
    symbols = x.argmax(axis=-1)
    assert np.all(symbols[5:-5] == 8)
    assert np.all(symbols[-5:] == 9)


def test_what_chance_gives():
    rng = np.random.default_rng(0)
    _, targets = memory.draw_adding(rng, 20, 100_000)
    assert memory.squared_error(np.ones_like(targets), targets) == pytest.approx(
        memory.ADDING.chance, rel=0.01
    )
    _, targets = memory.draw_copying(rng, 1, 50_000)
    guess = rng.random(targets.shape)
    assert memory.share_right(guess, targets) == pytest.approx(memory.COPYING.chance, rel=0.02)
    assert memory.share_right(targets, targets) == 1


def test_the_gradient_of_a_linear_recurrence_is_a_power(monkeypatch):
    """h' = x w_x + h w_h with w_h = 0.9·1: what arrives k steps back is 0.9**k of what arrives at
    once. The tanh of an RNN is as good as linear where all is small.
    """
    monkeypatch.setattr(memory, "FAR", 40)
    cell = nn.RNNCell(2, 8)
    cell.w_x.data = cell.w_x.data * 1e-4
    cell.w_h.data = 0.9 * np.eye(8, dtype=np.float32)
    layer = nn.Recurrent(cell, mode="unroll")
    gradients = memory.gradient_by_lag(layer, np.random.default_rng(0))
    assert gradients == pytest.approx(0.9 ** np.arange(41), rel=1e-3)


def test_about_as_many_parameters():
    ts.seed(0)
    for D in (2, 10):
        sizes = [
            sum(p.size for p in make_cell(D).parameters()) for make_cell, _ in memory.CELLS.values()
        ]
        assert max(sizes) < 1.15 * min(sizes)
