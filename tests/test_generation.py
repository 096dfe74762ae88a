"""Text generated in a compiled loop: the same characters as one call of the model at a time.

Compiling takes seconds a model, so that most models run as the Python that is emitted for them, in
a process without the compiler; a few are compiled in this one.
"""

import _thread
import itertools
import math
import os
import signal
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
from any_machine import PATIENCE
from hypothesis import given
from hypothesis import strategies as st

import tinyseq as ts
from tinyseq import errors, nn, ops, text
from tinyseq.errors import CompileError
from tinyseq.nested import mapped
from tinyseq.text import generation, language_model, sampling

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
        [sys.executable, __file__], env=env, capture_output=True, text=True, timeout=PATIENCE
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
    from tinyseq.text import writing

    whole = draw(lstm, 501)
    for operations in (0, 7 * 20_000):  # two symbols a call, and a few more
        monkeypatch.setattr(writing, "_ONE_CALL", operations)
        assert draw(lstm, 501) == whole
        assert draw(lstm, 500) == whole[:500]
    assert [draw(lstm, n) for n in range(4)] == [whole[:n] for n in range(4)]
    monkeypatch.setattr(generation, "_TOGETHER", 1)  # blocks of 1, 2, 4 … symbols
    rng = np.random.default_rng(0)
    stream = text.generate(lstm, SYMBOLS, "abba", 40, rng=rng, mode="compiled")
    assert "".join(stream) == whole[:40]


@pytest.mark.parametrize("mode", ["unroll", "compiled"])
def test_a_text_of_any_length_has_it(lstm, mode):
    for n in [*range(20), 47, 48, 49]:  # blocks of 16 and 32 symbols
        rng = np.random.default_rng(0)
        assert len([*text.generate(lstm, SYMBOLS, "abba", n, rng=rng, mode=mode)]) == n


@pytest.mark.parametrize("mode", ["unroll", "compiled"])
def test_the_likeliest_symbols_draw_nothing(lstm, mode):
    rng = np.random.default_rng(0)
    "".join(text.generate(lstm, SYMBOLS, "abba", 20, temperature=0, rng=rng, mode=mode))
    text.sample(lstm, SYMBOLS, "abba", 20, 0, rng, mode=mode)
    assert rng.random() == np.random.default_rng(0).random()


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
    st.one_of(st.floats(-30, 30, width=32), st.sampled_from([0.0, 1.0, -1e6, 1e6, 3e38])),
    min_size=1,
    max_size=70,
)
draws = st.one_of(st.floats(0, 1, exclude_max=True), st.sampled_from([0.0, 1 - 2**-53]))


@st.composite
def choices(draw):
    """Logits, and how to choose from them: something is always left to choose."""
    x = np.array(draw(logits), np.float32)
    few = st.lists(st.integers(0, len(x) - 1), max_size=len(x) - 1, unique=True)
    return x, sampling.Choice(
        draw(st.sampled_from([0, 1e-320, 1e-3, 0.5, 1.0, 7.0, 1e300])),
        draw(st.integers(0, 80)),
        draw(st.one_of(st.just(1.0), st.floats(0, 1, exclude_min=True))),
        np.array(draw(few), np.int64),
        None,
    )


@given(choices(), draws)
def test_a_symbol_is_drawn_as_by_searching_the_cumulative_probabilities(choice, at):
    x, how = choice
    i = picked(x, how, at)
    if how.temperature > 0:
        # A draw that is a rounding away from the edge of two symbols may go to either, and so may
        # a symbol that is a rounding away from the edge of the nucleus be in it or not.
        p, near = exact(x, how)
        edges = np.concatenate([[0.0], np.cumsum(p)])
        assert near or edges[i] - 1e-12 <= at <= edges[i + 1] + 1e-12
        assert near or p[i] > 0
        if near or (np.abs(edges - at).min() < 1e-12 and 0 < at < 1 - 1e-12):
            return
    assert i not in how.refused
    assert i == sampling.pick(x, at, how)


def picked(x: np.ndarray, how: sampling.Choice, at: float) -> int:
    from tinyseq.kernels.sampling import pick

    V = len(x)
    scratch = np.empty(V), np.empty(V, np.int64)
    most = how.top_k or V
    return pick(x.copy(), at, float(how.temperature), most, how.top_p, how.refused, *scratch)


