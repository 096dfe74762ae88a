"""Scan ≡ unroll, as properties. `test_compiler_laws.py` runs this file in a process of its own with
``NUMBA_DISABLE_JIT=1``: the emitted source runs as it is, in hundreds of cases a minute.
"""

import numpy as np
import pytest
from compiler_cells import assert_scan_is_unroll, built_in_cells, drawn_cells
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyseq import nn
from tinyseq.compiler import runtime
from tinyseq.kernels import threads

MOST = settings.get_profile(settings.get_current_profile_name()).max_examples


@st.composite
def uses(draw):
    """How a layer is called, and what of it is used."""
    T, B = draw(st.integers(1, 7)), draw(st.sampled_from([1, 2, 3, 5]))
    lengths = st.one_of(st.none(), st.lists(st.integers(1, T), min_size=B, max_size=B))
    return {
        "T": T,
        "B": B,
        "dtype": draw(st.sampled_from([np.float64, np.float64, np.float32])),
        "seed": draw(st.integers(0, 99)),
        "given": draw(st.booleans()),
        "state_grad": draw(st.booleans()),
        "x_grad": draw(st.booleans()),
        "lengths": draw(lengths),
        "used": draw(st.sampled_from(["both", "y", "last"])),
        "passes": draw(st.sampled_from([1, 1, 2])),
    }


def check(cell, use, reverse, frozen, rows, parts):
    """One case: some parameters frozen, in chunks of few rows, its rows shared by threads."""
    names = sorted(name for name, _ in cell.named_parameters())
    for n, (_, p) in enumerate(sorted(cell.named_parameters())):
        p.requires_grad = not frozen >> (n % max(1, len(names))) & 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "_ROWS", rows)
        patch.setattr(runtime, "_WORTH_SHARING", 0.0 if parts > 1 else np.inf)
        before = threads.get_num_threads()
        threads.set_num_threads(parts)
        try:
            assert_scan_is_unroll(nn.Recurrent(cell, reverse), **use)
        finally:
            threads.set_num_threads(before)


frozen = st.one_of(st.just(0), st.integers(0, 2**12 - 1))
rows = st.sampled_from([1, 4, 256])
parts = st.sampled_from([1, 1, 2, 3])


@settings(max_examples=8 * MOST)
@given(drawn_cells(), uses(), st.booleans(), frozen, rows, parts)
def test_drawn_cells(cell, use, reverse, frozen, rows, parts):
    check(cell, use, reverse, frozen, rows, parts)


@settings(max_examples=4 * MOST)
@given(built_in_cells(sizes=(1, 3, 7, 33)), uses(), st.booleans(), frozen, rows, parts)
def test_built_in_cells(cell, use, reverse, frozen, rows, parts):
    check(cell, use, reverse, frozen, rows, parts)


@settings(max_examples=MOST)
@given(built_in_cells(sizes=(1, 3, 7)), drawn_cells(sizes=(1, 3)), uses(), st.booleans())
def test_both_directions_and_several_layers(cell, other, use, turned):
    cell, other = (other, cell) if turned else (cell, other)
    between = nn.RNNCell(cell.hidden_size, other.input_size)
    layer = nn.Stacked(
        cell, nn.Bidirectional(between, between), nn.RNNCell(2 * other.input_size, 2)
    )
    assert_scan_is_unroll(layer, **use)
    layer = nn.Bidirectional(nn.Stacked(cell, between), nn.RNNCell(cell.input_size, 3))
    assert_scan_is_unroll(layer, **use)
