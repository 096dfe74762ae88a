"""Drawing a symbol: each that may be drawn has its own stretch of [0, 1), and no other one has."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyseq.kernels.sampling import NOT_FINITE, pick


def picked(logits, draw, temperature=1.0, top_k=None, top_p=1.0, refused=()):
    V = len(logits)
    scratch = np.full(V, np.nan), np.full(V, 10**6)
    refused = np.array(refused, np.int64)
    return pick(logits.copy(), draw, temperature, top_k or V, top_p, refused, *scratch)


def probabilities(logits, temperature, top_k, top_p, refused):
    """By sorting, and in the order of the words: refused, the k likeliest, the nucleus of these;
    and how near a rounding would have changed the nucleus.
    """
    order = [i for i in np.argsort(-logits, kind="stable") if i not in refused][:top_k]
    p = np.exp((logits[order].astype(np.float64) - logits[order[0]]) / temperature)
    before = np.cumsum(p) - p
    near = np.abs(before - top_p * p.sum()).min() if top_p < 1 else 1.0
    if top_p < 1:
        p = p[before < top_p * p.sum()]
    out = np.zeros(len(logits))
    out[order[: len(p)]] = p / p.sum()
    return out, near


@st.composite
def choices(draw):
    """Logits with many equals among them."""
    V = draw(st.integers(1, 40))
    logits = draw(st.lists(st.integers(-3, 3), min_size=V, max_size=V))
    refused = draw(st.lists(st.integers(0, V - 1), max_size=V - 1, unique=True))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    top_p = st.one_of(st.just(1.0), st.floats(0.01, 0.99))
    k = draw(st.integers(1, V + 1))
    return np.array(logits, dtype), draw(st.sampled_from([0.25, 1.0, 3.0])), k, draw(top_p), refused


@given(choices())
def test_every_symbol_has_a_stretch_as_wide_as_its_probability(choice):
    logits, temperature, top_k, top_p, refused = choice
    p, near = probabilities(*choice)
    if near < 1e-9:
        return
    edges = np.concatenate([[0.0], np.cumsum(p)])
    for i in np.flatnonzero(p):
        a, b = edges[i : i + 2]
        for at in (a + 1e-9 * (b - a) + 1e-13, (a + b) / 2, b - 1e-9 * (b - a) - 1e-13):
            if a < at < b and at < 1:
                assert picked(logits, at, temperature, top_k, top_p, refused) == i
    first, last = np.flatnonzero(p)[[0, -1]]
    assert picked(logits, 0.0, temperature, top_k, top_p, refused) == first
    assert picked(logits, 1 - 2**-53, temperature, top_k, top_p, refused) == last
    likeliest = max((i for i in range(len(logits)) if i not in refused), key=lambda i: logits[i])
    for at in (0.0, 0.5, 0.999):
        assert picked(logits, at, 0.0, top_k, top_p, refused) == likeliest


@pytest.mark.parametrize("top_k", [1, 2, 3, 4, 5])
def test_of_equals_the_first_are_kept(top_k):
    logits = np.array([0, 1, 1, 0, 1], np.float32)
    kept = [1, 2, 4, 0, 3][:top_k]
    drawn = {picked(logits, at, 1.0, top_k) for at in np.linspace(0, 0.999, 50)}
    assert drawn == set(kept)


@pytest.mark.parametrize("top_p", [0.2, 0.25, 0.26, 0.5, 0.51, 0.99])
def test_the_nucleus_is_no_larger_than_it_must_be(top_p):
    """Of four equals: 0.25 takes one, and anything above it two."""
    drawn = {picked(np.zeros(4, np.float32), at, 1.0, 4, top_p) for at in np.linspace(0, 0.999, 50)}
    assert drawn == set(range(int(np.ceil(4 * top_p))))


def test_the_scratch_memory_is_no_memory():
    """What an earlier symbol left there does not matter."""
    rng = np.random.default_rng(0)
    weights, heap = np.empty(30), np.empty(30, np.int64)
    none = np.zeros(0, np.int64)
    for _ in range(200):
        logits, at = rng.integers(-3, 4, 30).astype(np.float32), rng.random()
        again = pick(logits.copy(), at, 0.7, 9, 0.8, none, weights, heap)
        assert again == picked(logits, at, 0.7, 9, 0.8)


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_said_wherever_they_are(at, wrong):
    """Also where the symbol is refused."""
    logits = np.zeros(3, np.float64)
    logits[at] = wrong
    for temperature in (0.0, 1.0):
        for refused in ((), (at,)):
            assert picked(logits, 0.5, temperature, 2, 0.9, refused) == NOT_FINITE