def exact(x: np.ndarray, how: sampling.Choice) -> tuple[np.ndarray, bool]:
    """Each symbol's probability, by the words of the definition, and whether the edge of the
    nucleus is a rounding away.
    """
    left = [i for i in range(len(x)) if i not in how.refused]
    left.sort(key=lambda i: (-x[i], i))  # the likeliest first
    left = left[: how.top_k or None]
    with np.errstate(over="ignore"):
        p = np.exp((x[left].astype(np.float64) - x[left[0]]) / how.temperature)
    p /= p.sum()
    near = False
    if how.top_p < 1:
        before = np.cumsum(p) - p
        near = bool((np.abs(before - how.top_p) < 1e-12).any())
        p[before >= how.top_p] = 0
    out = np.zeros(len(x))
    out[left] = p / p.sum()
    return out, near


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("at", [0, 1, 4])
def test_no_symbol_is_drawn_from_what_is_not_finite(wrong, at):
    from tinyseq.kernels.sampling import NOT_FINITE

    for temperature in (0.0, 1.0):
        how = sampling.Choice(temperature, 3, 0.5, np.array([1]), None)
        x = np.arange(5, dtype=np.float32)
        assert picked(x, how, 0.5) != NOT_FINITE
        x[at] = wrong
        assert picked(x, how, 0.5) == NOT_FINITE


@pytest.mark.parametrize("mode", ["unroll", "compiled"])
def test_a_model_that_diverges_on_the_way_is_an_error(lstm, mode):
    weights = lstm.state_dict()
    late = next(c for c in draw(lstm) if c not in "ab" + draw(lstm)[:20])
    try:
        lstm.embedding.weight._data[SYMBOLS.encode(late)] = math.nan
        assert len(draw(lstm, 20, mode=mode)) == 20
        with pytest.raises(ValueError, match=r"for embedding\.weight holds nan, first at"):
            draw(lstm, mode=mode)
    finally:
        lstm.load_state_dict(weights)


# -- what is asked for ----------------------------------------------------------------------------

WORDS = text.Vocabulary.from_counts("abc", pad="<PAD>")  # PAD 0, UNK 1, EOS 2
MANY = text.Vocabulary.from_counts("abcdefghijklmnop", pad="<PAD>")  # as many as SYMBOLS


class Fixed(nn.Module):
    """The same logits whatever it reads."""

    def __init__(self, *logits: float) -> None:
        self.logits = np.array(logits)

    def forward(self, symbols, state):
        shape = (*symbols.shape, len(self.logits))
        return ts.Tensor(np.broadcast_to(self.logits, shape)), state


def written(m, prime="", length=100, seed=0, vocabulary=WORDS, **options):
    rng = np.random.default_rng(seed)
    return list(text.generate(m, vocabulary, prime, length, rng=rng, **options))


def sentences_model(vocabulary=WORDS, eos=0.0, **options):
    """Zeros leave an LSTM without biases where it is: these have some."""
    ts.seed(1)
    m = text.LanguageModel(len(vocabulary), **({"hidden_size": 12, "num_layers": 1} | options))
    m.head.weight._data *= 3
    for name, p in m.named_parameters():
        if name.endswith(("bias", ".b")):
            p._data += ts.random.generator().normal(size=p.shape)
    m.head.bias._data[vocabulary.eos] = eos
    return m.double()


@pytest.fixture(scope="module")
def many():
    """The model of `lstm`, so that its loop is compiled once, for sentences."""
    return sentences_model(MANY, 1.5, hidden_size=33, num_layers=2, embedding_size=7)


ASKED = [
    {},
    {"temperature": 0.7, "top_k": 3},
    {"top_p": 0.8, "allow_unknown": False},
    {"top_k": 5, "top_p": 0.8, "temperature": 2.0},
    {"temperature": 0},
    {"temperature": 0, "allow_unknown": False},
]


@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_what_is_drawn_follows_the_distribution_that_was_asked_for(asked):
    logits = np.array([3.0, 2.0, -np.inf, 1.5, 1.0, 0.0])
    logits[WORDS.eos] = -50.0
    n = 4000
    symbols = written(Fixed(*logits), length=n, **asked)
    assert len(symbols) == n
    how = sampling.choice(
        WORDS,
        asked.get("temperature", 1.0) or 1e-9,
        asked.get("top_k"),
        asked.get("top_p", 1.0),
        asked.get("allow_unknown", True),
    )
    p, _ = exact(logits, how)
    for i, symbol in enumerate(WORDS.symbols):
        error = 4 * math.sqrt(p[i] * (1 - p[i]) / n)
        assert symbols.count(symbol) / n == pytest.approx(p[i], abs=error)
    assert "<PAD>" not in symbols
    assert asked.get("allow_unknown", True) or "<UNK>" not in symbols


