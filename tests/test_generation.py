"""Text generated in a compiled loop: the same characters as one call of the model at a time.

Compiling takes seconds a model, so that most models run as the Python that is emitted for them, in
a process without the compiler; a few are compiled in this one.
"""

import _thread
import math
import os
import signal
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyseq as ts
from tinyseq import nn, ops, text
from tinyseq.errors import CompileError
from tinyseq.text import language_model

SYMBOLS = text.Vocabulary("abcdefghijklmnopqrs")
V = len(SYMBOLS)


class Leaky(nn.Module):
    """A cell of a user's own: two weights for x, which it also passes on."""

    def __init__(self, D: int, H: int) -> None:
        self.input_size, self.hidden_size = D, H
        self.w = nn.Parameter(np.random.default_rng(1).normal(size=(D, H)) / math.sqrt(D))
        self.v = nn.Parameter(np.random.default_rng(2).normal(size=(D, H)) / math.sqrt(D))
        self.u = nn.Parameter(np.random.default_rng(3).normal(size=(H, H)) / math.sqrt(H))

    def initial_state(self, batch_size, dtype=np.float32):
        return (ts.Tensor(np.zeros((batch_size, self.hidden_size), dtype)),)

    def forward(self, x, state):
        (h,) = state
        keep = ops.sigmoid(x @ self.w)
        return (keep * h + (1 - keep) * ops.tanh(x @ self.v + h @ self.u) + 0.1 * x[:, :1],)


class Branching(Leaky):
    """Control flow on values: another step for another x."""

    def forward(self, x, state):
        (h,) = state
        return (ops.tanh(h @ self.u + x @ self.w),) if x.numpy()[0, 0] > 0 else (h @ self.u,)


class Noisy(Leaky):
    """It draws in evaluation too."""

    def noise(self, x, state):
        return ts.random.generator().random((len(x), *state[0].shape)).astype(x.dtype)

    def forward(self, x, state, noise):
        return (super().forward(x, state)[0] * noise,)


def model(
    recurrent: nn.Module | None = None, dtype=np.float64, H: int = 12, seed: int = 0, **options
) -> text.LanguageModel:
    """One whose logits are far enough apart for its texts to tell one state from another."""
    ts.seed(seed)
    m = text.LanguageModel(V, H, **{"num_layers": 1, **options})
    if recurrent is not None:
        m.recurrent = recurrent
    m.head.weight._data *= 3
    return m.astype(dtype)


def draw(m, length=200, temperature=1.0, mode="compiled", seed=0):
    rng = np.random.default_rng(seed)
    return text.sample(m, SYMBOLS, "abba", length, temperature, rng, mode=mode)


def plain_models():
    """Of every kind: cells, sizes, depth, wrappers, dtypes."""
    for cell in language_model.CELLS:
        for layers in (1, 2):
            yield f"{cell}, {layers}", model(cell=cell, num_layers=layers, dropout=0.3)
    yield "D = 5", model(embedding_size=5, num_layers=2)
    yield "float32", model(dtype=np.float32)
    for variant in ("reset_before", "simplified"):
        yield variant, model(nn.GRU(12, 12, variant=variant))
    yield "peephole", model(nn.LSTM(12, 12, peephole="new"))
    yield "layer-normed", model(nn.LSTM(12, 12, 2, layer_norm=True))
    yield "a cell of one's own", model(nn.Stacked(nn.Recurrent(Leaky(12, 12)), Leaky(12, 12)))
    yield "a layer", model(nn.Recurrent(nn.GRUCell(12, 12)))
    wrapped = nn.LearnedState(nn.Zoneout(nn.LSTMCell(12, 12), (0.1, 0.3)), ([0.1] * 12, [0.2] * 12))
    yield "wrapped", model(nn.Stacked(nn.VariationalDropout(nn.RNNCell(12, 12)), wrapped))
    cell = nn.RNNCell(12, 12)
    yield "the same cell twice", model(nn.Stacked(cell, nn.Stacked(cell, dropout=0.5), dropout=0.2))
    without = model()
    without.head = nn.Linear(12, V, bias=False).double()
    yield "no bias", without
    few = model()
    few.head = nn.Linear(12, 4).double()
    yield "fewer logits than symbols", few
    large = model()
    large.embedding.weight._data[...] = 1e-3 * np.arange(V)[:, None]
    yield "symbols far apart", large


