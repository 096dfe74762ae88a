"""N-gram models against a counter that is written out as the equations are."""

import doctest
import functools
import math
import re
import sys
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from any_machine import work
from hypothesis import given
from hypothesis import strategies as st

from tinyseq import text

SMOOTHING = ("kneser-ney", "add-k", None)


def ln(p):
    return math.log(p) if p else -math.inf


@st.composite
def texts(draw, n):
    """V and a text: a few symbols in any order, or many that are rarer and rarer (Zipf's law).

    In the latter there are counts of 1, 2, 3 and 4, as the discounts' formula needs.
    """
    if draw(st.booleans()):
        size = draw(st.integers(1, 5))
        return size, draw(st.lists(st.integers(0, size - 1), min_size=n, max_size=60))
    size = draw(st.integers(10, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return size, (rng.zipf(1.5, draw(st.integers(50, 300))) % size).tolist()


@st.composite
def problems(draw):
    """n, V, a text to count, another one to predict, the smoothing, and k."""
    n = draw(st.integers(1, 5))
    size, counted = draw(texts(n))
    strange = draw(st.lists(st.integers(0, size - 1), min_size=2, max_size=12))
    at = draw(st.integers(0, len(counted) - 1))
    known = counted[at : at + 6]
    return (
        n,
        size,
        counted,
        draw(st.sampled_from([strange, known + strange])),
        draw(st.sampled_from(SMOOTHING)),
        draw(st.sampled_from([1e-3, 0.5, 1.0, 7.0])),
    )


# -- the naive counter: dicts of tuples, one probability at a time ---------------------------------


def naive(n, size, counted, smoothing, k):
    """P(symbol | context) as a function."""

    @functools.cache
    def raw(order):
        counts = {}
        for i in range(len(counted) - order + 1):
            gram = tuple(counted[i : i + order])
            counts[gram] = counts.get(gram, 0) + 1
        return counts

    @functools.cache
    def kinds_before(order):
        before = {}
        for i in range(len(counted) - order + 1):
            gram = tuple(counted[i : i + order])
            before.setdefault(gram, set()).add(counted[i - 1] if i else "the beginning")
        return {gram: len(kinds) for gram, kinds in before.items()}

    def discounts(counts):
        n1, n2, n3, n4 = (sum(c == i for c in counts.values()) for i in (1, 2, 3, 4))
        if min(n1, n2, n3) > 0:
            y = n1 / (n1 + 2 * n2)
            d = [1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
            if all(0 < d[i] < i + 1 for i in range(3)):
                return d
        return [0.5, 1.0, 1.5]

    def add_k(context, symbol):
        counts = raw(len(context) + 1)
        total = sum(counts.get((*context, v), 0) for v in range(size))
        return (counts.get((*context, symbol), 0) + k) / (total + k * size)

    def most_likely(context, symbol):
        counts = raw(len(context) + 1)
        total = sum(counts.get((*context, v), 0) for v in range(size))
        return (
            counts.get((*context, symbol), 0) / total if total else most_likely(context[1:], symbol)
        )

    def kneser_ney(context, symbol, counts):
        d = discounts(counts)
        following = [counts.get((*context, v), 0) for v in range(size)]
        below = 1 / size
        if context:
            below = kneser_ney(context[1:], symbol, kinds_before(len(context)))
        if sum(following) == 0:
            return below
        given_up = [d[min(c, 3) - 1] if c else 0 for c in following]
        return (following[symbol] - given_up[symbol] + sum(given_up) * below) / sum(following)

    def probability(symbol, past):
        context = tuple(past[max(0, len(past) - n + 1) :])
        if smoothing == "add-k":
            return add_k(context, symbol)
        if smoothing is None:
            return most_likely(context, symbol)
        return kneser_ney(context, symbol, raw(len(context) + 1))

    return probability


@given(problems())
def test_perplexities_are_those_of_a_naive_counter(problem):
    n, size, counted, predicted, smoothing, k = problem
    model = text.NGram(n, size, smoothing, k=k).fit(counted)
    probability = naive(n, size, counted, smoothing, k)
    each = [probability(w, predicted[:i]) for i, w in enumerate(predicted)]
    nats = -sum(map(ln, each[1:])) / len(each[1:])
    assert model.score(predicted) == pytest.approx(nats, rel=1e-12, abs=1e-12)
    every = sum(map(ln, each))
    notes = math.exp(-every / len(each)) if every > -math.inf else math.inf
    assert model.perplexity(predicted) == pytest.approx(notes, rel=1e-12)
    assert text.perplexity(each) == pytest.approx(notes, rel=1e-12)
    assert model.log_probability(predicted) == pytest.approx(every, rel=1e-12, abs=1e-12)


@given(problems())
def test_the_distribution_after_any_context_is_that_of_a_naive_counter(problem):
    n, size, counted, context, smoothing, k = problem
    model = text.NGram(n, size, smoothing, k=k).fit(counted)
    probability = naive(n, size, counted, smoothing, k)
    for end in range(len(context) + 1):
        p = np.exp(model.log_probabilities(context[:end]))
        expected = [probability(w, context[:end]) for w in range(size)]
        np.testing.assert_allclose(p, expected, rtol=1e-12)
        assert p.sum() == pytest.approx(1, rel=1e-12)


@given(problems())
def test_a_text_is_as_likely_as_its_symbols_one_by_one(problem):
    n, size, counted, predicted, smoothing, k = problem
    model = text.NGram(n, size, smoothing, k=k).fit(counted)
    each = [model.log_probabilities(predicted[:i])[w] for i, w in enumerate(predicted)]
    assert model.log_probability(predicted) == pytest.approx(sum(each), rel=1e-12, abs=1e-12)
    # and cut in two, the second part with the first as its context
    for at in range(len(predicted) + 1):
        first, second = predicted[:at], predicted[at:]
        parts = model.log_probability(first) + model.log_probability(second, context=first)
        assert parts == pytest.approx(sum(each), rel=1e-12, abs=1e-12)


@given(problems())
def test_a_short_context_is_read_by_the_model_of_that_order(problem):
    n, size, counted, context, smoothing, k = problem
    model = text.NGram(n, size, smoothing, k=k).fit(counted)
    for m in range(min(n, len(context))):
        smaller = text.NGram(m + 1, size, smoothing, k=k).fit(counted)
        np.testing.assert_array_equal(
            model.log_probabilities(context[:m]), smaller.log_probabilities(context[:m])
        )


@given(problems(), st.integers(0, 5))
def test_a_score_with_what_came_before_the_held_out_part(problem, held_out):
    n, size, counted, whole, smoothing, k = problem
    model = text.NGram(n, size, smoothing, k=k).fit(counted)
    at = max(1, len(whole) - 1 - held_out)
    training, validation = whole[:at], whole[at - 1 :]  # as `text.split` cuts
    expected = [model.log_probabilities(whole[:i])[whole[i]] for i in range(at, len(whole))]
    assert model.score(validation, context=training[:-1]) == pytest.approx(
        -np.mean(expected), rel=1e-12, abs=1e-12
    )


# -- known values ---------------------------------------------------------------------------------


def test_bigrams_by_hand():
    # 0 is followed by 1 twice and by 2 once; V = 3.
    counted = [0, 1, 0, 1, 0, 2]
    model = text.NGram(2, 3, "add-k", k=1).fit(counted)
    np.testing.assert_allclose(np.exp(model.log_probabilities([0])), [1 / 6, 3 / 6, 2 / 6])
    np.testing.assert_allclose(np.exp(model.log_probabilities([2])), [1 / 3, 1 / 3, 1 / 3])
    np.testing.assert_allclose(np.exp(model.log_probabilities()), [4 / 9, 3 / 9, 2 / 9])
    # Kneser-Ney, discounts ½ and 1. Before 0 there are the beginning and 1, before 1 and 2 only 0:
    # counts 2, 1, 1, which keep 1, ½, ½ of 4 and leave 2 to the uniform distribution.
    model = text.NGram(2, 3).fit(counted)
    below = (np.array([1, 0.5, 0.5]) + 2 / 3) / 4
    np.testing.assert_allclose(np.exp(model.log_probabilities([2])), below)
    after_0 = (np.array([0, 1, 0.5]) + 1.5 * below) / 3
    np.testing.assert_allclose(np.exp(model.log_probabilities([0])), after_0)


def test_discounts_by_hand():
    # n_1 … n_4 are 4, 2, 1, 1, so that Y = ½ and D is ½, 1¼ and 1: 6½ of 15 is given up.
    counted = [0, 1, 2, 3, *[4, 5] * 2, *[6] * 3, *[7] * 4]
    p = np.exp(text.NGram(1, 10).fit(counted).log_probabilities())
    kept = np.array([0.5, 0.5, 0.5, 0.5, 0.75, 0.75, 2, 3, 0, 0])
    np.testing.assert_allclose(p, (kept + 6.5 / 10) / 15)


WORDS = ["the", "cat", "sits", ".", "the", "cat", "sleeps", ".", "the", "dog", "sits", "."]
VOCABULARY = text.Vocabulary.from_counts(WORDS)  # <UNK> and <EOS> never came


def by_word(model, *context):
    p = np.exp(model.log_probabilities(context=VOCABULARY.encode(context)))
    assert p.sum() == pytest.approx(1, rel=1e-15)
    return dict(zip(VOCABULARY.symbols, p.tolist(), strict=True))


def test_counting_as_the_notes_count():
    counted = VOCABULARY.encode(WORDS)
    unigram, bigram, trigram = (
        text.NGram(n, len(VOCABULARY), smoothing=None).fit(counted) for n in (1, 2, 3)
    )
    assert by_word(unigram)["the"] == pytest.approx(3 / 12)  # count(w) / total words
    assert by_word(bigram, "the")["cat"] == pytest.approx(2 / 3)
    assert by_word(bigram, "the")["sits"] == by_word(bigram, "the")["<UNK>"] == 0
    assert by_word(trigram, "the", "cat")["sits"] == pytest.approx(1 / 2)  # "The cat sits"
    # count(., the) / count(.) would be 2/3: the text ends in the third, and nothing follows there
    assert by_word(bigram, ".")["the"] == pytest.approx(1)
    # never seen: the shorter context stands in
    assert by_word(trigram, "dog", "cat") == by_word(bigram, "cat")
    assert by_word(bigram, "<UNK>") == by_word(unigram)
    unseen = VOCABULARY.encode(["the", "sits"])
    assert bigram.log_probability(unseen) == -math.inf
    assert bigram.perplexity(unseen) == bigram.score(unseen) == math.inf
    assert bigram.log_probabilities_of([unseen, unseen[:1]]) == pytest.approx(
        [-math.inf, math.log(1 / 4)]
    )
    # the: 1/4, cat | the: 2/3, sits | cat: 1/2
    p = 1 / 4 * 2 / 3 * 1 / 2
    some = WORDS[:3]
    assert bigram.perplexity(some, vocabulary=VOCABULARY) == pytest.approx(p ** (-1 / 3))
    assert text.perplexity([1 / 4, 2 / 3, 1 / 2]) == pytest.approx(p ** (-1 / 3))


@given(problems())
def test_counts_are_those_of_a_naive_counter(problem):
    n, size, counted, _, smoothing, _ = problem
    model = text.NGram(n, size, smoothing).fit(counted)
    for m in range(1, n + 1):
        grams = [tuple(counted[i : i + m]) for i in range(len(counted) - m + 1)]
        found = model.counts(m)
        assert found == Counter(grams)
        ranks = [(-count, gram) for gram, count in found.items()]
        assert ranks == sorted(ranks)
        assert found[(0,) * (m + 1)] == 0


def test_counts_are_a_table():
    model = text.NGram(2, len(VOCABULARY)).fit(VOCABULARY.encode(WORDS))
    counts = model.counts(2, VOCABULARY)
    assert counts["the", "cat"] == 2
    assert counts["cat", "the"] == 0
    assert repr(counts).splitlines()[:3] == [
        "count  2-gram", "    2  .       the", "    2  the     cat"
    ]  # fmt: skip
    assert "<tr><td>2</td><td>the</td><td>cat</td></tr>" in counts._repr_html_()
    letters = text.Vocabulary("<a \n" + "".join(map(chr, range(0x4E00, 0x4E19))))
    model = text.NGram(1).fit(np.repeat(np.arange(29), 1000))
    counts = model.counts(1, letters)
    assert repr(counts).splitlines()[1:4] == ["1,000  '\\n'", "1,000  ' '", "1,000  <"]
    assert repr(counts).endswith("… and 9 more")
    html = counts._repr_html_()
    assert "<td>&lt;</td>" in html
    assert "<td>&#x27; &#x27;</td>" in html
    assert html.endswith("<td>… and 9 more</td></tr></table>")
    assert repr(type(counts)()) == "count  0-gram"
    with pytest.raises(ValueError, match=r"n=2 is more than the 1 symbols that NGram\(1\) counts"):
        model.counts(2)
    with pytest.raises(ValueError, match="index 28 is out of range"):
        model.counts(1, text.Vocabulary("ab"))


def test_what_came_after_one_word_only_is_not_likely_elsewhere():
    """Kneser and Ney's example: "Francisco" is frequent, but only ever after "San"."""
    san, francisco, glasses, others = 0, 1, 2, list(range(3, 13))
    counted = [*[san, francisco] * 20]
    for other in others:
        counted += [other, glasses]
    unseen = 13
    p = text.NGram(2, 14).fit(counted).log_probabilities([unseen])
    assert p[glasses] > p[francisco]
    p = text.NGram(2, 14, "add-k").fit(counted).log_probabilities()
    assert p[glasses] < p[francisco]


@pytest.mark.parametrize("smoothing", SMOOTHING[:2])
def test_a_sentence_starts_after_the_end_of_another(smoothing):
    eos, apple, pear, salad = range(4)
    counted = [eos, apple, salad, eos, pear, salad, eos, pear, salad, eos]
    model = text.NGram(3, 4, smoothing).fit(counted)
    started = text.NGram(3, 4, smoothing, start=eos).fit(counted)

    def nats(*sentence):
        found = model.log_probability([*sentence, eos], context=[eos])
        assert started.log_probability([*sentence, eos]) == found
        return found

    assert nats(pear, salad) > nats(apple, salad) > nats(salad, apple)
    # Over all sentences of up to three symbols that is less than 1: longer ones have the rest.
    words = (apple, pear, salad)
    every = [(a,) for a in words] + [(a, b) for a in words for b in words]
    assert 0.5 < sum(math.exp(nats(*s)) for s in [(), *every]) < 1


def test_probabilities_too_small_for_a_float_are_finite_in_log_space():
    k = 5e-324  # the smallest float there is; a third of it is 0
    model = text.NGram(1, 3, "add-k", k=k).fit([0, 0, 1])
    assert model.log_probabilities()[2] == pytest.approx(math.log(k) - math.log(3))
    assert model.log_probability([2] * 1000) == pytest.approx(1000 * (math.log(k) - math.log(3)))


# -- sampling -------------------------------------------------------------------------------------


@given(problems(), st.integers(0, 2**32 - 1))
def test_samples_are_drawn_from_the_distribution_of_their_past(problem, seed):
    n, size, counted, prime, smoothing, k = problem
    model = text.NGram(n, size, smoothing, k=k).fit(counted)
    written = model.sample(8, prime, np.random.default_rng(seed), temperature=0.7)
    draws = np.random.default_rng(seed).random(8)
    for i, draw in enumerate(draws):
        p = np.exp(model.log_probabilities([*prime, *written[:i]]) / 0.7)
        edges = np.append(0, np.cumsum(p) / p.sum())
        assert edges[written[i]] - 1e-9 <= draw <= edges[written[i] + 1] + 1e-9


def test_temperature_0_takes_the_most_probable():
    model = text.NGram(3).fit([0, 1, 2] * 20)
    assert model.sample(7, [1], temperature=0).tolist() == [2, 0, 1, 2, 0, 1, 2]
    assert model.sample(0).tolist() == []
    assert model.sample(3).dtype == np.int64


def test_a_draw_of_exactly_0_is_no_symbol_of_probability_0():
    class Zeros(np.random.Generator):
        def random(self, size):
            return np.zeros(size)

    zeros = Zeros(np.random.PCG64(0))
    model = text.NGram(1, 2).fit([1, 1, 1])
    assert model.sample(2, rng=zeros, temperature=1e-6).tolist() == [1, 1]


def test_samples_without_an_rng_are_the_library_s_own():
    model = text.NGram(2, 50).fit([0, 1])
    first = model.sample(20)
    assert first.tolist() != model.sample(20).tolist()
    assert first.max() < 50


def test_a_temperature_close_to_0_takes_the_most_probable():
    model = text.NGram(3).fit([0, 1, 2] * 20)
    assert model.sample(4, [0], np.random.default_rng(0), 5e-324).tolist() == [1, 2, 0, 1]


# -- large texts ----------------------------------------------------------------------------------


def test_words_of_a_large_vocabulary_do_not_overflow():
    """V^n is 10^75 here: n-grams are numbered by rank, order by order."""
    rng = np.random.default_rng(0)
    size = 10**15
    few = rng.choice(size, 30)
    counted = few[rng.integers(0, 30, 3000)]
    ranks = np.unique(counted, return_inverse=True)[1]
    # Only what goes to symbols that were never seen differs: with V = 30 that is nothing.
    for smoothing in SMOOTHING:
        model = text.NGram(5, size, smoothing, k=1e-15).fit(counted)
        small = text.NGram(5, size + 1, smoothing, k=1e-15).fit(ranks)
        assert model.score(counted) == pytest.approx(small.score(ranks), rel=1e-9)


def test_five_grams_of_a_million_characters_are_counted_in_a_moment():
    rng = np.random.default_rng(0)
    # Zipf's frequencies, in words that come back: more n-grams than a text of that size has.
    words = [rng.zipf(1.6, rng.integers(2, 9)) % 65 for _ in range(3000)]
    counted = np.concatenate([words[i] for i in rng.zipf(1.3, 300_000) % 3000])[:1_115_394]
    assert len(counted) == 1_115_394
    model = text.NGram(5, 65)
    assert work(model.fit, counted) < 10_000  # lines, so many each half million: NumPy counts
    tracemalloc.start()
    model.fit(counted)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6
    assert 1 < model.perplexity(counted) < 65


# -- errors ---------------------------------------------------------------------------------------


def test_arguments_out_of_range():
    with pytest.raises(ValueError, match="n=0 must be a whole number, at least 1"):
        text.NGram(0)
    with pytest.raises(ValueError, match="vocabulary_size=0 must be a whole number, at least 1"):
        text.NGram(2, 0)
    with pytest.raises(ValueError, match="'laplace' must be 'kneser-ney' or 'add-k' or None"):
        text.NGram(2, 5, "laplace")
    for k in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"k={k} must be a real number, above 0 and finite"):
            text.NGram(2, 5, "add-k", k=k)


def test_texts_that_cannot_be_counted():
    model = text.NGram(3, 4)
    with pytest.raises(ValueError, match="groups of 3 symbols, and the text has 0"):
        model.fit([])
    with pytest.raises(ValueError, match=r"the text has 2\. Use a longer text or a smaller n"):
        model.fit([0, 1])
    with pytest.raises(ValueError, match=r"indices\[2\] is 4: out of range, .* 4 symbols, 0 to 3"):
        model.fit([0, 1, 4])
    with pytest.raises(ValueError, match=r"indices\[1\] is -1"):
        text.NGram(1).fit([0, -1])
    with pytest.raises(ValueError, match=r"start=4 is out of range, .* 4 symbols, 0 to 3"):
        text.NGram(2, 4, start=4).fit([0, 1, 2])
    with pytest.raises(TypeError, match="indices of float64: expected the whole numbers"):
        model.fit([0.0, 1.0, 2.0])
    with pytest.raises(ValueError, match=r"shape \(2, 3\): expected one dimension"):
        model.fit(np.zeros((2, 3), int))
    with pytest.raises(ValueError, match="too large to number the n-grams of 4 symbols"):
        text.NGram(2, 2**62).fit([0, 1, 2, 3])


@pytest.mark.parametrize(
    "ask",
    [
        lambda model: model.score([0, 1]),
        lambda model: model.perplexity([0, 1]),
        lambda model: model.log_probability([0]),
        lambda model: model.log_probabilities(),
        lambda model: model.counts(2),
        lambda model: model.sample(3),
    ],
)
def test_a_model_that_has_counted_nothing(ask):
    with pytest.raises(ValueError, match=re.escape("NGram(2) has counted nothing yet. Call fit")):
        ask(text.NGram(2, 5))


def test_questions_that_have_no_answer():
    model = text.NGram(2, 3).fit([0, 1, 2])
    for short in ([], [0]):
        with pytest.raises(ValueError, match=f"at least 2 symbols, there are {len(short)}"):
            model.score(short)
    with pytest.raises(ValueError, match=r"indices\[1\] is 3: out of range"):
        model.score([0, 3])
    with pytest.raises(ValueError, match=r"context\[0\] is 3: out of range"):
        model.score([0, 1], context=[3])
    with pytest.raises(ValueError, match=r"prefix\[0\] is -1: out of range"):
        model.log_probabilities([-1])
    with pytest.raises(TypeError, match="prefix of float64: expected the whole"):
        model.log_probabilities([0.5])
    with pytest.raises(ValueError, match=r"prime\[0\] is 3: out of range"):
        model.sample(2, prime=[3])
    with pytest.raises(ValueError, match="length=-1 must be a whole number, at least 0"):
        model.sample(-1)
    for temperature in (-1, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"temperature={temperature} must be a real number"):
            model.sample(1, temperature=temperature)


def test_a_text_that_cannot_be_counted_leaves_the_model_as_it_was():
    model = text.NGram(2, 3).fit([0, 1, 2, 0])
    before = model.log_probabilities([0])
    with pytest.raises(ValueError, match="out of range"):
        model.fit([0, 7])
    np.testing.assert_array_equal(model.log_probabilities([0]), before)


def test_the_size_of_the_vocabulary_is_taken_from_the_text_when_left_out():
    model = text.NGram(1).fit([4, 2])
    assert model.vocabulary_size == 5
    assert model.log_probabilities().shape == (5,)
    assert model.log_probability([]) == 0


def test_repr_and_docstring():
    assert repr(text.NGram(3, 65)) == "NGram(3, 65, 'kneser-ney')"
    assert repr(text.NGram(3, 65, "add-k", k=1.0)) == "NGram(3, 65, 'add-k', k=1.0)"
    assert repr(text.NGram(3, 65, None, start=1)) == "NGram(3, 65, None, start=1)"
    failed, attempted = doctest.testmod(sys.modules[text.NGram.__module__])
    assert attempted > 0
    assert failed == 0


def test_another_text_is_counted_anew():
    model = text.NGram(2).fit([0, 1, 2])
    assert model.fit([0, 1, 0]).vocabulary_size == 2
    assert model.fit([0, 3, 0]).vocabulary_size == 4
    with pytest.raises(ValueError, match="out of range"):
        text.NGram(2, 2).fit([0, 1, 0]).fit([0, 1, 2])