@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_compiled_texts_are_those_written_unrolled(many, asked):
    one, other = (
        [written(many, "ab", 60, seed, MANY, mode=mode, **asked) for seed in range(6)]
        for mode in ("unroll", "compiled")
    )
    assert one == other
    if asked.get("temperature") != 0:
        assert len({len(symbols) for symbols in one}) > 2  # <EOS> ends them, here and there
    one, other = batches(many, ["", "a", "abc", "", "cc", "b"] * 2, 30, **asked)
    assert one == other


def batches(m, primes, length, **options):
    """The same texts, unrolled and compiled."""
    for mode in ("unroll", "compiled"):
        rng = np.random.default_rng(3)
        yield text.generate_batch(m, MANY, primes, length, rng=rng, mode=mode, **options)


def test_a_batch_is_its_texts_one_by_one():
    m = sentences_model()
    primes = ["", "a", "abc", "", "cc", "b"]
    for options in ({"allow_unknown": False}, {"start": False}):
        given = [p for p in primes if p or "start" not in options]
        batch = text.generate_batch(m, WORDS, given, 30, temperature=0, **options)
        assert batch == [written(m, p, 30, temperature=0, **options) for p in given]
    assert len({tuple(symbols) for symbols in batch}) > 1
    assert text.generate_batch(m, WORDS, [""], 0) == [[]]


@pytest.mark.parametrize("parts", [1, 3])
def test_texts_are_shared_out_over_threads(many, parts, monkeypatch):
    from tinyseq.text import writing

    monkeypatch.setattr(writing, "_WORTH_SHARING", 0)
    monkeypatch.setattr(writing, "get_num_threads", lambda: parts)
    monkeypatch.setattr(writing, "_ONE_CALL", 1e5)  # several calls a block
    one, other = batches(many, ["a", "b", "c", "ab"], 100)
    assert one == other
    assert len(set(map(len, one))) == 4


def test_a_text_has_the_probability_that_the_model_says():
    """Of short sentences, how often each is written."""
    m = sentences_model(eos=1.0, hidden_size=4)
    n = 2000
    rng = np.random.default_rng(0)
    batch = text.generate_batch(m, WORDS, [""] * n, 2, rng=rng, mode="unroll")
    for symbols in ([], ["a"], ["<UNK>"], ["b"]):
        whole = [*WORDS.encode(symbols), WORDS.eos]
        left = 1.0  # <PAD> is never written
        for t in range(len(whole)):
            left *= 1 - math.exp(m.log_probabilities(whole[:t])[WORDS.pad])
        p = math.exp(m.log_probability(whole)) / left
        assert batch.count(symbols) / n == pytest.approx(p, abs=4 * math.sqrt(p / n))


def test_a_stream_has_no_first_symbol_of_a_sentence(lstm):
    """`sample` is `generate` without the zero vector, whatever the blocks are."""
    for mode in ("unroll", "compiled"):
        rng = np.random.default_rng(0)
        symbols = text.generate(lstm, SYMBOLS, "abba", 1500, start=False, rng=rng, mode=mode)
        assert "".join(symbols) == draw(lstm, 1500)
    m = sentences_model(eos=-9.0)
    assert written(m, "a") != written(m, "a", start=False)


def test_symbols_are_handed_out_before_the_text_ends():
    m = sentences_model(eos=-1e6)
    endless = text.generate(m, WORDS, length=None, rng=np.random.default_rng(0))
    m.train()
    first = list(itertools.islice(endless, 40))
    assert m.training  # the model is not held in evaluation mode in between
    assert first == written(m, length=40)
    assert first + list(itertools.islice(endless, 60)) == written(m, length=100)


def test_the_modes_leave_the_librarys_generator_alike(many):
    states = []
    for mode in ("unroll", "compiled"):
        ts.seed(4)
        list(text.generate(many, MANY, length=70, mode=mode))
        states.append(ts.random.get_state())
    assert states[0] == states[1]