def check_plain_models() -> None:
    for name, m in plain_models():
        for temperature in (0, 0.5, 1.0):
            texts = [draw(m, 60, temperature, mode) for mode in ("unroll", "compiled")]
            assert texts[0] == texts[1], (name, temperature)
            assert temperature == 0 or len(set(texts[0])) > 2, (name, temperature)


def test_every_kind_of_model_writes_what_it_writes_unrolled():
    env = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, __file__], env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def lstm():
    return model(num_layers=2, embedding_size=7, H=33)


@pytest.mark.parametrize("temperature", [0, 0.5, 1.0])
def test_two_thousand_characters_are_the_same(lstm, temperature):
    assert draw(lstm, 2000, temperature) == draw(lstm, 2000, temperature, "unroll")
    assert draw(lstm, 300, 1.0, seed=1) != draw(lstm, 300, 1.0, seed=2)


def test_a_cell_of_ones_own_in_float32():
    m = model(nn.Recurrent(Leaky(12, 12)), dtype=np.float32)
    assert draw(m, 300) == draw(m, 300, mode="unroll")


def test_the_state_is_carried_from_call_to_call(lstm, monkeypatch):
    from tinyseq.compiler import generate

    whole = draw(lstm, 501)
    for operations in (0, 7 * 20_000):  # two symbols a call, and a few more
        monkeypatch.setattr(generate, "_ONE_CALL", operations)
        assert draw(lstm, 501) == whole
        assert draw(lstm, 500) == whole[:500]
    assert [draw(lstm, n) for n in range(4)] == [whole[:n] for n in range(4)]


def test_what_was_trained_meanwhile_counts(lstm):
    before, weights = draw(lstm), lstm.state_dict()
    try:
        for p in lstm.parameters():
            p._data *= 0.5
        assert draw(lstm) == draw(lstm, mode="unroll") != before
    finally:
        lstm.load_state_dict(weights)
    assert draw(lstm) == before


def test_the_model_and_the_librarys_generator_are_left_as_they_were(lstm):
    lstm.train()
    lstm.recurrent.layers[1].eval()
    parts = [m for _, m in lstm.named_modules()]
    attributes = [dict(vars(m)) for m in parts]
    weights = lstm.state_dict()
    ts.seed(3)
    text.sample(lstm, SYMBOLS, "a", 50, mode="unroll")
    after = ts.random.get_state()
    ts.seed(3)
    text.sample(lstm, SYMBOLS, "a", 50, mode="compiled")
    assert ts.random.get_state() == after
    for part, was in zip(parts, attributes, strict=True):
        now = dict(vars(part))
        assert now.pop("_steps", 0) >= was.pop("_steps", 0)
        assert now == was
    assert all((weights[k] == v).all() for k, v in lstm.state_dict().items())
    lstm.train()


# -- the draw -------------------------------------------------------------------------------------

logits = st.lists(
    st.one_of(st.floats(-30, 30, width=32), st.sampled_from([0.0, -1e6, 1e6, 3e38])),
    min_size=1,
    max_size=70,
)
draws = st.one_of(st.floats(0, 1, exclude_max=True), st.sampled_from([0.0, 1 - 2**-53]))


@given(logits, st.sampled_from([0, 1e-320, 1e-3, 0.5, 1.0, 7.0, 1e300]), draws)
def test_a_symbol_is_drawn_as_by_searching_the_cumulative_probabilities(values, temperature, at):
    from tinyseq.kernels.sampling import pick

    x = np.array(values, np.float32)
    scratch = np.empty(len(x))
    i = pick(x, float(temperature), at, scratch)
    if (
        temperature > 0
    ):  # a draw that is a rounding away from the edge of two symbols may go to either
        edges = np.concatenate([[0.0], np.cumsum(_probabilities(x, temperature))])
        assert edges[i] - 1e-12 <= at <= edges[i + 1] + 1e-12
        assert _probabilities(x, temperature)[i] > 0
        if np.abs(edges - at).min() < 1e-12 and 0 < at < 1 - 1e-12:
            return
    assert i == language_model._pick(x, temperature, at)


def _probabilities(x: np.ndarray, temperature: float) -> np.ndarray:
    with np.errstate(over="ignore"):
        p = np.exp((x.astype(np.float64) - x.max()) / temperature)
    return p / p.sum()


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("at", [0, 1, 4])
def test_no_symbol_is_drawn_from_what_is_not_finite(wrong, at):
    from tinyseq.kernels.sampling import REFUSED, pick

    for temperature in (0.0, 1.0):
        x = np.arange(5, dtype=np.float32)
        assert pick(x, temperature, 0.5, np.empty(5)) != REFUSED
        x[at] = wrong
        assert pick(x, temperature, 0.5, np.empty(5)) == REFUSED


