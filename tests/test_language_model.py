"""Sentences: their probability by the chain rule, perplexity, ranking, and the next symbol."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyseq as ts
from tinyseq import errors, functional, nn, text
from tinyseq.text import language_model

V, EOS = 5, 1


def model(seed: int = 0, cell: str = "gru", dtype=np.float64, **options) -> text.LanguageModel:
    """One whose probabilities are far from equal, and differ from state to state."""
    ts.seed(seed)
    m = text.LanguageModel(V, 6, 1, cell, **options)
    m.head.weight._data *= 3
    return m.astype(dtype)


WORDS = text.Vocabulary.from_counts({"an": 3, "apple": 2, "pear": 1})
SENTENCES = st.lists(st.integers(0, V - 1), max_size=9)


def by_hand(m: text.LanguageModel, sentence: list[int]) -> float:
    """The chain rule as the notes write it, one call of the layers a symbol."""
    H = m.embedding.embedding_dim
    x, state, total = ts.Tensor(np.zeros((1, 1, H))), None, 0.0
    for symbol in sentence:
        y, state = m.recurrent(x, state)
        p = functional.softmax(m.head(y)).numpy()[0, 0]
        total += math.log(p[symbol])
        x = m.embedding(np.array([[symbol]]))
    return total


# -- the zero vector ------------------------------------------------------------------------------


def test_the_first_input_is_the_zero_vector():
    m = model()
    symbols = np.array([[text.START, 3], [2, text.START], [0, 1]])
    x = np.zeros((3, 2, 6))
    for t, b in ((0, 1), (1, 0), (2, 0), (2, 1)):
        x[t, b] = m.embedding.weight.numpy()[symbols[t, b]]
    y, _ = m.recurrent(ts.Tensor(x))
    np.testing.assert_array_equal(m(symbols)[0].numpy(), m.head(y).numpy())


def test_no_gradient_goes_to_the_zero_vector():
    m = model()
    logits, _ = m(np.array([[text.START], [2]]))
    logits.sum().backward()
    assert np.flatnonzero(m.embedding.weight.grad.numpy().any(axis=1)).tolist() == [2]


@pytest.mark.parametrize("wrong", [-2, V])
def test_other_symbols_that_do_not_exist_are_refused(wrong):
    with pytest.raises(IndexError, match=rf"index {wrong} is outside of 0 … 4"):
        model()(np.array([[text.START], [wrong]]))
    with pytest.raises(errors.DtypeError, match="whole numbers, not float64"):
        model()(np.array([[0.5]]))


def test_a_padded_batch_of_sentences_trains_as_they_do_one_by_one():
    sentences = [[2, 3, EOS], [EOS], [4, 4, 2, 3, 0, EOS]]
    ((inputs, targets, _),) = text.Batches([[text.START, *s] for s in sentences], 3)
    m = model(cell="lstm")
    functional.cross_entropy(m(inputs)[0], targets, "sum").backward()
    together = {n: p.grad.numpy() for n, p in m.named_parameters()}
    m.zero_grad()
    total = 0.0
    for s in sentences:
        logits, _ = m(np.array([[text.START, *s[:-1]]]).T)
        loss = functional.cross_entropy(logits, np.array([s]).T, "sum")
        loss.backward()
        total += loss.item()
    assert total == pytest.approx(-m.log_probabilities_of(sentences).sum())
    for name, p in m.named_parameters():
        np.testing.assert_allclose(p.grad.numpy(), together[name], rtol=1e-9, atol=1e-11)


# -- sentences ------------------------------------------------------------------------------------


@given(SENTENCES, st.integers(0, 3))
def test_the_chain_rule(sentence, seed):
    m = model(seed)
    assert m.log_probability(sentence) == pytest.approx(by_hand(m, sentence), rel=1e-9, abs=1e-12)
    each = [m.log_probabilities(sentence[:t])[s] for t, s in enumerate(sentence)]
    assert m.log_probability(sentence) == pytest.approx(sum(each), rel=1e-9, abs=1e-12)


@given(st.lists(SENTENCES, max_size=8), st.integers(1, 3), st.integers(1, 40))
def test_sentences_of_any_lengths_are_read_at_once(sentences, batch, numbers):
    m = model()
    alone = [m.log_probability(s) for s in sentences]
    with pytest.MonkeyPatch.context() as patch:  # in small batches, and few steps at a time
        patch.setattr(language_model, "_BATCH", batch)
        patch.setattr(language_model, "_LOGITS", numbers)
        found = m.log_probabilities_of(sentences)
    assert found.shape == (len(sentences),)
    np.testing.assert_allclose(found, alone, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("longest", [0, 1, 4])
def test_all_sentences_together_have_probability_one(longest):
    """Those that end within so many words, and the beginnings of all that do not."""
    m = model()
    words = [i for i in range(V) if i != EOS]
    ended = [(*s, EOS) for n in range(longest + 1) for s in itertools.product(words, repeat=n)]
    going = list(itertools.product(words, repeat=longest + 1))
    p = np.exp(m.log_probabilities_of([*ended, *going]))
    assert p.sum() == pytest.approx(1, abs=1e-12)
    assert np.exp(m.log_probabilities()).sum() == pytest.approx(1, abs=1e-12)


def test_a_probability_that_vanishes_is_no_minus_infinity():
    m = model(dtype=np.float32)
    m.head.bias._data[:] = [0, 0, 0, 0, -1e4]
    assert m.log_probability([4] * 200) == pytest.approx(-2e6, rel=1e-2)
    assert m.log_probabilities()[4] == pytest.approx(-1e4, rel=1e-2)
    assert m.perplexity([[4] * 200]) == math.exp(709)


def test_a_perplexity_counts_every_symbol():
    m = model()
    sentences = [[2, 3, EOS], [EOS], [4, 4, 2, 3, 0, EOS]]
    nats = -sum(m.log_probability(s) for s in sentences) / 10
    assert m.perplexity(sentences) == pytest.approx(math.exp(nats))
    m.head.weight._data[:] = m.head.bias._data[:] = 0
    assert m.perplexity(sentences) == pytest.approx(V)


NOTES = [["an", "apple"], ["pear", "an", "pear", "<EOS>"]]


@pytest.mark.parametrize("start", [None, EOS])
@pytest.mark.parametrize("smoothing", ["kneser-ney", "add-k", None])
def test_one_meaning_of_perplexity(start, smoothing):
    """exp(−1/N Σ ln p) over all symbols that are given, the first after the start of a sentence."""
    counted = [EOS, *(i for s in NOTES for i in WORDS.encode([*s, "<EOS>"]))]
    for m in (model(), text.NGram(2, V, smoothing, start=start).fit(counted)):
        rows = [WORDS.encode(s) for s in NOTES]
        p = [[math.exp(m.log_probabilities(r[:t])[r[t]]) for t in range(len(r))] for r in rows]
        expected = float(np.prod(np.concatenate(p))) ** (-1 / 6)
        assert text.perplexity(p) == pytest.approx(expected, rel=1e-12)
        for several in (rows, NOTES, iter(NOTES), [r.tolist() for r in rows]):
            assert m.perplexity(several, vocabulary=WORDS) == pytest.approx(expected, rel=1e-12)
        for one in (rows[0], NOTES[0], tuple(NOTES[0]), rows[0].tolist(), rows[:1], NOTES[:1]):
            found = m.perplexity(one, vocabulary=WORDS)
            assert found == pytest.approx(text.perplexity(p[0]), rel=1e-12)
        assert m.perplexity(rows) == m.perplexity(rows, vocabulary=WORDS)
        # two symbols of the second sentence, as they are after the first two
        for context in (rows[1][:2], NOTES[1][:2]):
            found = m.perplexity(rows[1][2:], context, vocabulary=WORDS)
            assert found == pytest.approx(text.perplexity(p[1][2:]), rel=1e-12)


def test_perplexities_of_characters():
    letters = text.Vocabulary("abc")
    for m in (text.NGram(2, 3).fit([0, 1, 2, 0, 1, 1]), text.LanguageModel(3, 4, 1, "rnn")):
        one = m.perplexity([0, 1])
        for same in ("ab", ["ab"], ["a", "b"], [["a", "b"]], np.array([0, 1]), [np.array([0, 1])]):
            assert m.perplexity(same, vocabulary=letters) == one
        two = m.perplexity([[0, 1], [2]])
        assert two != one
        for same in (["ab", "c"], ["ab", ["c"]], [[0, 1], "c"], [np.array([0, 1]), "c"]):
            assert m.perplexity(same, vocabulary=letters) == two
        assert m.perplexity("b", "a", vocabulary=letters) == m.perplexity([1], [0])
        with pytest.raises(TypeError, match=r"'ab' is made of strings\. Pass vocabulary="):
            m.perplexity("ab")
        with pytest.raises(TypeError, match="'ab' is made of strings"):
            m.perplexity([0], "ab")


def test_perplexities_of_probabilities():
    assert text.perplexity(np.full((2, 3), 1 / 7)) == pytest.approx(7)
    assert text.perplexity([1.0, 1]) == 1
    assert text.perplexity([0.5, 0.0]) == math.inf
    assert text.perplexity([[0.5], [0.25, 0.125]]) == pytest.approx(4)
    for none in ([], [[], []]):
        with pytest.raises(ValueError, match="at least one symbol, and probabilities has none"):
            text.perplexity(none)
    for wrong in ([1.5], [0.5, -0.1], [math.nan], [[0.5], [2]]):
        with pytest.raises(ValueError, match="probabilities are from 0 to 1, and not"):
            text.perplexity(wrong)
    with pytest.raises(TypeError, match="probabilities are real numbers, not 'a'"):
        text.perplexity([0.5, "a"])


def test_evaluation_leaves_no_trace():
    m = model(dropout=0.5)
    before = ts.random.get_state()
    assert m.log_probability([2, 3]) == m.log_probability([2, 3])
    np.testing.assert_array_equal(m.log_probabilities([2]), m.log_probabilities([2]))
    assert m.training
    assert ts.random.get_state() == before


def test_what_is_no_sentence():
    m = model()
    with pytest.raises(ValueError, match=r"one row of symbols \(T,\).*shape \(1, 2\)"):
        m.log_probability([[1, 2]])
    with pytest.raises(IndexError, match="index 5 is outside"):
        m.log_probability([1, 5])
    with pytest.raises(IndexError, match="index -1 is outside"):
        m.log_probability([text.START, 1])
    with pytest.raises(ValueError, match="at least one symbol"):
        m.perplexity([[], []])
    m.head.bias._data[2] = math.nan
    for ask in (lambda: m.log_probability([1]), m.log_probabilities):
        with pytest.raises(ValueError, match=r"not finite, for head\.bias holds nan, first at"):
            ask()


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (lambda: nn.GRU(6, 3, bidirectional=True), r"recurrent\.layers\.0 \(Bidirectional\)"),
        (lambda: nn.Recurrent(nn.GRUCell(6, 6), reverse=True), r"recurrent \(Recurrent\)"),
    ],
)
def test_a_model_that_has_seen_the_next_symbol_gives_no_probability(layer, named):
    m = model(dtype=np.float32)
    m.recurrent = layer()
    asked = {
        "score": lambda: text.score(m, np.arange(9) % V),
        "log_probability": lambda: m.log_probability([1, 2]),
    }
    for who, ask in asked.items():
        with pytest.raises(ValueError, match=rf"^{who}: {named} reads from the end.*forwards"):
            ask()
    for ask in (
        lambda: m.log_probabilities_of([[1], [2]]),
        lambda: m.perplexity([[1, 2]]),
        lambda: text.rank(m, WORDS, [["an"], ["pear"]]),
    ):
        with pytest.raises(ValueError, match="reads from the end"):
            ask()


# -- ranking and the next symbol ------------------------------------------------------------------


def test_the_sentence_that_was_trained_on_ranks_first():
    """One-sentence training data decides between what sounds alike."""
    heard = [["an", "apple", "pear"], ["an", "pear", "apple"]]
    ts.seed(0)
    m = text.LanguageModel(len(WORDS), 8, 1)
    optimiser = ts.optim.Adam(m.parameters(), lr=0.05)
    batch = text.Batches([[text.START, *WORDS.encode(heard[1]), WORDS.eos]], 1)
    for _ in range(30):
        for inputs, targets, _ in batch:
            loss = functional.cross_entropy(m(inputs)[0], targets)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    best, other = text.rank(m, WORDS, heard)
    assert (best.sentence, other.sentence) == (heard[1], heard[0])
    assert math.exp(best.log_probability) > 0.5
    assert text.likeliest(m, WORDS, ["an"], 1)[0][0] == "pear"


@given(st.lists(st.text("abc", min_size=1, max_size=6), min_size=1, max_size=6), st.integers(0, 3))
def test_a_ranking_agrees_with_the_chain_rule(candidates, seed):
    letters = text.Vocabulary.from_counts("abc")
    m = model(seed)
    found = text.rank(m, letters, candidates)
    assert sorted(r.sentence for r in found) == sorted(candidates)
    for r in found:
        indices = [*letters.encode(r.sentence), letters.eos]
        assert r.log_probability == pytest.approx(by_hand(m, indices))
        assert r.per_symbol == pytest.approx(r.log_probability / len(indices))
    for by in ("log_probability", "per_symbol"):
        values = [getattr(r, by) for r in text.rank(m, letters, candidates, by=by)]
        assert values == sorted(values, reverse=True)


def test_without_an_end_a_sentence_is_its_symbols():
    letters = text.Vocabulary("abcde")
    (found,) = text.rank(model(), letters, ["ab"])
    assert found.log_probability == pytest.approx(model().log_probability([0, 1]))


def test_what_cannot_be_ranked():
    letters = text.Vocabulary("abcde")
    with pytest.raises(ValueError, match="a list of sentences, one or more"):
        text.rank(model(), letters, [])
    with pytest.raises(TypeError, match="candidates='ab' must be a series of strings or lists"):
        text.rank(model(), letters, "ab")
    with pytest.raises(ValueError, match=r"candidates\[1\] is empty"):
        text.rank(model(), letters, ["ab", ""])
    with pytest.raises(ValueError, match="by='length' must be 'log_probability' or 'per_symbol'"):
        text.rank(model(), letters, ["ab"], by="length")
    with pytest.raises(ValueError, match="lacks 'z'"):
        text.rank(model(), letters, ["az"])


@pytest.mark.parametrize("prefix", [[], ["an"], ["an", "apple"]])
def test_the_likeliest_next_symbols(prefix):
    for m in (model(), text.NGram(2, V).fit(np.arange(50) % 3)):
        found = text.likeliest(m, WORDS, prefix, 3)
        log_p = m.log_probabilities(WORDS.encode(prefix))
        assert log_p.shape == (V,)
        everything = dict(text.likeliest(m, WORDS, prefix, 99))
        assert everything == dict(zip(WORDS.symbols, map(math.exp, log_p), strict=True))
        assert [p for _, p in found] == sorted(everything.values(), reverse=True)[:3]
    with pytest.raises(ValueError, match="k=0"):
        text.likeliest(m, WORDS, [], 0)


def test_a_cell_of_every_kind():
    for cell in language_model.CELLS:
        m = model(cell=cell)
        assert isinstance(m, nn.Module)
        assert m.log_probability([2, EOS]) == pytest.approx(by_hand(m, [2, EOS]))


def test_sentences_can_be_read_once():
    sentences = [[0, 1], [2, 3, 1]]
    m, letters = model(), text.Vocabulary("abcde")
    assert m.perplexity(iter(sentences)) == m.perplexity(sentences)
    assert text.rank(m, letters, iter(["ab", "c"])) == text.rank(m, letters, ["ab", "c"])


def test_symbols_without_an_axis_for_steps_or_batch():
    for indices in (0, [0, 1], np.zeros((2, 2, 2), int)):
        with pytest.raises(ts.errors.ShapeError, match=r"indices of shape .*expected \(T, B\)"):
            model()(np.asarray(indices))