def test_a_wide_beam_finds_the_likeliest_text():
    m = sentences_model()
    words = [i for i in range(len(WORDS)) if i not in (WORDS.eos, WORDS.pad, WORDS.unk)]
    found = text.beam_search(m, WORDS, "b", 2, 200, allow_unknown=False)
    assert len(found) == 1 + 3 + 9
    everything = []
    for n in range(3):
        everything += [list(s) for s in itertools.product(words, repeat=n)]
    assert sorted(h.symbols for h in found) == sorted(everything)
    prime = WORDS.encode("b").tolist()
    for h in found:
        whole = [*h.symbols, WORDS.eos] if h.ended else h.symbols
        p = 0.0  # of what is left when <PAD> and <UNK> are refused
        for t, i in enumerate(whole):
            log_p = m.log_probabilities([*prime, *whole[:t]])
            allowed = np.delete(log_p, [WORDS.pad, WORDS.unk])
            p += log_p[i] - math.log(np.exp(allowed).sum())
        assert h.log_probability == pytest.approx(p)
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
    best = WORDS.symbols_of(found[0].symbols)
    assert written(m, "b", 2, beam_width=200, allow_unknown=False) == best
    assert written(m, "b", 9, beam_width=1) == written(m, "b", 9, temperature=0)


# -- from a state, and by counting ----------------------------------------------------------------


def behind(m, *primes):
    """The state of a model that has read so many texts, of one length, from their beginning."""
    symbols = np.stack([[text.START, *MANY.encode(prime)] for prime in primes], axis=1)
    with nn.evaluation(m):
        return m(symbols)[1]


@pytest.mark.parametrize("mode", ["unroll", "compiled"])
def test_a_text_goes_on_from_a_state(many, mode):
    options = {"vocabulary": MANY, "mode": mode}
    whole = written(many, "abcdef", 40, **options)
    goes_on = {"state": behind(many, "abc"), "start": False}
    assert written(many, "def", 40, **options, **goes_on) == whole
    assert written(many, "f", 40, state=behind(many, "abcde"), start=False, **options) == whole
    # as nested lists of arrays, and for several texts, whose primes have different lengths
    plain = [[part.numpy() for part in layer] for layer in behind(many, "abc")]
    assert written(many, "def", 40, state=plain, start=False, **options) == whole
    texts = ["abcdef", "cbab", "bbbad"]
    states = behind(many, *(t[:3] for t in texts))
    rests = [t[3:] for t in texts]
    one, other = (
        text.generate_batch(many, MANY, *given, 30, rng=np.random.default_rng(3), mode=mode, **how)
        for given, how in (([rests], {"state": states, "start": False}), ([texts], {}))
    )
    assert one == other


def test_what_is_written_depends_on_the_state(many):
    state = many.initial_state(1, np.float64)
    assert written(many, "", 40, vocabulary=MANY, state=state) == written(
        many, "", 40, vocabulary=MANY
    )
    genres = [
        mapped(lambda part, s=sign: ts.Tensor(s * np.ones(part.shape)), state) for sign in (2, -2)
    ]
    found = [
        "".join(written(many, "", 40, vocabulary=MANY, state=genre, mode=mode, temperature=0))
        for genre in genres
        for mode in ("unroll", "compiled")
    ]
    assert found[0] == found[1] != found[2] == found[3]
    beams = [text.beam_search(many, MANY, "de", 6, 4, **o) for o in (
        {"state": behind(many, "abc"), "start": False}, {"state": genres[0]})]  # fmt: skip
    assert beams[0] == text.beam_search(many, MANY, "abcde", 6, 4)
    best = MANY.symbols_of(beams[1][0].symbols)
    assert written(many, "de", 6, vocabulary=MANY, beam_width=4, state=genres[0]) == best


def test_a_state_of_other_texts_is_refused_at_once(many):
    for ask in (
        lambda: text.generate(many, MANY, state=behind(many, "a", "b")),
        lambda: text.generate(many, MANY, state=behind(many, "a", "b"), beam_width=2),
        lambda: text.beam_search(many, MANY, state=behind(many, "a", "b")),
    ):
        with pytest.raises(
            ts.errors.ShapeError, match=r"shape \(2, 33\).* write: 1\. Each .*\(1, …"
        ):
            ask()
    with pytest.raises(ts.errors.ShapeError, match=r"\(1, 33\), and texts to write: 2\."):
        text.generate_batch(many, MANY, ["a", "b"], state=behind(many, "a"))


COUNTED = "abcab bacbaabc cba"
LETTERS = text.Vocabulary(COUNTED)