@pytest.mark.parametrize("mode", ["unroll", "compiled"])
def test_a_model_that_diverges_on_the_way_is_an_error(lstm, mode):
    weights = lstm.state_dict()
    late = next(c for c in draw(lstm) if c not in "ab" + draw(lstm)[:20])
    try:
        lstm.embedding.weight._data[SYMBOLS.encode(late)] = math.nan
        assert len(draw(lstm, 20, mode=mode)) == 20
        with pytest.raises(ValueError, match="not finite: its training has diverged"):
            draw(lstm, mode=mode)
    finally:
        lstm.load_state_dict(weights)


# -- when, and when not ---------------------------------------------------------------------------


def bidirectional():
    m = model(nn.Stacked(nn.Bidirectional(nn.RNNCell(12, 6), nn.RNNCell(12, 6))))
    return m, "Bidirectional is no layer"


def in_reverse():
    return model(nn.Recurrent(nn.RNNCell(12, 12), reverse=True)), "Recurrent is no layer .*reverse"


def branching():
    return model(
        nn.Recurrent(Branching(12, 12))
    ), r"Generation cannot be compiled: .*numpy\(\) reads the value"


def noisy():
    return model(nn.Recurrent(Noisy(12, 12))), "Noisy draws random numbers in evaluation"


def more_logits_than_symbols():
    m = model()
    m.head = nn.Linear(12, V + 1).double()
    m.head.bias._data[-1] = -1e6
    return m, "logits for 20 symbols, embeddings for 19"


class Scaled(nn.Embedding):
    def forward(self, indices):
        return super().forward(indices) * 0.5


def other_embedding():
    m = model()
    m.embedding = Scaled(V, 12).double()
    return m, "Scaled is not nn.Embedding"


class Sharp(text.LanguageModel):
    def forward(self, indices, state=None):
        y, state = super().forward(indices, state)
        return 2 * y, state


@pytest.mark.parametrize(
    "make",
    [bidirectional, in_reverse, branching, noisy, more_logits_than_symbols, other_embedding],
)
def test_what_has_no_compiled_loop_is_written_unrolled_and_says_so_once(make, monkeypatch):
    m, why = make()
    monkeypatch.setattr(language_model, "COMPILED_FROM", 1)
    monkeypatch.setattr(language_model, "_said", set())
    expected = draw(m, 30, mode="unroll")
    with pytest.raises(CompileError, match=why):
        draw(m, 30)
    with pytest.warns(RuntimeWarning, match=f"{why}.* It runs unrolled") as caught:
        assert draw(m, 30, mode=None) == expected
    assert caught[0].filename == __file__
    assert draw(m, 30, mode=None) == expected


def test_a_forward_of_ones_own_is_called():
    ts.seed(0)
    m = Sharp(V, 12, 1)
    with pytest.raises(CompileError, match="Sharp has a forward of its own"):
        draw(m, 30)
    assert draw(m, 30, mode=None) == draw(m, 30, mode="unroll")


def test_it_is_compiled_from_a_thousand_characters_on(monkeypatch):
    from tinyseq.compiler import generate

    lengths = []

    def write(model, logits, state, written, *_):
        lengths.append(len(written))
        written[1:] = 0
        return len(written)

    monkeypatch.setattr(generate, "write", write)
    m = model()
    draw(m, language_model.COMPILED_FROM - 100, mode=None)
    assert not lengths
    draw(m, 99, mode="unroll")
    draw(m, 99, mode=None)
    assert not lengths
    assert draw(m, 5, mode=None).endswith("aaaa")
    assert lengths == [5]
    layer = m.recurrent.layers[0]
    layer.mode = "unroll"
    draw(m, 6, mode=None)
    with ts.detect_anomaly():
        draw(m, 7)
    assert lengths == [5]
    with pytest.raises(ValueError, match="mode='fast' is unknown"):
        draw(m, mode="fast")


def test_ctrl_c_ends_a_long_text(lstm):
    """It also says that other threads run meanwhile: the timer's."""
    draw(lstm, 2)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.2, _thread.interrupt_main)
    start = time.perf_counter()
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            draw(lstm, 5_000_000)
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, handler)
    assert time.perf_counter() - start < 3


if __name__ == "__main__":
    warnings.simplefilter("error")
    check_plain_models()