@pytest.mark.parametrize("smoothing", ["kneser-ney", "add-k", None])
@pytest.mark.parametrize("n", [1, 2, 4])
def test_an_ngram_writes_as_a_network_does(n, smoothing):
    space = LETTERS.symbols.index(" ")
    for start in (None, space):
        m = text.NGram(n, 4, smoothing, start=start).fit(LETTERS.encode(COUNTED))
        for prime in ("", "a", "cbaab"):
            options = {"vocabulary": LETTERS, "temperature": 0.7}
            rng = np.random.default_rng(0)
            expected = m.sample(60, LETTERS.encode(prime), rng, 0.7)
            assert written(m, prime, 60, **options) == LETTERS.symbols_of(expected)
            if prime and start is None:  # without a start, there is nothing before the prime
                assert written(m, prime, 60, start=False, **options) == LETTERS.symbols_of(expected)
        # each text by itself, though primes have different lengths
        primes = ["", "a", "cbaab", "ba"]
        batch = text.generate_batch(m, LETTERS, primes, 20, temperature=0)
        assert batch == [written(m, p, 20, 0, LETTERS, temperature=0) for p in primes]
        assert "".join(batch[2]) == text.sample(m, LETTERS, "cbaab", 20, 0)
        # a beam finds all that is possible, and nothing else
        before = [*([] if start is None else [start]), *LETTERS.encode("ab")]
        nats = {s: m.log_probability(s, before) for s in itertools.product(range(4), repeat=3)}
        found = text.beam_search(m, LETTERS, "ab", 3, 70)
        assert {tuple(h.symbols): pytest.approx(h.log_probability) for h in found} == {
            s: p for s, p in nats.items() if p > -math.inf
        }
        best = LETTERS.symbols_of(found[0].symbols)
        assert written(m, "ab", 3, 0, LETTERS, beam_width=70) == best


def test_sentences_by_counting_start_and_end():
    sentences = [["a", "b"], ["a", "c", "b"]]
    vocabulary = text.Vocabulary.from_counts("abc", bos="<BOS>")
    ends = [[vocabulary.bos, *vocabulary.encode(s), vocabulary.eos] for s in sentences]
    m = text.NGram(3, len(vocabulary), None, start=vocabulary.bos).fit(np.concatenate(ends))
    batch = text.generate_batch(m, vocabulary, [""] * 20, rng=np.random.default_rng(0))
    assert {tuple(t) for t in batch} == set(map(tuple, sentences))
    first, second = text.rank(m, vocabulary, [["c", "b"], ["a", "b"]])
    assert first == (["a", "b"], pytest.approx(math.log(1 / 2)), pytest.approx(math.log(1 / 2) / 3))
    assert second.log_probability == -math.inf
    assert text.likeliest(m, vocabulary, "", 1) == [("a", 1.0)]
    assert text.likeliest(m, vocabulary, "ac", 1) == [("b", 1.0)]


def test_what_counting_cannot_do():
    m = text.NGram(2, 4).fit(LETTERS.encode(COUNTED))
    with pytest.raises(ValueError, match="an NGram has no state: what came before is its prime"):
        text.generate(m, LETTERS, state=((np.zeros((1, 2)),),))
    with pytest.raises(ts.errors.CompileError, match=r"takes a text\.LanguageModel, and NGram has"):
        list(text.generate(m, LETTERS, mode="compiled"))
    with pytest.raises(ValueError, match="has counted nothing yet"):
        list(text.generate(text.NGram(2), LETTERS))


def test_the_beginning_is_never_written():
    vocabulary = text.Vocabulary.from_counts("ab", bos="<BOS>", eos=None)
    symbols = written(Fixed(0.0, 9.0, 0.0, 0.0), vocabulary=vocabulary)
    assert set(symbols) == {"<UNK>", "a", "b"}


def test_what_cannot_be_asked_for():
    m = sentences_model()
    for name, wrong in (
        ("temperature", [-1, math.nan, math.inf]),
        ("top_k", [0, -1, 1.5]),
        ("top_p", [0, 1.1, math.nan]),
        ("length", [-1]),
        ("mode", ["fast"]),
        ("beam_width", [0]),
    ):
        for value in wrong:
            with pytest.raises(ValueError, match=f"{name if name != 'beam_width' else 'width'}"):
                text.generate(m, WORDS, **{name: value})  # at once, not at the first symbol
    with pytest.raises(ValueError, match="the prime is empty, and start=False"):
        text.generate(m, WORDS, start=False)
    with pytest.raises(ValueError, match="beam_width=3 draws nothing"):
        text.generate(m, WORDS, beam_width=3, top_k=2)
    with pytest.raises(ValueError, match="a beam search needs a length"):
        text.generate(m, WORDS, beam_width=3, length=None)
    with pytest.raises(ValueError, match="primes is a list"):
        text.generate_batch(m, WORDS, [])
    with pytest.raises(TypeError, match="primes='ab' must be a series of strings or lists"):
        text.generate_batch(m, WORDS, "ab")
    only = text.Vocabulary.from_counts({"<UNK>": 1, "a": 1}, eos=None)
    with pytest.raises(ValueError, match="every symbol of the vocabulary is refused"):
        list(text.generate(Fixed(1.0), only, allow_unknown=False))
    m.head.bias._data[0] = math.nan
    with pytest.raises(ValueError, match=r"not finite, for head\.bias holds nan, first at"):
        written(m)


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


@pytest.mark.unrolled("says why the text is written unrolled, not why a layer is")
@pytest.mark.parametrize(
    "make",
    [bidirectional, in_reverse, branching, noisy, more_logits_than_symbols, other_embedding],
)
def test_what_has_no_compiled_loop_is_written_unrolled_and_says_so_once(make, monkeypatch):
    m, why = make()
    monkeypatch.setattr(generation, "COMPILED_FROM", 1)
    monkeypatch.setattr(errors, "_said", set())
    expected = draw(m, 30, mode="unroll")
    with pytest.raises(CompileError, match=why):
        draw(m, 30)
    with pytest.warns(RuntimeWarning, match=f"{why}.* It runs unrolled") as caught:
        assert draw(m, 30, mode="auto") == expected
    assert caught[0].filename == __file__
    assert draw(m, 30, mode="auto") == expected


def test_a_forward_of_ones_own_is_called():
    ts.seed(0)
    m = Sharp(V, 12, 1)
    with pytest.raises(CompileError, match="Sharp has a forward of its own"):
        draw(m, 30)
    assert draw(m, 30, mode="auto") == draw(m, 30, mode="unroll")


def test_it_is_compiled_from_a_thousand_characters_on(monkeypatch):
    from tinyseq.text import writing

    lengths = []

    class Writing:
        def __init__(self, *_):
            pass

        def go_on(self, draws, ended, written):
            lengths.append(len(draws))
            written[...] = 0
            return True

    monkeypatch.setattr(writing, "Writing", Writing)
    m = model()
    draw(m, generation.COMPILED_FROM - 100, mode="auto")
    assert not lengths
    draw(m, 99, mode="unroll")
    draw(m, 99, mode="auto")
    assert not lengths
    assert draw(m, 5, mode="auto") == "aaaaa"
    assert lengths == [5]
    layer = m.recurrent.layers[0]
    layer.mode = "unroll"
    draw(m, 6, mode="auto")
    with ts.detect_anomaly():
        draw(m, 7)
    assert lengths == [5]
    with pytest.raises(ValueError, match="mode='fast' is unknown"):
        draw(m, mode="fast")


def test_ctrl_c_ends_a_long_text(lstm, monkeypatch):
    """It also says that other threads run meanwhile: the timer's."""
    from tinyseq.text import writing

    draw(lstm, 2)
    calls, parallel = [], writing.parallel

    def counted(task, parts):
        if not calls:
            timer.start()
        calls.append(parts)
        parallel(task, parts)

    monkeypatch.setattr(writing, "parallel", counted)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.2, _thread.interrupt_main)
    try:
        with pytest.raises(KeyboardInterrupt):
            draw(lstm, 5_000_000)
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, handler)
    assert len(calls) < 20  # of 220, each some tenths of a second


if __name__ == "__main__":
    warnings.simplefilter("error")
    check_plain_models()


def test_what_cannot_be_written():
    model, vocabulary = text.LanguageModel(3, 4, 1), text.Vocabulary("abc")
    with pytest.raises(TypeError, match="length=None must be a whole number"):
        text.generate_batch(model, vocabulary, ["a"], None)
    with pytest.raises(ValueError, match="the vocabulary has 1 characters"):
        list(text.generate(model, text.Vocabulary("a"), length=30))
    with pytest.raises(ValueError, match="knows 3 symbols, and the vocabulary 1"):
        text.likeliest(model, text.Vocabulary("a"))
    with pytest.raises(ValueError, match="mode='typo' is unknown"):
        text.generate(model, vocabulary, length=3, beam_width=2, mode="typo")
    assert list(text.generate(model, vocabulary, length=0, beam_width=2)) == []
